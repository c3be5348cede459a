"""ConfusionMetric and what is made of it."""

import math

import pytest
import torch

from mmseg_ltmi.evaluation import ConfusionMetric, explain
from mmseg_ltmi.evaluation.confusion_metric import near_boundary


def test_near_is_what_a_window_with_another_label_says():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (6, 5), generator=generator).repeat_interleave(4, 0)
    label = label.repeat_interleave(4, 1)
    for width in (0, 1, 3):
        expected = torch.zeros_like(label)
        for y in range(label.shape[0]):
            for x in range(label.shape[1]):
                window = label[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
                expected[y, x] = (window != label[y, x]).any()
        assert torch.equal(near_boundary(label, width), expected)


def test_confusion_counts_every_labelled_pixel_once():
    generator = torch.Generator().manual_seed(1)
    metric = ConfusionMetric(3, width=1)
    expected = torch.zeros(2, 3, 3, dtype=torch.int64)
    for _ in range(2):
        label = torch.randint(0, 3, (8, 8), generator=generator)
        label[:2] = 255
        decided = torch.randint(0, 3, (8, 8), generator=generator)
        metric.process(
            {}, [{'pred_sem_seg': {'data': decided[None]}, 'gt_sem_seg': {'data': label[None]}}]
        )
        near = near_boundary(label, 1)
        for n, y, d in zip(near.flatten(), label.flatten(), decided.flatten(), strict=True):
            if y != 255:
                expected[n, y, d] += 1
    metric.evaluate(2)
    assert torch.equal(metric.confusion, expected) and expected.sum() == 96


def test_explained_by_hand():
    # Ten pixels of a: 8 right, 2 taken for b at the boundary. Four of b: 1 right, 3 taken for a.
    away = torch.tensor([[6, 0, 0], [2, 1, 0], [0, 0, 0]])
    near = torch.tensor([[2, 2, 0], [1, 0, 0], [0, 0, 0]])
    a, b, c = explain(torch.stack([away, near]), 'abc', most=1)
    assert a == {
        'class': 'a',
        'IoU': pytest.approx(100 * 8 / 13),
        'predicted': pytest.approx(100 * 11 / 10),
        'missed': pytest.approx(20),
        'missed_to': {'b': pytest.approx(20)},
        'false': pytest.approx(100 * 3 / 11),
        'false_from': {'b': pytest.approx(100 * 3 / 11)},
        'near': pytest.approx(100 * 3 / 5),
        'IoU_away': pytest.approx(100 * 6 / 8),
    }
    assert b['missed'] == pytest.approx(75) and b['missed_to'] == {'a': pytest.approx(75)}
    assert c['missed_to'] == {} and all(math.isnan(c[key]) for key in ('IoU', 'near', 'predicted'))
