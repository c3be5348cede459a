# A teacher: an ordinary config with logit adjustment.
_base_ = [
    'mmseg::swin/swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    '../_base_/ltmi_ade20k.py',
]
model = dict(
    decode_head=dict(loss_decode=_base_.ltmi_loss),
    auxiliary_head=dict(loss_decode=_base_.ltmi_loss),
)
