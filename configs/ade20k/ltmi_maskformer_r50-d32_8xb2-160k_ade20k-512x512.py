_base_ = [
    'mmseg::maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    '../_base_/ltmi_ade20k.py',
]
custom_imports = dict(imports=['mmseg_ltmi', 'mmdet.models'])
model = dict(
    decode_head=dict(type='LTMIMaskFormerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
