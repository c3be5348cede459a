_base_ = [
    '../_base_/models/fcn_r18.py',
    '../_base_/datasets/camvid.py',
    '../_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(352, 352)), pretrained='open-mmlab://resnet18_v1c')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01))
param_scheduler = [dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=0, end=2000, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2000, val_interval=2000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=2),
)
randomness = dict(seed=0)
