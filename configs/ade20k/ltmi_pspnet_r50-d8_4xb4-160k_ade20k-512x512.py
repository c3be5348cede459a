_base_ = ['mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py', '../_base_/ltmi_ade20k.py']
model = dict(
    decode_head=dict(type='LTMIPSPHead', loss_decode=_base_.ltmi_loss, contrast=dict()),
    auxiliary_head=dict(loss_decode=_base_.ltmi_loss),
)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
