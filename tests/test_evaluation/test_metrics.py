import csv
import json
import math

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from PIL import Image

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.evaluation import LogitAdjustmentSweep, LongTailIoUMetric, class_rows
from mmseg_ltmi.prior_message import announce_prior, announce_reading, announced_reading

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


# a: 3 of 3. b: 1 hit, 3 labels, 1 prediction. c: 1 hit, 1 label, 3 valid predictions. d: none.
SAMPLES = [
    sample([[0, 0], [1, 2]], [[0, 0], [1, 1]]),
    sample([[0, 2], [2, 2]], [[0, 255], [2, 1]]),
]
PRIOR = dict(pixel_counts=[8, 4, 2, 1], image_counts=[5, 6, 9, 7], num_images=9)


def test_by_hand(tmp_path):
    file = tmp_path / 'new' / 'rows.json'
    ours = evaluate(LongTailIoUMetric(class_prior=PRIOR, per_class_file=str(file)), SAMPLES)
    assert ours['mIoU_head'] == 100 and ours['mIoU_medium'] == 33.33
    assert ours['mAcc_medium'] == pytest.approx((100 / 3 + 100) / 2, abs=0.01)
    assert ours['mPrecision_medium'] == pytest.approx((100 + 100 / 3) / 2, abs=0.01)
    assert 'mIoU_tail' not in ours  # d has no pixel: nan is not zero
    # By images the head is c, the tail a.
    assert ours['mIoU_head_by_images'] == 33.33 and ours['mIoU_tail_by_images'] == 100
    assert ours['fwIoU'] == pytest.approx((3 * 100 + 3 * 100 / 3 + 100 / 3) / 7, abs=0.01)
    assert ours['IoU/b'] == 33.33 and 'IoU/d' not in ours
    rows = json.loads(file.read_text())
    assert [r['group'] for r in rows] == ['head', 'medium', 'medium', 'tail']
    assert [r['image_group'] for r in rows] == ['tail', 'medium', 'head', 'medium']
    assert rows[3]['IoU'] is None and rows[1]['pixels'] == 3
    assert (rows[2]['intersection'], rows[2]['predicted']) == (1, 3)
    assert rows[2]['Precision'] == pytest.approx(100 / 3)


def test_drop_in_for_iou_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = MMLogger.get_instance('without a file')
    monkeypatch.setattr(MMLogger, 'get_current_instance', classmethod(lambda cls: logger))
    positional = (255, ['mIoU', 'mFscore'], 0)
    ours = evaluate(LongTailIoUMetric(*positional, class_prior=PRIOR), SAMPLES)
    plain = evaluate(IoUMetric(*positional), SAMPLES)
    for key, value in plain.items():
        assert ours[key] == value or (math.isnan(ours[key]) and math.isnan(value))
    assert (tmp_path / 'per_class.json').is_file()


