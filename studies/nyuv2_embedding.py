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


rows = {
    'LTMI': dict(),
    'no-contrast': dict(change=dict(model=dict(decode_head=dict(contrast=None)))),
    'no-own-key': contrast(loss=dict(own_key=False)),
    'beta-0.3': contrast(loss=dict(loss_weight=0.3)),
    'beta-1': contrast(loss=dict(loss_weight=1.0)),
    'width-64': contrast(projector=dict(out_channels=64)),
    'width-256': contrast(projector=dict(out_channels=256)),
    'one-layer': contrast(projector=dict(num_layers=1)),
    'queries-2048': contrast(sampler=dict(num_samples=2048)),
    'fixed-temperature': contrast(loss=dict(learn_temperature=False)),
    # As many slots for every class, or by the root of its share, of many images each.
    'queue-alike': contrast(queue=dict(size=9984, power=0.0, max_new=8)),
    'queue-root': contrast(queue=dict(size=9984, power=0.5, max_new=8)),
    'warm-up': dict(
        change=dict(custom_hooks=[dict(type='StepSeedHook'), dict(type='ContrastWarmupHook')])
    ),
    # The contrastive term beside a plain cross-entropy.
    'cross-entropy-and-contrast': dict(
        change=dict(model=dict(decode_head=dict(loss_decode=dict(tau=0.0, class_weight=None))))
    ),
}
