_base_ = ['./ce_mask2former-lite0_600_nyuv2-224x224.py', '../_base_/ltmi_nyuv2.py']
model = dict(
    decode_head=dict(type='LTMIMask2FormerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
