import importlib
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranks import run_ranks
from reference import naive_areas

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.posterior import (
    OperatingPoint,
    calibrating_temperature,
    image_miou,
    iou_scores,
)
from mmseg_ltmi.evaluation import OperatingPointMetric, RankSEGRule, choosing
from mmseg_ltmi.evaluation.posterior_sample import PosteriorSample


def as_sample(logits, label):
    return {'seg_logits': {'data': logits}, 'gt_sem_seg': {'data': label[None]}}


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
        metric.process({}, [as_sample(logits, label)])
    metric.evaluate(images)
    return metric, world


def summaries(areas, prior):
    return {name: choosing.summary_of(of, prior) for name, of in areas.items()}


def cross_fitted(metric):
    return choosing.cross_fitted(metric, choosing.candidates_of_folds(metric))


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
    _, _, label, weight = sample = metric.sample(lambda fold: True)
    posterior = sample.posterior()
    assert len(posterior) < 1.3 * 6 * 90
    for c in range(3):
        counted = sum(int((y == c).sum()) for _, y in world)
        assert float(weight[label == c].sum()) == pytest.approx(counted, rel=0.2)
    # The rarest class is kept whole: its share of 30 pixels exceeds what an image holds.
    rare = sum(int((y == 2).sum()) for _, y in world)
    assert int((label == 2).sum()) == rare


def test_cross_fitting_measures_what_the_other_folds_chose():
    metric, world = gather(folds=3)
    table = summaries(cross_fitted(metric), metric.prior)
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


def test_images_without_labels_do_not_fill_a_fold():
    metric, world = gather(folds=2)
    labelled = {0: 0, 1: 0, 4: 1, 5: 1}  # image and fold
    sparse = OperatingPointMetric(metric.prior, 6, folds=2)
    for i, (logits, label) in enumerate(world):
        ignored = torch.full_like(label, 255)
        sparse.process({}, [as_sample(logits, label if i in labelled else ignored)])
    sparse.evaluate(6)
    for fold in range(2):
        areas = [naive_areas(s.argmax(0), y, 3) for i, (s, y) in enumerate(world)
                 if labelled.get(i) == fold]  # fmt: skip
        torch.testing.assert_close(sparse.tau_areas[fold, 0], sum(areas))
    assert set(cross_fitted(sparse)) >= {'natural', 'IoU rule'}
    few = OperatingPointMetric(metric.prior, 3, folds=3)
    for logits, label in (*world[:2], (world[2][0], ignored)):
        few.process({}, [as_sample(logits, label)])
    few.evaluate(3)
    assert few.folds == 2 and set(cross_fitted(few)) >= {'natural', 'IoU rule'}


def test_estimates_are_those_of_the_other_folds_also_at_other_frequencies():
    metric, world = gather(folds=3)
    metric.prior = ClassPrior([40, 40, 20])
    of_folds = choosing.candidates_of_folds(metric)
    assert [len(points) for points in of_folds] == [5, 5, 5]
    found = choosing.estimates(metric, of_folds)
    assert list(found) == ['natural', 'tau by mIoU', 'IoU rule']
    labelled = torch.cat([y[y < 3].flatten() for _, y in world]).bincount().double()
    factor = metric.prior.probs(0) / (labelled / labelled.sum())
    for name, values in found.items():
        confusion = torch.zeros(3, 3, dtype=torch.float64)
        for fold, points in enumerate(of_folds):
            for logits, label in world[2 * fold : 2 * fold + 2]:
                pairs = zip(label.flatten(), points[name].decide(logits).flatten(), strict=True)
                for true, said in pairs:
                    if true < 3:
                        confusion[true, said] += 1
        for value, of in zip(values, (confusion, confusion * factor[:, None]), strict=True):
            right = of.diagonal()
            iou = right / (of.sum(0) + of.sum(1) - right)
            assert value == pytest.approx(float(100 * iou.mean()), abs=1e-6)


