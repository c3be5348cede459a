# What each loss is worth on CamVid. Eight minutes a run on one CPU core:
#   python tools/study.py configs/studies/camvid.py --workers 2
# One drive of the train split is held out to choose the operating points; the test split reports.
# The prior that the losses use is counted on what is left.
base = '../camvid/ce_fpn-lite0_600_camvid-192x192.py'
common = dict(
    train_dataloader=dict(dataset=dict(sequences=('0001TP', '0016E5'))),
    val_dataloader=dict(
        dataset=dict(
            sequences=('0006R0',),
            data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
        )
    ),
    # The second makes rows of one seed share their draws.
    custom_hooks=[dict(type='ClassPriorHook'), dict(type='StepSeedHook')],
    train_cfg=dict(val_interval=10**9),  # only at the end
)
seeds = (0, 1, 2)
judge = ['--select', 'val', '--report', 'test', '--class-prior', 'camvid', '--rankseg']


def adjusted(contrast=None, **loss):
    """An LTMI head with a LogitAdjustedLoss, and contrast on request."""
    head = dict(
        type='LTMIFPNHead',
        loss_decode=dict(_delete_=True, type='LogitAdjustedLoss', **loss),
        contrast=None,
    )
    change = dict(model=dict(decode_head=head))
    if contrast is not None:
        head['contrast'] = dict(class_prior=None, **contrast)
        change['optim_wrapper'] = dict(
            paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)})
        )
    return dict(change=change)


def taught(contrast=None, loss=None, **model):
    """LTMI whose contrast samples are a teacher's."""
    row = adjusted(contrast or {}, **(loss or {}))
    row['change']['model'].update(type='DistilledEncoderDecoder', **model)
    return dict(row, needs='teacher')


def head(**change):
    """The plain head, with a change."""
    return dict(change=dict(model=dict(decode_head=change)))


_gml = dict()
_twice = dict(sampler=dict(num_samples=1024))  # the queries
_weights = dict(tau=0.0, class_weight='median_frequency')
_half = dict(tau=0.5, class_weight='inverse_sqrt')
_runs = 'work_dirs/camvid'
_teacher = dict(
    config=f'{_runs}/configs/teacher-seed0.py',
    checkpoint=f'{_runs}/runs/teacher-seed0/iter_1800.pth',
)
rows = {
    'cross-entropy': dict(),
    'OHEM': head(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=7000)),
    'focal': head(loss_decode=dict(_delete_=True, type='SoftmaxFocalLoss')),
    'logit-adjustment-0.5': adjusted(tau=0.5),
    'logit-adjustment': adjusted(),
    'weights': adjusted(**_weights),
    'half-weights': adjusted(**_half),
    'GML': adjusted(_twice, tau=0.0),
    'LTMI': adjusted(_gml, **_half),
    'LTMI-teacher': taught(loss=_half, teacher=_teacher),
    # Three times the steps. Its files are found from the root of the repository, with the default
    # OUT.
    'teacher': dict(
        change=dict(
            model=adjusted(**_weights)['change']['model'],
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
                dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=50, end=1800, by_epoch=False),
            ],
            train_cfg=dict(max_iters=1800),
        ),
        seeds=(0,),
    ),
    # What the configs do not have.
    'weights-GML': adjusted(_twice, **_weights),
    'weights-GML-teacher': taught(_twice, loss=_weights, teacher=_teacher),
    'LTMI-tau-1': adjusted(_gml),
    'LTMI-tau-1-1024': adjusted(_twice),
    'LTMI-teacher-tau-1-1024': taught(_twice, teacher=_teacher),
    'LTMI-teacher-tau-1-1024-distilled': taught(_twice, teacher=_teacher, alpha=1.0),
}
