# What each loss is worth with 39 classes, on NYUv2. A quarter of an hour a run on one CPU core:
#   python studies/run.py studies/nyuv2.py --workers 2
# The val split, by scene, chooses the operating points; the official test split reports.
base = '../configs/nyuv2/ce_fpn-lite0_1200_nyuv2-224x224.py'
common = dict(
    test_evaluator=[dict(type='LongTailIoUMetric', class_prior='nyuv2', iou_metrics=['mIoU'])],
    custom_hooks=[dict(type='StepSeedHook')],
)
seeds = (0, 1, 2)
judge = ['--select', 'val', '--report', 'test', '--class-prior', 'nyuv2']
memory = ['--centers', '16']


def adjusted(contrast=None, **loss):
    """An LTMI head with a LogitAdjustedLoss, and contrast on request."""
    loss = dict(_delete_=True, type='LogitAdjustedLoss', class_prior='nyuv2', **loss)
    head = dict(type='LTMIFPNHead', loss_decode=loss, contrast=contrast)
    return dict(change=dict(model=dict(decode_head=head)))


_half = dict(tau=0.5, class_weight='inverse_sqrt')
rows = {
    'cross-entropy': dict(),
    'logit-adjustment': adjusted(),
    'weights': adjusted(tau=0.0, class_weight='median_frequency'),
    'half-weights': adjusted(**_half),
    'LTMI': adjusted({}, **_half),
}
