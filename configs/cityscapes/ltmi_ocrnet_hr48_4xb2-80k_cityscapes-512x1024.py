_base_ = 'mmseg::ocrnet/ocrnet_hr48_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmseg_ltmi'])
loss_decode = dict(
    type='LogitAdjustedLoss', class_prior='cityscapes', tau=0.5, class_weight='inverse_sqrt'
)
# A list replaces the base's list, so the two stages are taken from it and changed here.
decode_head = _base_.model.decode_head
decode_head[0].loss_decode.update(loss_decode)
decode_head[1].update(type='LTMIOCRHead', contrast=dict(class_prior='cityscapes'))
decode_head[1].loss_decode.update(loss_decode)
model = dict(decode_head=decode_head)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}))
val_evaluator = [
    dict(type='LongTailIoUMetric', class_prior='cityscapes', iou_metrics=['mIoU']),
    dict(type='LogitAdjustmentSweep', class_prior='cityscapes'),
]
test_evaluator = val_evaluator
