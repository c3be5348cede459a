_base_ = ['./ce_fcn-r18_1k_camvid-176x176.py', '../_base_/ltmi_camvid.py']
model = dict(
    decode_head=dict(type='LTMIFCNHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
)
