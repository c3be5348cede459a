_base_ = ['./ce_fcn-r18_2k_camvid-352x352.py', '../_base_/ltmi_camvid.py']
model = dict(
    decode_head=dict(type='LTMIFCNHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