def test_calibration_by_hand():
    """Two bins: 0.9 and right in 3 of 4 pixels, 0.6 and right in 1 of 2, one of weight 2."""
    certain, unsure = [0.9, 0.1], [0.6, 0.4]
    posterior = torch.tensor([certain] * 4 + [unsure] * 2)
    label = torch.tensor([0, 0, 0, 1, 0, 1])
    weight = torch.tensor([1.0, 1, 1, 1, 2, 1])
    sample = PosteriorSample(posterior.log(), 3 * posterior.log(), label, weight)
    log_loss, error = sample.calibration()
    right = [0.9, 0.9, 0.9, 0.1, 0.6, 0.6, 0.4]
    assert log_loss == pytest.approx(-sum(math.log(p) for p in right) / 7)
    assert error == pytest.approx(100 * (abs(4 * 0.9 - 3) + abs(3 * 0.6 - 2)) / 7)
    # With the memory at weight 1, (1 + 3) / 2 = 2 times the log-posterior.
    twice = torch.tensor([[0.81, 0.01], [0.36, 0.16]])
    certain, unsure = (twice / twice.sum(1, keepdim=True))[:, 0].tolist()
    _, error = sample.calibration(memory_weight=1.0)
    assert error == pytest.approx(100 * (abs(4 * certain - 3) + abs(3 * unsure - 2)) / 7)


def test_the_iou_rule_is_fitted_to_the_calibrated_posterior():
    """Scores that are twice too sure: what is expected is what the calibrated posterior says."""
    metric, _ = gather()

    def fitted_temperature():
        sample = metric.sample(lambda fold: True)
        return calibrating_temperature(sample.log_posterior, sample.label, sample.weight)

    before = fitted_temperature()
    for sample in metric._samples:
        sample.log_posterior.mul_(2)
    temperature, sample = fitted_temperature(), metric.sample(lambda fold: True)
    assert temperature == pytest.approx(2 * before, rel=1e-3)
    found = metric.fit()
    decision = iou_scores(sample.posterior(), found.iou, found.union).argmax(1)
    by_posterior = torch.zeros(3, 3, dtype=torch.float64).index_add_(
        0, decision, (sample.log_posterior / temperature).softmax(1).double()
    )
    right = by_posterior.diagonal()
    iou = right / (by_posterior.sum(0) + by_posterior.sum(1) - right)
    assert found.miou == pytest.approx(float(iou.mean()), abs=1e-9)


def test_the_iou_rule_is_argmax_where_the_labels_say_that_it_is_worse():
    """Labels that have little to do with the scores: what is expected of the rule may not come."""
    changed = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(3, 8, 8, generator=generator)
        label = torch.randint(0, 3, (8, 8), generator=generator)
        metric = OperatingPointMetric(ClassPrior([80, 15, 5]), 1)
        metric.process({}, [as_sample(logits, label)])
        metric.evaluate(1)
        point = choosing.candidates(metric)['IoU rule']
        plain = logits.argmax(0)
        areas = [naive_areas(d, label, 3) for d in (point.decide(logits), plain)]
        by_rule, by_argmax = ((a[0] / a[1]).mean() for a in areas)
        assert by_rule >= by_argmax
        changed.append(not torch.equal(point.decide(logits), plain))
    assert 0 < sum(changed) < 20


def test_what_the_rule_may_be_fitted_to(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / 'tools/benchmarks')
    compare = importlib.import_module('iou_rule').compare
    metric, _ = gather(folds=6)
    rows = compare(metric, metric, [2, 6])
    assert [row[0] for row in rows] == [2] * 5 + [6] * 5 + ['']
    table = summaries(choosing.measured(choosing.candidates(metric), metric), metric.prior)
    values = {row[1]: float(row[2]) for row in rows[5:]}
    for name in ('natural', 'tau by mIoU'):
        assert values[name] == pytest.approx(table[name]['mIoU'], abs=0.011)
    # The same images fit and are measured.
    assert values['IoU rule, expected'] == values['IoU rule, of these images']
    assert values['IoU rule, counted'] >= values['natural']


def test_the_best_estimate_gains_at_both_frequencies():
    found = {'natural': (50.0, 40.0), 'tau by mIoU': (51.0, 41.0), 'IoU rule': (56.0, 39.0)}
    assert choosing.best_estimate(found) == 'tau by mIoU'
    assert choosing.best_estimate({**found, 'IoU rule': (56.0, 42.0)}) == 'IoU rule'
    assert choosing.best_estimate({**found, 'IoU rule': (51.0, 41.05)}) == 'tau by mIoU'
    assert choosing.best_estimate({**found, 'tau by mIoU': (50.05, 41.0)}) == 'natural'
    found['memory and IoU rule'] = (60.0, 50.0)
    assert choosing.best_estimate(found) == 'memory and IoU rule'


