_base_ = ['./ce_fpn-lite0_1200_nyuv2-224x224.py', '../_base_/ltmi_nyuv2.py']
model = dict(
    decode_head=dict(type='LTMIFPNHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