def test_rows_lie_beside_the_log(tmp_path, monkeypatch):
    log_file = tmp_path / '2026' / 'run.log'
    log_file.parent.mkdir()
    logger = MMLogger.get_instance('rows', log_file=str(log_file))
    monkeypatch.setattr(MMLogger, 'get_current_instance', classmethod(lambda cls: logger))
    evaluate(LongTailIoUMetric(per_class_file='rows.csv'), SAMPLES)
    with (tmp_path / '2026' / 'rows.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]['group'] == 'head' and rows[3]['IoU'] == '' and rows[3]['pixels'] == '0'
    # Without a prior the evaluated labels rank the classes, by images too: a is in 2 of 2.
    assert rows[0]['image_group'] == 'head'
    assert 'left out: d' in log_file.read_text()


def test_a_prior_without_image_counts_has_no_groups_by_images():
    rows = class_rows(torch.ones(4, 3), 'abc', [3, 2, 1])
    assert {row['image_group'] for row in rows} == {None}


def test_sweep_equals_argmax_at_each_tau():
    torch.manual_seed(0)
    counts = [60, 30, 9, 1]
    log_prior = torch.tensor(counts).div(100).log()[:, None, None]
    labels = torch.randint(0, 4, (3, 8, 8))
    logits = torch.randn(3, 4, 8, 8) + log_prior
    samples = [sample([[0]], y.tolist(), s) for y, s in zip(labels, logits, strict=True)]
    swept = evaluate(LogitAdjustmentSweep(counts, taus=(1, 0, 0.5)), samples)
    for tau in (0, 0.5, 1):
        read = [
            sample((s - tau * log_prior).argmax(0).tolist(), y.tolist())
            for y, s in zip(labels, logits, strict=True)
        ]
        plain = evaluate(LongTailIoUMetric(class_prior=counts, per_class_file=None), read)
        for key in ('mIoU', 'mAcc', 'mIoU_tail', 'mAcc_head', 'fwIoU'):
            assert swept[f'sweep/tau{tau}/{key}'] == pytest.approx(plain[key], abs=0.011)
    # Whatever the scores were read at.
    shift = torch.tensor([0.0, 1.0, 2.0, -3.0])
    announce_reading(shift)
    read = [
        sample([[0]], y.tolist(), s + shift[:, None, None])
        for y, s in zip(labels, logits, strict=True)
    ]
    assert evaluate(LogitAdjustmentSweep(counts, taus=(1, 0, 0.5)), read) == swept
    assert announced_reading(4) is None  # the next model may say nothing
    announce_reading(torch.full((4,), torch.nan))
    with pytest.raises(ValueError, match="tau_test acts on the model's queries: set tau_test=0"):
        evaluate(LogitAdjustmentSweep(counts), read)


@pytest.mark.parametrize('metric', [LongTailIoUMetric, LogitAdjustmentSweep])
def test_a_prior_of_labels_that_are_read_otherwise(metric, tmp_path):
    labels = {'reduce_zero_label': True, 'label_map': {3: 0, 0: 3}}  # of other files
    ClassPrior([8, 4, 2, 1], labels=labels).save(tmp_path / 'prior.json')
    ours = metric(class_prior=str(tmp_path / 'prior.json'), per_class_file=None)
    logits = torch.zeros(4, 2, 2)
    samples = [sample([[0, 0], [0, 0]], [[0, 0], [1, 1]], logits)]
    for is_reduced in (True, False):
        ours.dataset_meta = {'classes': CLASSES, 'reduce_zero_label': is_reduced}
        if is_reduced:
            ours.process({}, samples)
            ours.evaluate(1)
            ours = metric(class_prior=str(tmp_path / 'prior.json'), per_class_file=None)
            continue
        with pytest.raises(ValueError, match='reduce_zero_label=True.*count it again'):
            ours.process({}, samples)
            ours.evaluate(1)


def test_bad_input():
    with pytest.raises(ValueError, match='.json or .csv'):
        LongTailIoUMetric(per_class_file='a.txt')
    with pytest.raises(ValueError, match='3 classes.*num_classes=4'):
        evaluate(LongTailIoUMetric(class_prior=[1, 1, 1], per_class_file=None), SAMPLES)
    with pytest.raises(ValueError, match='in another order'):
        prior = dict(pixel_counts=[1, 2, 3, 4], classes=['b', 'a', 'c', 'd'])
        evaluate(LongTailIoUMetric(class_prior=prior, per_class_file=None), SAMPLES)
    binary = [sample([[0]], [[0]], torch.zeros(1, 1, 1))]
    with pytest.raises(ValueError, match='1 channels for 4 classes'):
        evaluate(LogitAdjustmentSweep(np.ones(4)), binary)


def test_nothing_is_labelled():
    nothing = [sample([[0, 1]], [[255, 255]], torch.zeros(4, 1, 2))]
    for metric in (
        LongTailIoUMetric(per_class_file=None),
        LongTailIoUMetric(class_prior=PRIOR, per_class_file=None),
        LogitAdjustmentSweep(PRIOR),
    ):
        found = evaluate(metric, nothing)
        assert all(math.isnan(v) for k, v in found.items() if 'mIoU' in k or 'fwIoU' in k)


def test_a_wrong_prior_is_refused_at_the_first_image():
    metric = LongTailIoUMetric(class_prior='prior_typo.json', per_class_file=None)
    metric.dataset_meta = {'classes': CLASSES}
    with pytest.raises(FileNotFoundError, match='prior_typo.json'):
        metric.process({}, SAMPLES)
    announce_prior(ClassPrior([8, 1, 2, 4]))
    metric = LongTailIoUMetric(class_prior=[8, 4, 2, 1], per_class_file=None)
    metric.dataset_meta = {'classes': CLASSES}
    with pytest.raises(ValueError, match='is another one than that of the model'):
        metric.process({}, SAMPLES)


def of_image(path, pred, **more):
    return {'img_path': path, **sample(pred, pred), **more}


def test_label_maps_keep_their_numbers_and_their_names(tmp_path):
    names = [str(i) for i in range(300)]
    how = dict(ignore_index=65535, per_class_file=None)
    metric = LongTailIoUMetric(output_dir=str(tmp_path / 'new/maps'), **how)
    metric.dataset_meta = {'classes': names}
    metric.process({}, [of_image('a.jpg', [[0, 255], [256, 299]])])
    read = np.asarray(Image.open(tmp_path / 'new/maps/a.png'))
    assert read.tolist() == [[0, 255], [256, 299]]

    # As IoUMetric's where 8 bits do.
    paths = [str(tmp_path / f'data/cam{i}/0001.jpg') for i in range(2)]
    for kind in (IoUMetric, LongTailIoUMetric):
        folder = tmp_path / kind.__name__
        metric = kind(output_dir=str(folder))
        metric.dataset_meta = {'classes': CLASSES}
        if kind is LongTailIoUMetric:
            metric.label_maps.keep_apart(paths)
        images = [
            of_image(p, [[i, 3], [0, 0]], reduce_zero_label=True) for i, p in enumerate(paths)
        ]
        metric.process({}, images)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*.png')) == [
        'cam0/0001.png', 'cam1/0001.png'
    ]  # fmt: skip
    last = [np.asarray(Image.open(p)) for p in (tmp_path / 'IoUMetric').glob('*.png')]
    ours = np.asarray(Image.open(folder / 'cam1/0001.png'))
    assert ours.dtype == np.uint8 and ours.tolist() == last[0].tolist() == [[2, 4], [1, 1]]
    metric.label_maps.keep_apart(['x/a.jpg', 'x/b.jpg'])
    metric.process({}, [of_image('x/a.jpg', [[0]])])
    assert (folder / 'a.png').is_file()


def test_a_sweep_writes_a_file_for_each_tau(tmp_path):
    with pytest.raises(ValueError, match='has one name for 3 taus: put {tau} into it'):
        LogitAdjustmentSweep(PRIOR, per_class_file='sweep.json')
    metric = LogitAdjustmentSweep(PRIOR, (0, 0.5), per_class_file=f'{tmp_path}/sweep_{{tau}}.json')
    evaluate(metric, [sample([[0]], [[0]], torch.zeros(4, 1, 1))])
    assert {'sweep_0.json', 'sweep_0.5.json'} == {p.name for p in tmp_path.rglob('*.json')}
