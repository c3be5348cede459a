# Class weights, three times the steps: the teacher of distilled_fpn-lite0_600_...
_base_ = ['./ce_fpn-lite0_600_camvid-192x192.py', '../_base_/ltmi_camvid.py']
model = dict(
    decode_head=dict(
        type='LTMIFPNHead',
        loss_decode=dict(**_base_.ltmi_loss, tau=0.0, class_weight='median_frequency'),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=50, end=1800, by_epoch=False),
]
train_cfg = dict(max_iters=1800, val_interval=1800)
