# A teacher: an ordinary config with logit adjustment.
_base_ = 'mmseg::deeplabv3plus/deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmseg_ltmi'])
model = dict(
    decode_head=dict(loss_decode=dict(type='LogitAdjustedLoss', class_prior='cityscapes')),
    auxiliary_head=dict(loss_decode=dict(type='LogitAdjustedLoss', class_prior='cityscapes')),
)
