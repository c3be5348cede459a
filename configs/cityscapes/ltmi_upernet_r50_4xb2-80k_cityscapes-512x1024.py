_base_ = [
    'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/ltmi_cityscapes.py',
]
model = dict(
    decode_head=dict(type='LTMIUPerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
    auxiliary_head=dict(loss_decode=_base_.ltmi_loss),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
