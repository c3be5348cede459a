_base_ = 'mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmseg_ltmi', 'mmdet.models'])
ltmi_loss = dict(type='LTMILoss', class_prior='ade20k')
model = dict(
    decode_head=dict(type='LTMIMask2FormerHead', loss_decode=ltmi_loss, contrast=dict()),
)
val_evaluator = test_evaluator = [
    dict(type='LongTailIoUMetric', class_prior='ade20k', iou_metrics=['mIoU']),
    dict(type='LogitAdjustmentSweep', class_prior='ade20k'),
]
