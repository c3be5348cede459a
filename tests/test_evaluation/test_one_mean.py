"""One definition of every mean, whoever computes it, and what is said where there is none."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.posterior import OperatingPoint, fit_iou_rule
from mmseg_ltmi.evaluation import (
    ConfusionMetric,
    LogitAdjustmentSweep,
    LongTailIoUMetric,
    OperatingPointMetric,
    choosing,
    class_rows,
    explain,
)
from mmseg_ltmi.evaluation.run_comparison import by_name, markdown, means, read_run

NAMES = ('road', 'car', 'pole', 'bike')
PRIOR = [50, 30, 20, 10]  # head: road; medium: car and pole; tail: bike
GROUPS = {'mIoU': (0, 1, 2, 3), 'mIoU_head': (0,), 'mIoU_medium': (1, 2), 'mIoU_tail': (3,)}


def reference(confusion, ignored):
    """Means in float64, pixel by pixel of a matrix of label by prediction."""
    iou = {}
    for c in range(4):
        labelled = sum(confusion[c])
        predicted = sum(row[c] for row in confusion)
        if labelled:
            iou[c] = 100 * confusion[c][c] / (labelled + predicted - confusion[c][c])
    means = {
        key: math.fsum(iou[c] for c in of if c in iou) / len([c for c in of if c in iou])
        for key, of in GROUPS.items()
        if any(c in iou for c in of)
    }
    accuracies = [100 * confusion[c][c] / sum(confusion[c]) for c in iou]
    return means | ({'mAcc': math.fsum(accuracies) / len(accuracies)} if iou else {})


def pixels(confusion, ignored):
    """Label and prediction (1, N), of which some labels are no class."""
    pairs = [(y, d) for y in range(4) for d in range(4) for _ in range(confusion[y][d])]
    pairs += [(255 if i % 2 else 200, d) for i, d in enumerate(ignored)]
    return (torch.tensor([pair[i] for pair in pairs], dtype=torch.int64)[None] for i in (0, 1))


def as_sample(label, decided):
    logits = torch.nn.functional.one_hot(decided, 4).movedim(-1, 0).float()
    return {
        'pred_sem_seg': {'data': decided[None]},
        'gt_sem_seg': {'data': label[None]},
        'seg_logits': {'data': logits},
    }


def evaluated(metric, samples, classes=NAMES):
    metric.dataset_meta = {'classes': classes}
    metric.process({}, samples)
    return metric.evaluate(len(samples))


counts = st.integers(0, 3) | st.integers(0, 40)
matrices = st.lists(st.lists(counts, min_size=4, max_size=4), min_size=4, max_size=4)


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    """The log is a file, and does not say much more."""
    file = tmp_path / 'run.log'
    logger = MMLogger.get_instance(f'one mean {tmp_path}', log_file=str(file))
    logger.handlers = [h for h in logger.handlers if hasattr(h, 'baseFilename')]
    monkeypatch.setattr(MMLogger, 'get_current_instance', classmethod(lambda cls: logger))
    return file


def test_everybody_has_the_same_means(quiet, tmp_path):
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(matrices, st.lists(st.integers(0, 3), min_size=1, max_size=4))
    def check(confusion, ignored):
        label, decided = pixels(confusion, ignored)
        samples, expected = [as_sample(label, decided)], reference(confusion, ignored)
        file = tmp_path / 'rows.json'
        found = {
            'metric': evaluated(
                LongTailIoUMetric(class_prior=PRIOR, per_class_file=str(file)), samples
            )
        }
        swept = evaluated(LogitAdjustmentSweep(PRIOR, taus=(0.0,)), samples)
        found['sweep'] = {key.removeprefix('sweep/tau0/'): v for key, v in swept.items()}
        metric = OperatingPointMetric(ClassPrior(PRIOR), 1, max_values=0, taus=(0.0, 1.0))
        evaluated(metric, samples)
        found['choose'] = choosing.curve(metric.tau_areas.sum(0), metric.prior)[0]
        compared = means([read_run(file)])
        found['compare'] = {key: value.mean for key, value in compared.items()}
        for who, values in found.items():
            for key in (*GROUPS, 'mAcc'):
                value = float(values.get(key, math.nan))
                if key in expected:
                    assert value == pytest.approx(expected[key], abs=0.0051), (who, key)
                else:
                    assert math.isnan(value), (who, key)
        # To the last digit among each other.
        of_all = [[values.get(key) for key in ('mIoU', 'mAcc')] for values in found.values()]
        assert all(np.array_equal(of, of_all[0], equal_nan=True) for of in of_all)
        confused = ConfusionMetric(4, width=0)
        evaluated(confused, samples)
        explained = [row['IoU'] for row in explain(confused.confusion, NAMES)]
        rows = [row['IoU'] for row in read_run(file).rows]
        assert explained == pytest.approx(rows, nan_ok=True)

    check()


def test_with_all_classes_labelled_it_is_mmsegmentations(quiet):
    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(matrices)
    def check(confusion):
        for c in range(4):
            confusion[c][c] += 1
        label, decided = pixels(confusion, [])
        every = ['mIoU', 'mDice', 'mFscore']
        ours = evaluated(
            LongTailIoUMetric(iou_metrics=every, class_prior=PRIOR, per_class_file=None),
            [as_sample(label, decided)],
        )
        stock = evaluated(IoUMetric(iou_metrics=every), [as_sample(label, decided)])
        assert set(stock) <= set(ours)
        for key, value in stock.items():
            assert float(ours[key]) == pytest.approx(float(value), abs=0.0101), key

    check()


LABEL = torch.zeros(8, 8).long()
LABEL[4:] = 1
DECIDED = LABEL.clone()
DECIDED[:2] = 3  # of 32 pixels of road, 16 are taken for a bike


def test_what_differs_from_mmsegmentation_is_said(quiet):
    ours = evaluated(
        LongTailIoUMetric(class_prior=PRIOR, per_class_file=None), [as_sample(LABEL, DECIDED)]
    )
    stock = evaluated(IoUMetric(), [as_sample(LABEL, DECIDED)])
    assert (ours['mIoU'], stock['mIoU']) == (75, 50) and 'mIoU_tail' not in ours
    log = quiet.read_text()
    assert 'left out: pole, bike (16 pixels predicted)' in log
    assert 'IoUMetric counts those of them that are predicted as 0' in log
    assert 'gives mIoU 50.00 instead of 75.00' in log
    assert '|  bike |  nan  |  nan  |' in log or '|  bike |  nan |  nan |' in log


def test_the_user_may_have_another_number_in_the_place_of_nan(quiet):
    metric = LongTailIoUMetric(nan_to_num=0, class_prior=PRIOR, per_class_file=None)
    found = evaluated(metric, [as_sample(LABEL, DECIDED)])
    assert found['mIoU'] == 37.5 and found['mIoU_head'] == 50  # (50 + 100 + 0 + 0) / 4


def test_a_label_that_is_no_class_takes_no_part_and_is_said_once(quiet):
    label = LABEL.clone()
    label[7] = 100
    sample = as_sample(label, DECIDED) | {'img_path': 'a.png'}
    found = evaluated(LongTailIoUMetric(class_prior=PRIOR, per_class_file=None), [sample, sample])
    assert found['mIoU'] == 75 and found['aAcc'] == pytest.approx(100 * 40 / 56, abs=0.01)
    assert quiet.read_text().count('8 pixels of a.png have a label that is neither a class') == 1


def test_nothing_labelled_is_said(quiet, recwarn):
    nothing = [as_sample(torch.full((2, 2), 255), torch.zeros(2, 2).long())]
    for metric in (
        LongTailIoUMetric(class_prior=PRIOR, per_class_file=None),
        LogitAdjustmentSweep(PRIOR),
    ):
        found = evaluated(metric, nothing)
        assert all(math.isnan(value) for value in found.values())
    assert quiet.read_text().count('every score is unknown') == 2
    assert not [w for w in recwarn if 'empty slice' in str(w.message)]


def test_a_split_without_a_tail_label_chooses_by_no_tail():
    metric = OperatingPointMetric(ClassPrior(PRIOR), 1, taus=(0.0, 0.5))
    evaluated(metric, [as_sample(LABEL, DECIDED)])
    curve = choosing.curve(metric.tau_areas.sum(0), metric.prior)
    choosing.check_choice('tau by mIoU', curve, 'val')
    choosing.check_choice('IoU rule', curve, 'val')
    with pytest.raises(ValueError, match="'tau by tail mIoU' cannot be chosen: no class .* val"):
        choosing.check_choice('tau by tail mIoU', curve, 'val')


def test_an_unknown_score_is_no_number_in_a_file(tmp_path):
    values = {'natural': {'mIoU': 50.0, 'mIoU_tail': math.nan}}
    point = OperatingPoint('tau', ('a',), (0.0,), report=dict(values=values))
    point.save(tmp_path / 'point.json')
    text = (tmp_path / 'point.json').read_text()
    assert 'NaN' not in text and json.loads(text)['report']['values']['natural'] == {
        'mIoU': 50.0,
        'mIoU_tail': None,
    }
    assert OperatingPoint.load(tmp_path / 'point.json').report['values']['natural']['mIoU'] == 50


def test_a_comparison_without_a_tail_label(quiet, tmp_path):
    for name in ('ce', 'ltmi'):
        file = tmp_path / name / 'per_class.json'
        metric = LongTailIoUMetric(class_prior=PRIOR, per_class_file=str(file))
        evaluated(metric, [as_sample(LABEL, DECIDED)])
    table = markdown(by_name([read_run(tmp_path / name) for name in ('ce', 'ltmi')]))
    assert '| ce | 1 | 75.00 | 50.00 | 100.00 | - | 75.00 |' in table and 'nan' not in table


def test_the_iou_rule_has_the_mean_of_the_rows():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (200,), generator=generator)  # no bike
    logits = torch.randn(200, 4, generator=generator)
    logits[:20, 3] += 9
    rule = fit_iou_rule(logits.softmax(1), label, ClassPrior(PRIOR).probs())
    metric = OperatingPointMetric(ClassPrior(PRIOR), 1, max_values=0, taus=(0.0,))
    evaluated(metric, [as_sample(label[None], logits.argmax(1)[None])])
    rows = choosing.summary_of(metric.tau_areas[0, 0], metric.prior)
    assert rows['mIoU'] == pytest.approx(100 * rule.miou_argmax, abs=0.0051)


HOSTILE = ('$x_1$', '_hidden', '[red]', '50 %', 'a|b', 'new\nline', 'дом 家', 'x' * 300, 7, 'a/b')
TWICE = ('car', 'car', 'car-2', '')


def test_any_names_can_be_logged_and_written(quiet, tmp_path):
    classes = HOSTILE + TWICE
    number = len(classes)
    label = torch.arange(number)[None].repeat(2, 1)
    samples = [{'pred_sem_seg': {'data': label[None]}, 'gt_sem_seg': {'data': label[None]}}]
    for suffix in ('json', 'csv'):
        file = tmp_path / f'rows.{suffix}'
        found = evaluated(LongTailIoUMetric(per_class_file=str(file)), samples, classes)
        keys = [key for key in found if key.startswith('IoU/')]
        assert len(keys) == len(set(keys)) == number
        assert all(len(key) < 100 and key.count('/') == 1 and key.isprintable() for key in keys)
        assert not set('$[]%|\n') & set(''.join(keys))
        rows = read_run(file).rows
        names = [row['class'] for row in rows]
        assert len(set(names)) == number and names[0] == '$x_1$' and names[6] == 'дом 家'
        assert names[5] == 'new line' and names[8] == '7' and len(names[7]) == 300
        assert names[-4:] == ['car', 'car-3', 'car-2', '13']
    confusion = torch.eye(number).long().expand(2, -1, -1)
    assert [row['class'] for row in explain(confusion, classes)] == names
    prior = ClassPrior([1] * number, tuple(map(str, classes)))
    rows = class_rows(torch.ones(4, number), classes, prior)
    assert len(rows) == number


def test_names_of_runs_stay_in_their_cells(tmp_path):
    row = {'class': 'a', 'group': 'head', 'prior': 1, 'pixels': 1}
    rows = [row | {'IoU': 1, 'Acc': 1, 'Precision': 1}]
    for name in ('a|b', 'new\nline'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'per_class.json').write_text(json.dumps(rows))
    table = markdown(by_name([read_run(tmp_path / name) for name in ('a|b', 'new\nline')]))
    assert r'| a\|b | 1 | 1.00 |' in table and '| new line | 1 | 1.00 |' in table
