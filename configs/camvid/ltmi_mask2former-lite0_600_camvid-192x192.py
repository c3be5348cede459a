_base_ = ['./ce_mask2former-lite0_600_camvid-192x192.py', '../_base_/ltmi_camvid.py']
model = dict(
    decode_head=dict(type='LTMIMask2FormerHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
