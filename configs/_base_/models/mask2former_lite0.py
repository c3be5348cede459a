# A small Mask2Former: 40 queries, 64 channels, three decoder layers. It takes
# the place of the head and neck of fpn_lite0.py; a config adds the classes and their weights.
attention = dict(embed_dims=64, num_heads=4, batch_first=True)
ffn = dict(
    embed_dims=64,
    feedforward_channels=256,
    num_fcs=2,
    ffn_drop=0.0,
    act_cfg=dict(type='ReLU', inplace=True),
)
position = dict(num_feats=32, normalize=True)
mask_head = dict(
    type='Mask2FormerHead',
    in_channels=[24, 40, 112, 320],
    strides=[4, 8, 16, 32],
    feat_channels=64,
    out_channels=64,
    num_queries=40,
    num_transformer_feat_level=3,
    pixel_decoder=dict(
        type='mmdet.MSDeformAttnPixelDecoder',
        num_outs=3,
        norm_cfg=dict(type='GN', num_groups=16),
        act_cfg=dict(type='ReLU'),
        encoder=dict(
            num_layers=2,
            layer_cfg=dict(
                self_attn_cfg=dict(num_levels=3, num_points=4, dropout=0.0, **attention),
                ffn_cfg=ffn,
            ),
        ),
        positional_encoding=position,
    ),
    positional_encoding=position,
    transformer_decoder=dict(
        return_intermediate=True,
        num_layers=3,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
    ),
    loss_mask=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0),
    loss_dice=dict(
        type='mmdet.DiceLoss',
        use_sigmoid=True,
        activate=True,
        naive_dice=True,
        eps=1.0,
        loss_weight=5.0,
    ),
    train_cfg=dict(
        num_points=2048,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        assigner=dict(
            type='mmdet.HungarianAssigner',
            match_costs=[
                dict(type='mmdet.ClassificationCost', weight=2.0),
                dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
            ],
        ),
        sampler=dict(type='mmdet.MaskPseudoSampler'),
    ),
)
mask_loss_cls = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=2.0)
