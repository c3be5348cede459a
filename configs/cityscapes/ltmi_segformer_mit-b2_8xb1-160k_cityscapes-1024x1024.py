_base_ = 'mmseg::segformer/segformer_mit-b2_8xb1-160k_cityscapes-1024x1024.py'
custom_imports = dict(imports=['mmseg_ltmi'])
model = dict(
    decode_head=dict(
        type='LTMISegformerHead',
        loss_decode=dict(type='LogitAdjustedLoss', class_prior='cityscapes'),
        contrast=dict(class_prior='cityscapes'),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}))
