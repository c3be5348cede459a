# LTMI with the contrastive term on the FPN's level of stride 8, in a head of its own. What the
# classifier sees, at stride 4, is not contrasted.
_base_ = '../../configs/nyuv2/ltmi_fpn-lite0_1200_nyuv2-224x224.py'
model = dict(
    decode_head=dict(contrast=None),
    auxiliary_head=dict(
        type='LTMIFCNHead',
        in_channels=64,
        in_index=1,
        channels=64,
        num_convs=0,
        concat_input=False,
        num_classes=39,
        loss_decode=dict(type='LTMILoss', class_prior='nyuv2', loss_weight=0.0),
        contrast=dict(),
    ),
)
