_base_ = [
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/ltmi_cityscapes.py',
]
model = dict(
    decode_head=dict(
        type='LTMIDepthwiseSeparableASPPHead', loss_decode=_base_.ltmi_loss, contrast=dict()
    ),
    auxiliary_head=dict(loss_decode=_base_.ltmi_loss),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
