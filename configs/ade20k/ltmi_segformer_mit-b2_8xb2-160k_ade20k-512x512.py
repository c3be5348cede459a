_base_ = 'mmseg::segformer/segformer_mit-b2_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmseg_ltmi'])
model = dict(
    decode_head=dict(
        type='LTMISegformerHead',
        loss_decode=dict(
            type='LogitAdjustedLoss', class_prior='ade20k', tau=0.5, class_weight='inverse_sqrt'
        ),
        contrast=dict(class_prior='ade20k'),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}))
val_evaluator = [
    dict(type='LongTailIoUMetric', class_prior='ade20k', iou_metrics=['mIoU']),
    dict(type='LogitAdjustmentSweep', class_prior='ade20k'),
]
test_evaluator = val_evaluator
