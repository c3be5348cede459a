_base_ = ['./ce_deeplabv3plus_r50-d8_1xb8-20k_nyuv2-480x480.py', '../_base_/ltmi_nyuv2.py']
model = dict(
    decode_head=dict(
        type='LTMIDepthwiseSeparableASPPHead', loss_decode=_base_.ltmi_loss, contrast=dict()
    ),
    auxiliary_head=dict(loss_decode=_base_.ltmi_loss),
)
