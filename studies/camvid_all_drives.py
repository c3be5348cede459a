# What CamVid's configs are worth as they stand. Eight minutes a run on one CPU core:
#   python studies/run.py studies/camvid_all_drives.py --workers 2
# They train on all three train drives. The official val split, a clip of one of these, chooses the
# operating points, so that only the natural reading is a fair one; the test split reports.
base = '../configs/camvid/ce_fpn-lite0_600_camvid-192x192.py'
common = dict(
    test_evaluator=[dict(type='LongTailIoUMetric', class_prior='camvid', iou_metrics=['mIoU'])],
    custom_hooks=[dict(type='StepSeedHook')],
)
seeds = (0, 1, 2)
judge = ['--select', 'val', '--report', 'test', '--class-prior', 'camvid']


def adjusted(**loss):
    """An LTMI head with a LogitAdjustedLoss."""
    loss = {'_delete_': True, 'type': 'LogitAdjustedLoss', 'class_prior': 'camvid', **loss}
    return dict(change=dict(model=dict(decode_head=dict(type='LTMIFPNHead', loss_decode=loss))))


rows = {
    'cross-entropy': dict(),
    'weights': adjusted(tau=0.0, class_weight='median_frequency'),
    'half-weights': adjusted(tau=0.5, class_weight='inverse_sqrt'),
    'LTMI': dict(base='../configs/camvid/ltmi_fpn-lite0_600_camvid-192x192.py'),
}
