_base_ = [
    'mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
    '../_base_/ltmi_cityscapes.py',
]
custom_imports = dict(imports=['mmseg_ltmi', 'mmdet.models'])
model = dict(
    decode_head=dict(type='LTMIMask2FormerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
