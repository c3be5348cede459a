import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.evaluation import (
    OperatingPoint,
    OperatingPointMetric,
    RankSEGRule,
    areas_over_taus,
    choosing,
    fit_iou_rule,
    iou_scores,
)
from mmseg_ltmi.evaluation.areas import image_miou


def naive_areas(decision, label, num_classes, ignore_index=255):
    """(4, C), counted class by class."""
    rows = []
    for c in range(num_classes):
        valid = label != ignore_index
        p, y = (decision == c) & valid, (label == c) & valid
        rows.append([(p & y).sum(), (p | y).sum(), p.sum(), y.sum()])
    return torch.tensor(rows).T.double()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 8), st.integers(0, 10**6))
def test_areas_are_those_of_argmax_at_every_tau(num_classes, num_taus, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_classes, 6, 9, generator=generator) * 2
    label = torch.randint(0, num_classes, (6, 9), generator=generator)
    label[torch.rand(6, 9, generator=generator) < 0.2] = 255
    log_prior = (torch.randn(num_classes, generator=generator) * 3).log_softmax(0)
    taus = torch.linspace(-0.5, 1.5, num_taus).tolist()
    areas = areas_over_taus(logits, label, log_prior, taus)
    for tau, found in zip(taus, areas, strict=True):
        decision = (logits - tau * log_prior[:, None, None]).argmax(0)
        assert (found == naive_areas(decision, label, num_classes)).all()


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


def gather(folds=1, max_values=2**20, rules=None, images=6):
    generator = torch.Generator().manual_seed(3)
    prior = ClassPrior([80, 15, 5])
    metric = OperatingPointMetric(prior, images, rules, folds=folds, max_values=max_values)
    world = []
    for _ in range(images):
        label = torch.multinomial(prior.probs(), 400, True, generator=generator).view(20, 20)
        noise = torch.randn(3, 20, 20, generator=generator)
        logits = noise + 1.5 * torch.nn.functional.one_hot(label, 3).movedim(-1, 0)
        label[0, :5] = 255
        world.append((logits + prior.log_probs()[:, None, None], label))
    for logits, label in world:
        metric.process({}, [{'seg_logits': {'data': logits}, 'gt_sem_seg': {'data': label[None]}}])
    return metric, world


def summaries(areas, prior):
    return {name: choosing.summary_of(of, prior) for name, of in areas.items()}


def test_candidates_and_their_measure_by_hand():
    selection, world = gather()
    points = choosing.candidates(selection)
    assert points['natural'].tau == 0 and points['tau by mAcc'].tau > 0.5
    report, _ = gather(rules={'IoU rule': points['IoU rule']}, max_values=0)
    table = summaries(choosing.measured(points, report), report.prior)
    for name, point in points.items():
        total = sum(naive_areas(point.scores(s).argmax(0), y, 3) for s, y in world)
        assert table[name]['mIoU'] == pytest.approx(
            float((100 * total[0] / total[1]).mean()), abs=0.01
        )
    assert table['IoU rule']['mIoU'] >= table['natural']['mIoU']
    assert table['tau by mIoU']['mIoU'] == max(
        row['mIoU'] for row in choosing.curve(report.tau_areas.sum(0), report.prior)
    )


def test_the_sample_is_bounded_and_unbiased():
    metric, world = gather(max_values=3 * 6 * 90)
    posterior, label, _, weight = metric.sample(lambda fold: True)
    assert len(posterior) < 1.3 * 6 * 90
    for c in range(3):
        counted = sum(int((y == c).sum()) for _, y in world)
        assert float(weight[label == c].sum()) == pytest.approx(counted, rel=0.2)
    # The rarest class is kept whole: its share of 30 pixels exceeds what an image holds.
    rare = sum(int((y == 2).sum()) for _, y in world)
    assert int((label == 2).sum()) == rare


