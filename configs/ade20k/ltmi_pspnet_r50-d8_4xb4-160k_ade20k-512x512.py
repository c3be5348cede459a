_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmseg_ltmi'])
loss_decode = dict(
    type='LogitAdjustedLoss', class_prior='ade20k', tau=0.5, class_weight='inverse_sqrt'
)
model = dict(
    decode_head=dict(
        type='LTMIPSPHead',
        loss_decode=loss_decode,
        contrast=dict(class_prior='ade20k'),
    ),
    auxiliary_head=dict(loss_decode=loss_decode),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}))
val_evaluator = [
    dict(type='LongTailIoUMetric', class_prior='ade20k', iou_metrics=['mIoU']),
    dict(type='LogitAdjustmentSweep', class_prior='ade20k'),
]
test_evaluator = val_evaluator
