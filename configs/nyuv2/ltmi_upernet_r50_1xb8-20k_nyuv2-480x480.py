_base_ = ['./ce_upernet_r50_1xb8-20k_nyuv2-480x480.py', '../_base_/ltmi_nyuv2.py']
model = dict(
    decode_head=dict(type='LTMIUPerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
    auxiliary_head=dict(loss_decode=_base_.ltmi_loss),
)
