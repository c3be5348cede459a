_base_ = [
    'mmseg::deeplabv3plus/deeplabv3plus_r101-d8_4xb4-160k_ade20k-512x512.py',
    '../_base_/ltmi_ade20k.py',
]
model = dict(
    decode_head=dict(
        type='LTMIDepthwiseSeparableASPPHead', loss_decode=_base_.ltmi_loss, contrast=dict()
    ),
    auxiliary_head=dict(loss_decode=_base_.ltmi_loss),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
