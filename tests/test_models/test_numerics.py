"""Extreme scores, temperatures, sizes and precisions: finite values and the right gradients."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.registry import MODELS
from tiny import COUNTS, batch, segmentor, total

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.contrast import ClassQueue, PixelContrast, UniformPixelSampler
from mmseg_ltmi.core.losses import LogitAdjustedLoss
from mmseg_ltmi.core.losses.functional import (
    class_log_likelihood,
    distillation_loss,
    gml_loss,
    logit_adjusted_cross_entropy,
)

many = settings(max_examples=150, deadline=None)
counts = st.lists(st.sampled_from([0, 1, 3, 1e-300, 1e9, 2**62]), min_size=2, max_size=7).filter(
    any
)


def rand(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def naive_adjusted(logits, target, log_prior, tau, class_weight):
    """Pixel by pixel, from the definition."""
    scores = (logits + tau * log_prior.view(1, -1, 1)).movedim(1, -1).reshape(-1, len(log_prior))
    losses, weights = [logits.sum() * 0], [0.0]
    for score, label in zip(scores, target.flatten().tolist(), strict=True):
        if label != 255:
            weight = 1.0 if class_weight is None else class_weight[label]
            losses.append(weight * (score.logsumexp(0) - score[label]))
            weights.append(weight)
    return sum(losses) / (sum(weights) or 1)


@many
@given(
    counts,
    st.integers(0, 3),
    st.integers(0, 5),
    st.floats(0, 2),
    st.sampled_from([1e-3, 1, 1e4]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_logit_adjustment_against_its_definition(prior, images, pixels, tau, size, weigh, seed):
    generator = torch.Generator().manual_seed(seed)
    num_classes = len(prior)
    exact = (size * rand(generator, images, num_classes, pixels)).requires_grad_()
    single = exact.detach().float().requires_grad_()
    target = torch.randint(0, num_classes + 1, (images, pixels), generator=generator)
    target[target == num_classes] = 255
    log_prior = ClassPrior(prior).log_probs()
    weight = torch.rand(num_classes, generator=generator) + 0.1 if weigh else None
    loss = logit_adjusted_cross_entropy(single, target, log_prior, tau, class_weight=weight)
    expected = naive_adjusted(exact, target, log_prior.double(), tau, weight)
    loss.backward()
    expected.backward()
    assert loss.isfinite() and single.grad.isfinite().all()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(single.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)


def naive_gml(query, labels, key, key_labels, log_prior, temperature, exclude):
    """Query by query, from the definition; a sum over the usable ones."""
    losses = [query.sum() * 0 + key.sum() * 0 + temperature * 0]
    for i, label in enumerate(labels.tolist()):
        joint = {}
        for c in range(len(log_prior)):
            mine = [j for j, k in enumerate(key_labels.tolist()) if k == c and not exclude[i, j]]
            if mine and log_prior[c] > -math.inf:
                score = key[mine] @ query[i] / temperature
                joint[c] = score.logsumexp(0) - math.log(len(mine)) + log_prior[c]
        if label in joint:
            losses.append(torch.stack(list(joint.values())).logsumexp(0) - joint[label])
    return sum(losses)


@many
@given(
    st.integers(0, 4),
    st.integers(0, 9),
    st.integers(2, 5),
    st.floats(math.log(1e-3), math.log(10)),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_gml_against_its_definition(queries, keys, num_classes, log_t, masks, seed):
    generator = torch.Generator().manual_seed(seed)
    query, key = (F.normalize(rand(generator, n, 3), dim=1) for n in (queries, keys))
    labels, key_labels = (
        torch.randint(-1, num_classes, (n,), generator=generator) for n in (queries, keys)
    )
    log_prior = rand(generator, num_classes).log_softmax(0)
    if masks:
        log_prior[0] = -torch.inf
    ids, key_ids = (torch.randint(0, 6, (n,), generator=generator) for n in (queries, keys))
    results = []
    for kind in (torch.float32, torch.float64):
        q, k, t = (x.to(kind).requires_grad_() for x in (query, key, torch.tensor(math.exp(log_t))))
        if kind == torch.float32:
            loss = gml_loss(
                q, labels, k, key_labels, log_prior.float(), t, query_ids=ids, key_ids=key_ids,
                reduction='sum',
            )  # fmt: skip
        else:
            loss = naive_gml(
                q, labels, k, key_labels, log_prior, t, ids[:, None] == key_ids[None, :]
            )
        loss.backward()
        results.append([loss.detach(), q.grad, k.grad, t.grad])
    slope = math.exp(-log_t)  # of the scores; float32 scores are exact to 1e-7 times that
    for ours, exact, grows in zip(*results, (1, slope, slope, slope**2), strict=True):
        assert ours.isfinite().all()
        error = (ours.double() - exact).abs().max() if ours.numel() else 0
        assert error <= 1e-5 * grows * max(1, slope)


def test_gradients_by_finite_differences():
    generator = torch.Generator().manual_seed(0)
    logits = rand(generator, 2, 3, 4).requires_grad_()
    target = torch.tensor([[0, 1, 2, 255], [2, 2, 255, 0]])
    log_prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log()
    weight = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda s: logit_adjusted_cross_entropy(s, target, log_prior, 0.7, class_weight=weight),
        logits,
    )
    q, k = (F.normalize(rand(generator, n, 3), dim=1).requires_grad_() for n in (4, 7))
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    labels, key_labels = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 0, 1, -1, 1, 0])
    ids, key_ids = torch.arange(4), torch.tensor([0, 1, -1, -1, 2, 3, -1])
    torch.autograd.gradcheck(
        lambda q, k, t: gml_loss(
            q, labels, k, key_labels, log_prior, t, query_ids=ids, key_ids=key_ids
        ),
        (q, k, t),
    )
    torch.autograd.gradcheck(
        lambda q, k, t: class_log_likelihood(q, k, key_labels, 3, t)[:, :2], (q, k, t)
    )
    valid, teacher = target != 255, rand(generator, 2, 3, 4)
    torch.autograd.gradcheck(lambda s: distillation_loss(s, teacher, valid, 2.0), logits)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('size', [1.0, 1e4])
def test_scores_of_every_precision(dtype, size):
    torch.manual_seed(0)
    scores = (size * torch.randn(2, 4, 6, 6)).to(dtype).requires_grad_()
    labels = torch.randint(0, 4, (2, 6, 6))
    labels[0, 0] = 255
    loss = LogitAdjustedLoss(COUNTS)(scores, labels)
    loss.backward()
    log_prior = ClassPrior(COUNTS).log_probs().double().view(1, -1, 1, 1)
    exact = scores.detach().double().requires_grad_()
    expected = F.cross_entropy(exact + log_prior, labels, ignore_index=255)
    expected.backward()
    assert loss.dtype == torch.float32 and scores.grad.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    twice = logit_adjusted_cross_entropy(scores, labels, log_prior.flatten())
    assert twice.dtype == torch.float32  # whatever the prior's
    tolerance = dict(rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    torch.testing.assert_close(scores.grad.double(), exact.grad, **tolerance)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_contrast_under_autocast(dtype):
    # Features beyond what a product in float16 can hold.
    term = PixelContrast(8, 4, COUNTS, queue=dict(size=64), sampler=dict(num_samples=48))
    exact = copy.deepcopy(term)
    features = (1e4 * torch.randn(2, 8, 8, 8)).to(dtype)
    labels = torch.randint(0, 4, (2, 16, 16))
    results = []
    for module, enabled in ((term, True), (exact, False)):
        torch.manual_seed(1)
        with torch.autocast('cpu', dtype if dtype != torch.float32 else None, enabled):
            losses = module(features if enabled else features.float(), labels)
        losses['loss_contrast'].backward()
        results.append([losses['loss_contrast'], *(p.grad for p in module.parameters())])
    for ours, expected in zip(*results, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('teacher', [None, dict(type='EMA', momentum=0.9)])
def test_segmentor_under_autocast(dtype, teacher):
    torch.manual_seed(0)
    taught = dict(type='DistilledEncoderDecoder', teacher=teacher, alpha=1.0) if teacher else {}
    model = MODELS.build(segmentor(**taught)).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01)
    for step in range(4):
        with torch.autocast('cpu', dtype):
            losses = model.loss(*batch(step))
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        assert all(value.isfinite().all() for value in losses.values())
    assert all(value.isfinite().all() for value in model.parameters())


@pytest.mark.parametrize('temperature', [1e-3, 0.1, 10])
def test_contrast_at_every_temperature(temperature):
    torch.manual_seed(0)
    term = PixelContrast(
        8, 4, COUNTS, queue=dict(size=64), loss=dict(temperature=temperature), sampler={}
    )
    features = torch.randn(2, 8, 8, 8, requires_grad=True)
    for _ in range(3):
        losses = term(features, torch.randint(0, 4, (2, 8, 8)))
        losses['loss_contrast'].backward()
    assert losses['loss_contrast'].isfinite() and features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in term.parameters())


def test_a_million_pixels():
    torch.manual_seed(0)
    scores = torch.randn(1, 3, 1000, 1000, requires_grad=True)
    labels = torch.randint(0, 3, (1, 1000, 1000))
    loss = LogitAdjustedLoss([1, 1, 1])(scores, labels)
    loss.backward()
    exact = F.cross_entropy(scores.detach().double(), labels)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
    assert scores.grad.abs().sum() > 0 and scores.grad.isfinite().all()

    labels.fill_(255)[0, -1, -1] = 2  # the one valid pixel among a million is found
    pixel, drawn, _ = UniformPixelSampler(16)(labels, torch.zeros(3))
    assert (pixel == 10**6 - 1).all() and (drawn == 2).all()


def test_an_overflow_does_not_stay_in_the_queue():
    torch.manual_seed(0)
    term = PixelContrast(8, 4, COUNTS, queue=dict(size=64), sampler=dict(num_samples=48))
    labels = torch.randint(0, 4, (2, 8, 8))
    features = torch.randn(2, 8, 8, 8)
    features[0] = torch.inf
    term(features, labels)['loss_contrast'].backward()
    gradients = [p.grad for p in term.projector.parameters()]
    assert not all(g.isfinite().all() for g in gradients)  # so a GradScaler drops this step
    after = term(torch.randn(2, 8, 8, 8), labels)['loss_contrast']
    assert after.isfinite() and term.queue.samples.isfinite().all() and term.queue.fill() > 0


@many
@given(
    st.lists(st.lists(st.integers(-1, 4), max_size=12), max_size=6),
    st.integers(3, 12),
    st.none() | st.integers(1, 5),
)
def test_queue_is_a_ring_for_each_class(arrivals, size, max_new):
    """Against lists that keep the last of each class."""
    queue = ClassQueue(3, 1, size=size, min_per_class=1, max_new=max_new)
    queue.allocate(torch.tensor([0.6, 0.3, 0.1]))
    held: dict[int, list] = {0: [], 1: [], 2: []}
    number = 0
    for labels in arrivals:
        values = [float(number + i) for i in range(len(labels))]
        number += len(labels)
        for label, ring in held.items():
            new = [v for v, of in zip(values, labels, strict=True) if of == label]
            new = new[-max_new:] if max_new else new
            held[label] = [*ring, *new][-int(queue.room[label]) :]
        samples = torch.tensor(values).view(-1, 1)
        queue.enqueue(samples, torch.tensor(labels, dtype=torch.int64), samples[:, 0].long())
        kept, kept_labels, ids = queue.read()
        for label, expected in held.items():
            assert sorted(kept[kept_labels == label, 0].tolist()) == expected
        new = ids >= 0
        assert (kept[new, 0].long() == ids[new]).all()
        assert set(ids[new].tolist()) == {v for vs in held.values() for v in vs if v in values}
