# NYUv2: the val split, by scene, chooses the operating points; the official test split reports.
# Rows of one seed share their draws.
common = dict(
    test_evaluator=[dict(type='LongTailIoUMetric', class_prior='nyuv2', iou_metrics=['mIoU'])],
    custom_hooks=[dict(type='StepSeedHook')],
)
seeds = (0, 1, 2)
judge = ['--select', 'val', '--report', 'test', '--class-prior', 'nyuv2']