def test_a_reading_that_is_good_at_shifted_frequencies_only_is_not_chosen():
    """All classes of the split that chooses are alike, those of training and report are not."""
    prior = ClassPrior([60, 25, 10, 4, 1])

    def measured(shares, seed, folds=1, rules=None):
        generator = torch.Generator().manual_seed(seed)
        metric = OperatingPointMetric(prior, 10, rules, folds=folds)
        for _ in range(10):
            shape = 5, 30, 30
            label = torch.multinomial(torch.tensor(shares), 900, True, generator=generator)
            certain = 2.25 * torch.nn.functional.one_hot(label, 5).T.view(shape)
            logits = 1.5 * torch.randn(shape, generator=generator) + certain
            logits += prior.log_probs()[:, None, None]
            metric.process({}, [as_sample(logits, label.view(30, 30))])
        metric.evaluate(10)
        return metric

    selection = measured([0.2] * 5, seed=0, folds=5)
    points = choosing.candidates(selection)
    estimates = choosing.estimates(selection, choosing.candidates_of_folds(selection))
    shift = choosing.frequency_shift(selection.image_labels, prior)
    assert not shift.drawn_alike and shift.share == pytest.approx(0.45, abs=0.02)
    chosen = choosing.best_estimate(estimates)
    as_it_is = {name: pair[0] for name, pair in estimates.items()}
    assert as_it_is['tau by mIoU'] > 10 + as_it_is['natural']
    assert as_it_is['tau by mIoU'] > 8 + as_it_is['IoU rule'] and chosen == 'IoU rule'

    rules = {'IoU rule': points['IoU rule']}
    report = measured([0.6, 0.25, 0.1, 0.04, 0.01], seed=1, rules=rules)
    assert choosing.frequency_shift(report.image_labels, prior).drawn_alike
    values = summaries(choosing.measured(points, report), prior)
    assert values[chosen]['mIoU'] > 2 + values['natural']['mIoU']
    assert values[chosen]['mIoU'] > 7 + values['tau by mIoU']['mIoU']


def test_a_shift_of_frequencies_is_the_share_of_pixels_that_would_change():
    prior = ClassPrior([50, 30, 20], ['road', 'tree', 'pole'])
    same = choosing.frequency_shift(torch.tensor([[5, 3, 2]] * 4), prior)
    assert same.share == pytest.approx(0, abs=1e-6) and same.by_chance == 0
    images = torch.tensor([[8.0, 1, 1], [6, 2, 2]])
    share, by_chance, most = choosing.frequency_shift(images, prior)
    assert (share, most) == (pytest.approx(0.2), 0)
    # Shares differ by 0.2, 0.1 and 0.1, so their means have standard errors of half of that.
    assert by_chance == pytest.approx(math.sqrt(2 / math.pi) * (0.1 + 0.05 + 0.05) / 2)


def test_chance_is_what_images_that_are_drawn_alike_differ_by():
    generator = torch.Generator().manual_seed(0)
    prior = ClassPrior([50, 30, 20])
    found = []
    for _ in range(200):
        # Images differ in what they show and in how much of them is labelled.
        mean = torch.tensor([5.0, 3.0, 2.0])
        shares = torch._standard_gamma(mean.expand(30, 3), generator=generator)
        pixels = 1000 * torch.rand(30, 1, generator=generator) * shares / shares.sum(1)[:, None]
        found.append(choosing.frequency_shift(pixels, prior))
    shares, by_chance = (torch.tensor([f[i] for f in found]).mean() for i in (0, 1))
    assert float(shares / by_chance) == pytest.approx(1, abs=0.1)
    assert sum(f.drawn_alike for f in found) > 195


def gather_with_memory(rules=None, folds=1, **more):
    """The world of :func:`gather`, whose second opinion is right about the two rare classes."""
    plain, world = gather()
    metric = OperatingPointMetric(
        plain.prior, 6, rules, folds=folds, memory_weights=(0.5, 1.0), **more
    )
    seen = []
    for logits, label in world:
        memory = torch.zeros_like(logits)
        memory[1:] = 2.0 * torch.stack([label == 1, label == 2])
        sample = as_sample(logits, label)
        metric.process({}, [{**sample, 'memory_logits': {'data': memory}}])
        seen.append((logits, memory, label))
    metric.evaluate(6)
    return metric, seen


