import json

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.evaluation import LogitAdjustmentSweep, LongTailIoUMetric

CLASSES = ('a', 'b', 'c', 'd')


def sample(pred, label, logits=None):
    return {
        'pred_sem_seg': {'data': torch.tensor(pred)},
        'gt_sem_seg': {'data': torch.tensor(label)},
        **({} if logits is None else {'seg_logits': {'data': logits}}),
    }


def evaluate(metric, samples):
    metric.dataset_meta = {'classes': CLASSES}
    metric.process({}, samples)
    return metric.evaluate(len(samples))


SAMPLES = [
    sample([[0, 0], [1, 2]], [[0, 0], [1, 1]]),
    sample([[0, 2], [2, 2]], [[0, 255], [2, 1]]),
]


def test_groups_by_hand(tmp_path):
    # a: 3 of 3. b: 1 hit, 3 labels, 1 prediction. c: 1 hit, 1 label, 3 valid predictions. d: none.
    file = tmp_path / 'new' / 'rows.json'
    ours = evaluate(LongTailIoUMetric([8, 4, 2, 1], str(file)), SAMPLES)
    plain = evaluate(IoUMetric(), SAMPLES)
    assert {k: ours[k] for k in plain} == pytest.approx(plain, nan_ok=True)
    assert ours['mIoU_head'] == 100 and ours['mIoU_medium'] == 33.33
    assert ours['mAcc_medium'] == pytest.approx((100 / 3 + 100) / 2, abs=0.01)
    assert 'mIoU_tail' not in ours  # d has no pixel: nan is not zero
    rows = json.loads(file.read_text())
    assert [r['group'] for r in rows] == ['head', 'medium', 'medium', 'tail']
    assert rows[3]['IoU'] is None and rows[1]['pixels'] == 3


def test_csv_and_labels_as_ranking(tmp_path):
    evaluate(LongTailIoUMetric(per_class_file=str(tmp_path / 'rows.csv')), SAMPLES)
    assert (tmp_path / 'rows.csv').read_text().startswith('class,group,prior,pixels,IoU,Acc\na,')


def test_sweep_equals_argmax_at_each_tau():
    torch.manual_seed(0)
    counts = [60, 30, 9, 1]
    log_prior = torch.tensor(counts).div(100).log()[:, None, None]
    labels = torch.randint(0, 4, (3, 8, 8))
    logits = torch.randn(3, 4, 8, 8) + log_prior
    samples = [sample([[0]], y.tolist(), s) for y, s in zip(labels, logits, strict=True)]
    swept = evaluate(LogitAdjustmentSweep(counts, taus=(0, 0.5, 1)), samples)
    for tau in (0, 0.5, 1):
        read = [
            sample((s - tau * log_prior).argmax(0).tolist(), y.tolist())
            for y, s in zip(labels, logits, strict=True)
        ]
        plain = evaluate(LongTailIoUMetric(counts), read)
        for key in ('mIoU', 'mAcc', 'mIoU_tail', 'mAcc_head'):
            assert swept[f'sweep/tau{tau}/{key}'] == pytest.approx(plain[key], abs=0.011)


def test_bad_input():
    with pytest.raises(ValueError, match='.json or .csv'):
        LongTailIoUMetric(per_class_file='a.txt')
    with pytest.raises(ValueError, match='3 classes.*num_classes=4'):
        evaluate(LongTailIoUMetric([1, 1, 1]), SAMPLES)
    with pytest.raises(ValueError, match='in another order'):
        prior = dict(pixel_counts=[1, 2, 3, 4], classes=['b', 'a', 'c', 'd'])
        evaluate(LongTailIoUMetric(prior), SAMPLES)
    binary = [sample([[0]], [[0]], torch.zeros(1, 1, 1))]
    with pytest.raises(ValueError, match='1 channels for 4 classes'):
        evaluate(LogitAdjustmentSweep(np.ones(4)), binary)
