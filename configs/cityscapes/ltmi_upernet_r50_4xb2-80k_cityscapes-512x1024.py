_base_ = 'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmseg_ltmi'])
loss_decode = dict(
    type='LogitAdjustedLoss', class_prior='cityscapes', tau=0.5, class_weight='inverse_sqrt'
)
model = dict(
    decode_head=dict(
        type='LTMIUPerHead',
        loss_decode=loss_decode,
        contrast=dict(class_prior='cityscapes'),
    ),
    auxiliary_head=dict(loss_decode=loss_decode),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}))
val_evaluator = [
    dict(type='LongTailIoUMetric', class_prior='cityscapes', iou_metrics=['mIoU']),
    dict(type='LogitAdjustmentSweep', class_prior='cityscapes'),
]
test_evaluator = val_evaluator
