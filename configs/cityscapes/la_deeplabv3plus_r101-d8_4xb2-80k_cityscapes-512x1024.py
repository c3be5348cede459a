# A teacher: an ordinary config with logit adjustment.
_base_ = 'mmseg::deeplabv3plus/deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmseg_ltmi'])
loss_decode = dict(
    type='LogitAdjustedLoss', class_prior='cityscapes', tau=0.5, class_weight='inverse_sqrt'
)
model = dict(
    decode_head=dict(loss_decode=loss_decode),
    auxiliary_head=dict(loss_decode=loss_decode),
)
