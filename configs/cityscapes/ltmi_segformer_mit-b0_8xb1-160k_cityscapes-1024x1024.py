_base_ = 'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'
custom_imports = dict(imports=['mmseg_ltmi'])
model = dict(
    decode_head=dict(
        type='LTMISegformerHead',
        loss_decode=dict(
            type='LogitAdjustedLoss', class_prior='cityscapes', tau=0.5, class_weight='inverse_sqrt'
        ),
        contrast=dict(class_prior='cityscapes'),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}))
val_evaluator = [
    dict(type='LongTailIoUMetric', class_prior='cityscapes', iou_metrics=['mIoU']),
    dict(type='LogitAdjustmentSweep', class_prior='cityscapes'),
]
test_evaluator = val_evaluator
