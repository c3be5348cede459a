import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import naive_areas

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.posterior import (
    OperatingPoint,
    ScoreReader,
    areas_over_taus,
    decision_areas,
    expected_areas,
    fit_iou_rule,
    image_miou,
    iou_scores,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 8), st.integers(0, 10**6))
def test_areas_are_those_of_argmax_at_every_tau(num_classes, num_taus, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_classes, 6, 9, generator=generator) * 2
    label = torch.randint(0, num_classes, (6, 9), generator=generator)
    label[torch.rand(6, 9, generator=generator) < 0.2] = 255
    log_prior = (torch.randn(num_classes, generator=generator) * 3).log_softmax(0)
    seen = log_prior.where(log_prior.exp() > 1.5e-6 / num_classes, 0)
    taus = torch.linspace(-0.5, 1.5, num_taus).tolist()
    areas = areas_over_taus(logits, label, log_prior, taus)
    for tau, found in zip(taus, areas, strict=True):
        decision = (logits - tau * seen[:, None, None]).argmax(0)
        assert (found == naive_areas(decision, label, num_classes)).all()


@pytest.mark.parametrize('counts', [[6000, 2500, 1000, 0], [6e6, 2500, 1, 0]])
def test_a_class_that_never_occurs_wins_no_pixel_at_any_tau(counts):
    log_prior = ClassPrior(counts).log_probs()
    posterior = (2 * torch.randn(4, 30, 30) + log_prior[:, None, None]).log_softmax(0)
    posterior[3] = -8.0  # what is left of a class that training never shows
    taus = (0.0, 0.5, 1.0)
    areas = areas_over_taus(posterior, torch.zeros(30, 30).long(), log_prior, taus)
    assert not areas[:, 2, 3].any() and areas[-1, 2, 2] > 100
    for tau, predicted in zip(taus, areas[:, 2], strict=True):
        by_hand = posterior - tau * log_prior[:, None, None]
        decision = by_hand[:3].argmax(0)
        assert predicted.tolist() == decision.flatten().bincount(minlength=4).tolist()
        point = OperatingPoint('tau', tuple('abcd'), tuple(log_prior.tolist()), tau=tau)
        assert torch.equal(point.decide(posterior), decision)
        readers = ScoreReader(4, tau_test=tau), ScoreReader(4)
        for reader in readers:
            reader.update(torch.zeros(4), log_prior)
        readers[1].set_point(point)
        for reader in readers:
            assert torch.equal(reader.classes(posterior[None])[0], decision)


def test_masks_of_half_precision_are_read_as_those_of_single():
    summed = torch.tensor([0.95, 0.02, 1e-3, 1e-6]).view(4, 1, 1)
    reader = ScoreReader(4, tau_test=1.0)
    reader.update(torch.zeros(4), ClassPrior([1e6, 2e5, 3e4, 20]).log_probs())
    scores = reader.read_masks(summed, reader.shift())
    half = reader.read_masks(summed.half(), reader.shift())
    torch.testing.assert_close(half, scores, atol=0.1, rtol=0)


