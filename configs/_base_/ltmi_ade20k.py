# What the configs for ADE20K have in common: their loss, metrics and import.
custom_imports = dict(imports=['mmseg_ltmi'])
ltmi_loss = dict(type='LTMILoss', class_prior='ade20k')
ltmi_evaluator = [
    dict(type='LongTailIoUMetric', class_prior='ade20k', iou_metrics=['mIoU']),
    dict(type='LogitAdjustmentSweep', class_prior='ade20k'),
]
