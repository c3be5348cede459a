# What makes the embedding worth reading: one factor of the contrastive term at a time, with
# 39 classes, each run read with its memory. 600 steps, half of nyuv2.py's, so that more factors can
# be tried. The val split alone judges, cross-fitted in five folds; the test split is not looked at.
# A quarter of an hour a run on one CPU core:
#   python studies/run.py studies/nyuv2_embedding.py --workers 2
base = '../configs/nyuv2/ltmi_fpn-lite0_1200_nyuv2-224x224.py'
common = dict(
    custom_hooks=[dict(type='StepSeedHook')],
    param_scheduler=[
        dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
        dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=50, end=600, by_epoch=False),
    ],
    train_cfg=dict(max_iters=600, val_interval=600),
)
seeds = (0,)
judge = ['--report', 'val', '--folds', '5', '--class-prior', 'nyuv2']
memory = ['--centers', '16']


def contrast(**change):
    return dict(change=dict(model=dict(decode_head=dict(contrast=change))))


_moving_average = dict(type='DistilledEncoderDecoder', teacher=dict(type='EMA', momentum=0.99))
_views = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(344, 256), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(224, 224), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackTwoViews'),
]
_fixed = dict(lr_mult=0.0, decay_mult=0.0)
rows = {
    'LTMI': dict(),
    'no-contrast': dict(change=dict(model=dict(decode_head=dict(contrast=None)))),
    'no-own-key': contrast(loss=dict(own_key=False)),
    'beta-0.03': contrast(loss=dict(loss_weight=0.03)),
    'beta-0.3': contrast(loss=dict(loss_weight=0.3)),
    'beta-1': contrast(loss=dict(loss_weight=1.0)),
    'width-64': contrast(projector=dict(out_channels=64)),
    'width-256': contrast(projector=dict(out_channels=256)),
    'one-layer': contrast(projector=dict(num_layers=1)),
    'queries-2048': contrast(sampler=dict(num_samples=2048)),
    'root-draw': contrast(sampler=dict(power=0.5)),
    'uniform-draw': contrast(sampler=dict(power=1.0)),
    'fixed-temperature': contrast(loss=dict(learn_temperature=False)),
    'queue-16384': contrast(queue=dict(size=16384)),
    'min-per-class-64': contrast(queue=dict(min_per_class=64)),
    # As many slots for every class, or by the root of its share, of many images each.
    'queue-alike': contrast(queue=dict(size=9984, power=0.0, max_new=8)),
    'queue-root': contrast(queue=dict(size=9984, power=0.5, max_new=8)),
    'region-keys': contrast(region_keys=True),
    'level-of-stride-8': dict(base='./_base_/stride_8_nyuv2.py'),
    'moving-average': dict(change=dict(model=_moving_average)),
    'second-view': dict(
        change=dict(model=_moving_average, train_dataloader=dict(dataset=dict(pipeline=_views)))
    ),
    'warm-up': dict(
        change=dict(custom_hooks=[dict(type='StepSeedHook'), dict(type='ContrastWarmupHook')])
    ),
    # The contrastive term beside a plain cross-entropy.
    'cross-entropy-and-contrast': dict(
        change=dict(model=dict(decode_head=dict(loss_decode=dict(tau=0.0, class_weight=None))))
    ),
    # A classifier of random directions that training leaves as they are, and its control.
    'cosine': dict(change=dict(model=dict(decode_head=dict(classifier=dict(type='cosine'))))),
    'frozen-cosine': dict(
        change=dict(
            model=dict(decode_head=dict(classifier=dict(type='cosine'))),
            optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'decode_head.conv_seg': _fixed})),
        )
    ),
}
