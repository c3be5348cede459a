# What each loss is worth on CamVid. Eight minutes a run on one CPU core:
#   python studies/run.py studies/camvid.py --workers 2
# The drive that is held out chooses the operating points; the test split reports.
_base_ = './_base_/held_out_drive.py'
base = '../configs/camvid/ce_fpn-lite0_600_camvid-192x192.py'
seeds = (0, 1, 2)
judge = ['--select', 'val', '--report', 'test', '--class-prior', 'camvid', '--rankseg']
memory = ['--centers', '16']


def head(**change):
    """The base's head, with a change."""
    return dict(change=dict(model=dict(decode_head=change)))


def adjusted(contrast=None, **loss):
    """An LTMI head with a LogitAdjustedLoss, and contrast on request."""
    return head(
        type='LTMIFPNHead',
        loss_decode=dict(_delete_=True, type='LogitAdjustedLoss', **loss),
        contrast=contrast,
    )


def taught(contrast=None, by='teacher', loss=None, **model):
    """LTMI whose contrast samples are those of another row, seed 0."""
    row = adjusted(contrast or {}, **(loss or {}))
    # From the root of the repository, with the default OUT.
    files = dict(
        config=f'work_dirs/camvid/configs/{by}-seed0.py',
        checkpoint=f'work_dirs/camvid/runs/{by}-seed0/iter_1800.pth',
    )
    row['change']['model'].update(type='DistilledEncoderDecoder', teacher=files, **model)
    return dict(row, needs=by)


def with_region(row):
    """The row with region rebalance, for one seed."""
    row['change']['model']['decode_head']['region'] = dict()
    return dict(row, seeds=(0,))


def longer(row):
    """Three times the steps."""
    row['change'].update(
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
            dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=50, end=1800, by_epoch=False),
        ],
        train_cfg=dict(max_iters=1800),
    )
    return dict(row, seeds=(0,))


_strong = dict(loss=dict(loss_weight=0.3))  # beta
_twice = dict(_strong, sampler=dict(num_samples=1024))  # the queries
_weights = dict(tau=0.0, class_weight='median_frequency')
_half = dict(tau=0.5, class_weight='inverse_sqrt')
_six = dict(seeds=(0, 1, 2, 3, 4, 5))  # the rows that the conclusions are of
rows = {
    'cross-entropy': dict(_six),
    'OHEM': head(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=7000)),
    'focal': head(loss_decode=dict(_delete_=True, type='SoftmaxFocalLoss')),
    'logit-adjustment-0.5': adjusted(tau=0.5),
    'logit-adjustment': adjusted(),
    'weights': dict(adjusted(**_weights), **_six),
    'half-weights': dict(adjusted(**_half), **_six),
    'GML': adjusted({}, tau=0.0),
    'LTMI': dict(adjusted({}, **_half), **_six),
    'region': with_region(adjusted(tau=0.0)),
    'LTMI-region': with_region(adjusted({}, **_half)),
    'LTMI-teacher': taught(loss=_half),
    'teacher': longer(adjusted(**_weights)),
    # What the configs do not have; beta was 0.3 until camvid_drives.py was read.
    'GML-beta-0.3-1024': adjusted(_twice, tau=0.0),
    'LTMI-beta-0.3': dict(adjusted(_strong, **_half), **_six),
    'LTMI-teacher-beta-0.3': taught(_strong, loss=_half),
    'LTMI-long': longer(adjusted(_strong, **_half)),
    'LTMI-taught-by-LTMI': taught(_strong, by='LTMI-long', loss=_half),
    'weights-GML': adjusted(_twice, **_weights),
    'weights-GML-teacher': taught(_twice, loss=_weights),
    'LTMI-tau-1': adjusted(_strong),
    'LTMI-tau-1-1024': adjusted(_twice),
    'LTMI-teacher-tau-1-1024': taught(_twice),
    'LTMI-teacher-tau-1-1024-distilled': taught(_twice, alpha=1.0),
}
