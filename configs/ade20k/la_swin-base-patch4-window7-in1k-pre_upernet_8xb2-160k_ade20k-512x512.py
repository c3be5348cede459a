# A teacher: an ordinary config with logit adjustment.
_base_ = 'mmseg::swin/swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmseg_ltmi'])
loss_decode = dict(
    type='LogitAdjustedLoss', class_prior='ade20k', tau=0.5, class_weight='inverse_sqrt'
)
model = dict(
    decode_head=dict(loss_decode=loss_decode),
    auxiliary_head=dict(loss_decode=loss_decode),
)