def test_taus_must_ascend():
    for taus in ((), (0.5, 0.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match='ascend'):
            areas_over_taus(torch.zeros(2, 1), torch.zeros(1).long(), torch.zeros(2), taus)


def discrete_problem(seed, states=6, classes=3):
    """P(x), P(c|x) of a world with few kinds of pixels, long-tailed."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(states, generator=generator).double() + 0.1
    posterior = torch.randn(states, classes, generator=generator).double() * 1.5
    posterior = (posterior + torch.tensor([3.0, 1.0, 0.0])).softmax(1)
    return share / share.sum(), posterior


def expected_miou(decision, share, posterior):
    joint = share[:, None] * posterior
    ious = []
    for c in range(posterior.shape[1]):
        chosen = decision == c
        hit = joint[chosen, c].sum()
        ious.append(hit / (joint[chosen].sum() + joint[:, c].sum() - hit))
    return float(torch.stack(ious).mean())


def as_pixels(share, posterior):
    """The world as weighted labelled pixels: one for every kind and class."""
    states, classes = posterior.shape
    label = torch.arange(classes).repeat(states)
    return posterior.repeat_interleave(classes, 0), label, (share[:, None] * posterior).flatten()


def test_iou_rule_finds_the_known_optimum():
    short = []
    for seed in range(12):
        share, posterior = discrete_problem(seed)
        best = max(
            expected_miou(torch.tensor(decision), share, posterior)
            for decision in itertools.product(range(3), repeat=6)
        )
        pixels, label, weight = as_pixels(share, posterior)
        rule = fit_iou_rule(pixels, label, share @ posterior, weight)
        decision = iou_scores(posterior, rule.iou, rule.union).argmax(1)
        assert rule.miou == pytest.approx(expected_miou(decision, share, posterior), abs=1e-12)
        argmax = expected_miou(posterior.argmax(1), share, posterior)
        assert rule.miou_argmax == pytest.approx(argmax, abs=1e-12)
        short.append((best - rule.miou, best - argmax))
    rule_short, argmax_short = torch.tensor(short).T
    # Six kinds of pixels are a coarse world: now and then the fixed point is a local optimum.
    assert (rule_short < 1e-9).sum() >= 10 and rule_short.max() < 0.01
    assert (argmax_short > 0.01).sum() >= 6


def test_the_expected_rule_is_that_of_labels_that_are_drawn_from_the_posterior():
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        share = torch.rand(6, generator=generator).double().softmax(0)
        posterior = (torch.randn(6, 3, generator=generator).double() * 2).softmax(1)
        pixels, label, weight = as_pixels(share, posterior)
        counted = fit_iou_rule(pixels, label, share @ posterior, weight)
        expected = fit_iou_rule(posterior, posterior, share @ posterior, share)
        for one, other in zip(counted, expected, strict=True):
            torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 80), st.booleans(), st.integers(0, 10**6))
def test_expected_areas_of_certain_pixels_are_their_areas(num_classes, pixels, weighted, seed):
    generator = torch.Generator().manual_seed(seed)
    decision, label = torch.randint(0, num_classes, (2, pixels), generator=generator)
    weight = torch.rand(pixels, generator=generator).double() if weighted else None
    certain = torch.nn.functional.one_hot(label, num_classes).float()
    counted = decision_areas(decision, label, num_classes, weight)
    torch.testing.assert_close(expected_areas(decision, certain, weight), counted)


def test_iou_rule_of_two_classes_is_the_best_threshold():
    posterior = torch.linspace(0.001, 0.999, 500).double() ** 3
    world = torch.stack([1 - posterior, posterior], 1)
    share = torch.full((500,), 1 / 500).double()
    best = max(
        expected_miou((posterior > t).long(), share, world) for t in torch.linspace(0, 1, 201)
    )
    pixels, label, weight = as_pixels(share, world)
    rule = fit_iou_rule(pixels, label, share @ world, weight)
    assert rule.miou == pytest.approx(best, abs=1e-4) and rule.miou > rule.miou_argmax + 1e-3


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 80), st.integers(0, 10**6))
def test_iou_rule_is_never_worse_than_argmax_where_it_was_fitted(num_classes, pixels, seed):
    generator = torch.Generator().manual_seed(seed)
    posterior = (torch.randn(pixels, num_classes, generator=generator) * 2).softmax(1)
    label = torch.randint(0, num_classes, (pixels,), generator=generator)
    rule = fit_iou_rule(posterior, label, torch.ones(num_classes) / num_classes)
    areas = naive_areas(iou_scores(posterior, rule.iou, rule.union).argmax(1), label, num_classes)
    plain = naive_areas(posterior.argmax(1), label, num_classes)
    held = areas[3] > 0
    miou, argmax = ((a[0] / a[1])[held].mean() for a in (areas, plain))
    assert miou >= argmax - 1e-12 and float(miou) == pytest.approx(rule.miou)


def test_a_class_without_label_gets_a_stand_in():
    posterior = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    rule = fit_iou_rule(posterior, torch.tensor([0, 1]), torch.tensor([0.5, 0.4, 0.1]))
    assert rule.union[2] == pytest.approx(0.1) and rule.iou[2] == pytest.approx(1)
    with pytest.raises(ValueError, match='labelled pixels'):
        fit_iou_rule(torch.empty(0, 2), torch.empty(0).long(), torch.ones(2) / 2)


POINT = OperatingPoint('tau', ('a', 'b'), (-0.1, -2.4), tau=0.5)


def test_scores_by_hand():
    logits = torch.tensor([[1.0, 0.0], [0.5, 0.0]])
    expected = logits + 0.5 * torch.tensor([[0.1], [2.4]])
    torch.testing.assert_close(POINT.scores(logits), expected)
    rule = OperatingPoint('iou', ('a', 'b'), (-0.1, -2.4), iou=(0.9, 0.2), union=(1.0, 0.1))
    p = logits.softmax(0)
    by_hand = [(p[c] * (1 + rule.iou[c]) - rule.iou[c]) / rule.union[c] for c in range(2)]
    # Up to the common factor, the smallest union.
    torch.testing.assert_close(rule.scores(logits), 0.1 * torch.stack(by_hand))


def test_save_and_load(tmp_path):
    POINT.save(tmp_path / 'new' / 'a.json')
    assert OperatingPoint.load(tmp_path / 'new' / 'a.json') == POINT
    text = (tmp_path / 'new' / 'a.json').read_text()
    for broken, message in (
        (text[:40], 'no complete JSON'),
        ('{"format": "other"}', 'not an operating point'),
        (text.replace('"tau",', '"best",'), 'its rule is'),
        (text.replace('-2.4', 'NaN'), 'finite'),
        (text.replace('-2.4', '"x"'), 'not an operating point'),
    ):
        (tmp_path / 'b.json').write_text(broken)
        with pytest.raises(ValueError, match=message):
            OperatingPoint.load(tmp_path / 'b.json')


def test_miou_of_an_image_by_hand():
    # Class 0: 3 of 4; class 1: 1 of 2; class 2 in neither.
    areas = torch.tensor([[3.0, 1, 0], [4, 2, 0], [3, 2, 0], [4, 1, 0]])
    assert float(image_miou(areas)) == pytest.approx(62.5)
    both = image_miou(torch.stack([areas, torch.zeros(4, 3)]))
    assert float(both[0]) == pytest.approx(62.5) and both[1].isnan()
