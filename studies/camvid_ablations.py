# One factor of LTMI at a time, on CamVid. The held-out drive alone judges, cross-fitted in five
# folds; the test split is not looked at.
#   python studies/run.py studies/camvid_ablations.py --workers 2
_base_ = './_base_/held_out_drive.py'
base = '../configs/camvid/ltmi_fpn-lite0_600_camvid-192x192.py'
common = dict(
    model=dict(
        decode_head=dict(
            loss_decode=dict(
                type='LogitAdjustedLoss', class_prior=None, tau=1.0, class_weight=None
            ),
            # What beta and the queries were when these ran.
            contrast=dict(
                class_prior=None, sampler=dict(num_samples=1024), loss=dict(loss_weight=0.3)
            ),
        )
    )
)
seeds = (0, 1)
judge = ['--report', 'val', '--folds', '5', '--class-prior', 'camvid']


def contrast(**change):
    return dict(change=dict(model=dict(decode_head=dict(contrast=change))))


def loss(**change):
    return dict(change=dict(model=dict(decode_head=dict(loss_decode=change))))


_uniform_draw = dict(type='UniformPixelSampler')


def weighted(**change):
    """Class weights in the place of logit adjustment."""
    weights = dict(tau=0.0, class_weight='median_frequency')
    return dict(change=dict(model=dict(decode_head=dict(loss_decode=weights, **change))))


_no_own_key = dict(loss=dict(own_key=False))
rows = {
    'default': dict(),
    'no-contrast': dict(change=dict(model=dict(decode_head=dict(contrast=None)))),
    'no-own-key': contrast(**_no_own_key),
    'weights': weighted(),
    'weights-no-contrast': weighted(contrast=None),
    'weights-no-own-key': weighted(contrast=_no_own_key),
    'beta-0.03': contrast(loss=dict(loss_weight=0.03)),
    'beta-0.1': contrast(loss=dict(loss_weight=0.1)),
    'beta-1': contrast(loss=dict(loss_weight=1.0)),
    # Draws of pixels, and the distribution that the loss is told: matched unless named.
    'uniform-draw': contrast(sampler=_uniform_draw),
    'uniform-draw-told-uniform': contrast(sampler=dict(told_prior='uniform', **_uniform_draw)),
    'balanced-draw-told-data': contrast(sampler=dict(told_prior='data')),
    'hard-draw': contrast(sampler=dict(type='HardPixelSampler')),
    'tau-0.5': loss(tau=0.5),
    'queries-256': contrast(sampler=dict(num_samples=256)),
    'queries-4096': contrast(sampler=dict(num_samples=4096)),
    'queue-1024': contrast(queue=dict(size=1024)),
    'queue-16384': contrast(queue=dict(size=16384)),
    'min-per-class-64': contrast(queue=dict(min_per_class=64)),
    'min-per-class-256': contrast(queue=dict(min_per_class=256)),
    'temperature-fixed': contrast(loss=dict(learn_temperature=False)),
    'warm-up-300': dict(
        change=dict(
            custom_hooks=[
                dict(type='ClassPriorHook'),
                dict(type='StepSeedHook'),
                dict(type='ContrastWarmupHook', end=300),
            ]
        )
    ),
    'width-32': contrast(projector=dict(out_channels=32)),
    'width-256': contrast(projector=dict(out_channels=256)),
    'moving-average': dict(
        change=dict(
            model=dict(type='DistilledEncoderDecoder', teacher=dict(type='EMA', momentum=0.99))
        )
    ),
}
