# Is the contrast worth it, how much of it, and should rare classes own more of its queue? The two
# other drives of the train split are held out in turn; camvid.py's own rows have the third. The
# held-out drive alone judges, cross-fitted in five folds. Compare rows of one drive: the tables'
# differences are to the first row.
#   python studies/run.py studies/camvid_drives.py --workers 2
_base_ = './_base_/held_out_drive.py'
base = '../configs/camvid/ltmi_fpn-lite0_600_camvid-192x192.py'
common = dict(model=dict(decode_head=dict(loss_decode=dict(class_prior=None))))
seeds = (0, 1, 2)
judge = ['--report', 'val', '--folds', '5', '--class-prior', 'camvid']


def held_out(drive, contrast):
    drives = [name for name in ('0001TP', '0006R0', '0016E5') if name != drive]
    return dict(
        change=dict(
            model=dict(decode_head=dict(contrast=contrast)),
            train_dataloader=dict(dataset=dict(sequences=drives)),
            val_dataloader=dict(dataset=dict(sequences=[drive])),
        )
    )


def weighing(beta, **more):
    return dict(class_prior=None, loss=dict(loss_weight=beta), **more)


rows = {
    f'{name}-{drive}': held_out(drive, contrast)
    for drive in ('0001TP', '0016E5')
    for name, contrast in (
        ('half-weights', None),
        ('LTMI', weighing(0.1)),
        ('LTMI-beta-0.3', weighing(0.3)),
    )
}
rows.update(
    (f'LTMI-min-256-{drive}', held_out(drive, weighing(0.1, queue=dict(min_per_class=256))))
    for drive in ('0001TP', '0006R0', '0016E5')
)