def test_cross_fitting_measures_what_the_other_folds_chose():
    metric, world = gather(folds=3)
    table = summaries(choosing.cross_fitted(metric), metric.prior)
    total = torch.zeros(4, 3, dtype=torch.float64)
    for fold in range(3):
        others = metric.tau_areas.sum(0) - metric.tau_areas[fold]
        tau = metric.taus[choosing.best_tau(choosing.curve(others, metric.prior), 'mIoU')]
        point = OperatingPoint('tau', 'abc', tuple(metric.prior.log_probs().tolist()), tau=tau)
        for logits, label in world[2 * fold : 2 * fold + 2]:
            total += naive_areas(point.scores(logits).argmax(0), label, 3)
    assert table['tau by mIoU']['mIoU'] == pytest.approx(
        float((100 * total[0] / total[1]).mean()), abs=0.01
    )
    with pytest.raises(ValueError, match='folds=9 of 6'):
        OperatingPointMetric(metric.prior, 6, folds=9)


def test_labels_of_no_class_take_no_part():
    metric, world = gather(folds=2)
    other = OperatingPointMetric(metric.prior, len(world), folds=2, max_values=2**20)
    for logits, label in world:
        label = label.where(label != 255, 7)
        label[0, 0] = -1
        sample = {'seg_logits': {'data': logits}, 'gt_sem_seg': {'data': label[None]}}
        other.process({}, [sample])
    assert choosing.candidates(other) == choosing.candidates(metric)
    ours, theirs = choosing.cross_fitted(other), choosing.cross_fitted(metric)
    assert all(torch.equal(ours[name], areas) for name, areas in theirs.items())


def test_too_little_room_for_the_sample():
    prior = ClassPrior([80, 15, 5])
    with pytest.raises(ValueError, match='max_values=17 .* 6 images, 3 values each: give 18 or'):
        OperatingPointMetric(prior, 6, max_values=17)
    assert OperatingPointMetric(prior, 6, max_values=18).pixels_per_image == 1
    with pytest.raises(ValueError, match='max_values is 0'):
        gather(max_values=0)[0].fit()


def test_miou_of_an_image_by_hand():
    # Class 0: 3 of 4; class 1: 1 of 2; class 2 in neither.
    areas = torch.tensor([[3.0, 1, 0], [4, 2, 0], [3, 2, 0], [4, 1, 0]])
    assert float(image_miou(areas)) == pytest.approx(62.5)
    both = image_miou(torch.stack([areas, torch.zeros(4, 3)]))
    assert float(both[0]) == pytest.approx(62.5) and both[1].isnan()


def test_images_are_averaged_with_equal_weight():
    metric, world = gather()
    points = choosing.candidates(metric)
    report, _ = gather(rules={'IoU rule': points['IoU rule']}, max_values=0)
    found = choosing.measured_per_image(points, report)
    for name, point in points.items():
        of_images = []
        for logits, label in world:
            intersect, union, *_ = naive_areas(point.scores(logits).argmax(0), label, 3)
            held = union > 0
            of_images.append(float((100 * intersect[held] / union[held]).mean()))
        assert found[name] == pytest.approx(sum(of_images) / len(of_images), abs=1e-6)


def test_rankseg_raises_the_iou_of_images_that_are_what_they_seem():
    # Labels drawn from the posterior itself: then the rule's expectation is the truth.
    generator = torch.Generator().manual_seed(0)
    rule, argmax = RankSEGRule(), []
    found = []
    for _ in range(12):
        logits = 2 * torch.randn(4, 8, 8, generator=generator)
        logits = torch.nn.functional.interpolate(logits[None], size=(64, 64), mode='bilinear')[0]
        posterior = logits.softmax(0).flatten(1).T
        label = torch.multinomial(posterior, 1, generator=generator).view(64, 64)
        for decided, values in ((logits.argmax(0), argmax), (rule.decide(logits), found)):
            assert decided.shape == (64, 64)
            values.append(float(image_miou(naive_areas(decided, label, 4))))
    assert sum(found) > sum(argmax)


def test_rankseg_takes_any_scores():
    logits = torch.stack([torch.full((4, 5), 1e4), torch.zeros(4, 5), torch.full((4, 5), -1e4)])
    assert (RankSEGRule().decide(logits) == 0).all()
    assert RankSEGRule().decide(logits.half()).dtype == torch.int64
