# mmsegmentation has no UPerNet with Swin-T on Cityscapes: its UPerNet-R50 config, with the backbone
# and the optimiser of its Swin-T config for ADE20K.
_base_ = [
    'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/ltmi_cityscapes.py',
]
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
            'swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',
        ),
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.3,
    ),
    decode_head=dict(
        type='LTMIUPerHead',
        in_channels=[96, 192, 384, 768],
        loss_decode=_base_.ltmi_loss,
        contrast=dict(),
    ),
    auxiliary_head=dict(in_channels=384, loss_decode=_base_.ltmi_loss),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.00006, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys={
            'relative_position_bias_table': dict(decay_mult=0.0),
            'norm': dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=80000, by_epoch=False),
]
train_dataloader = dict(batch_size=1)
val_evaluator = test_evaluator = _base_.ltmi_evaluator