def test_a_memory_is_measured_at_each_weight_and_tau():
    metric, world = gather_with_memory()
    points = choosing.candidates(metric)
    assert list(points)[-3:] == list(choosing.WITH_MEMORY)
    rules = {name: point for name, point in points.items() if point.rule == 'iou'}
    report, _ = gather_with_memory(rules, max_values=0)
    table = summaries(choosing.measured(points, report), report.prior)
    of_images = choosing.measured_per_image(points, report)
    for name, point in points.items():
        areas = [
            naive_areas(point.scores(s + point.memory_weight * m).argmax(0), y, 3)
            for s, m, y in world
        ]
        total = sum(areas)
        expected = float((100 * total[0] / total[1]).mean())
        assert table[name]['mIoU'] == pytest.approx(expected, abs=0.01)
        expected = sum(float((100 * a[0] / a[1]).nanmean()) for a in areas) / 6
        assert of_images[name] == pytest.approx(expected, abs=1e-6)
    best = table['memory and tau']['mIoU']
    assert best >= table['memory']['mIoU'] > table['tau by mIoU']['mIoU']
    for weight in range(2):
        for row in choosing.curve(report.memory_areas[0, weight], report.prior):
            assert row['mIoU'] <= best
    # What there is without a memory stays.
    plain = choosing.candidates(gather()[0])
    assert plain == {name: points[name] for name in plain}


@given(st.floats(0.1, 3), st.integers(0, 2**31))
def test_an_opinion_that_is_given_twice_counts_once(weight, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = (2 * torch.randn(50, 3, generator=generator)).log_softmax(1)
    label = torch.randint(3, (50,), generator=generator)
    sample = PosteriorSample(scores, scores, label, torch.ones(50))
    torch.testing.assert_close(sample.posterior(weight), sample.posterior())
    assert sample.temperature(weight) == pytest.approx(sample.temperature(), rel=1e-3)


def test_a_memory_is_cross_fitted():
    metric, world = gather_with_memory(folds=3)
    table = summaries(cross_fitted(metric), metric.prior)
    total = torch.zeros(4, 3, dtype=torch.float64)
    for fold in range(3):
        others = metric.memory_areas.sum(0) - metric.memory_areas[fold]
        best = choosing.best_tau(choosing.curve(others.flatten(0, 1), metric.prior), 'mIoU')
        weight, tau = metric.memory_weights[best // 21], metric.taus[best % 21]
        log_prior = tuple(metric.prior.log_probs().tolist())
        point = OperatingPoint('tau', tuple('abc'), log_prior, tau=tau)
        for logits, memory, label in world[2 * fold : 2 * fold + 2]:
            total += naive_areas(point.scores(logits + weight * memory).argmax(0), label, 3)
    expected = float((100 * total[0] / total[1]).mean())
    assert table['memory and tau']['mIoU'] == pytest.approx(expected, abs=0.01)
    assert set(table) >= set(choosing.WITH_MEMORY)


def test_labels_of_no_class_take_no_part():
    metric, world = gather(folds=2)
    other = OperatingPointMetric(metric.prior, len(world), folds=2, max_values=2**20)
    for logits, label in world:
        label = label.where(label != 255, 7)
        label[0, 0] = -1
        other.process({}, [as_sample(logits, label)])
    other.evaluate(len(world))
    assert choosing.candidates(other) == choosing.candidates(metric)
    ours, theirs = cross_fitted(other), cross_fitted(metric)
    assert all(torch.equal(ours[name], areas) for name, areas in theirs.items())


def test_too_little_room_for_the_sample():
    prior = ClassPrior([80, 15, 5])
    with pytest.raises(ValueError, match='max_values=17 .* 6 images, 3 values each: give 18 or'):
        OperatingPointMetric(prior, 6, max_values=17)
    assert OperatingPointMetric(prior, 6, max_values=18).draw.pixels_per_image == 1
    with pytest.raises(ValueError, match='max_values is 0'):
        gather(max_values=0)[0].fit()


def work(rank, world_size, folder):
    metric, world = gather()
    shared = OperatingPointMetric(metric.prior, len(world), folds=3)
    for logits, label in world[rank::world_size]:  # as mmengine's sampler deals them out
        shared.process({}, [as_sample(logits, label)])
    shared.evaluate(len(world))
    if rank == 0:
        torch.save([shared.tau_areas, shared.tau_image_miou], f'{folder}/a.pth')


def test_ranks_measure_what_one_process_does(tmp_path):
    run_ranks(work, 2, tmp_path)
    areas, miou = torch.load(Path(tmp_path) / 'a.pth')
    alone, _ = gather(folds=3)
    torch.testing.assert_close(areas, alone.tau_areas)
    torch.testing.assert_close(miou, alone.tau_image_miou)


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
