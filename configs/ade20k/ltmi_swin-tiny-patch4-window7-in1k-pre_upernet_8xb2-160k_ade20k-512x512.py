_base_ = [
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    '../_base_/ltmi_ade20k.py',
]
model = dict(
    decode_head=dict(type='LTMIUPerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
    auxiliary_head=dict(loss_decode=_base_.ltmi_loss),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
