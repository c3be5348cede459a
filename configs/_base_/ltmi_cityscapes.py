# What the configs for Cityscapes have in common: their loss, metrics and import.
custom_imports = dict(imports=['mmseg_ltmi'])
ltmi_loss = dict(type='LTMILoss', class_prior='cityscapes')
ltmi_evaluator = [
    dict(type='LongTailIoUMetric', class_prior='cityscapes', iou_metrics=['mIoU']),
    dict(type='LogitAdjustmentSweep', class_prior='cityscapes'),
]
