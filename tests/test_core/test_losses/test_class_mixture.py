"""Likelihoods, expected scores and all gradients against sums over one matrix, in float64."""

import math
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_ltmi.core.losses import GMLLoss, class_mixture, class_mixture_torch
from mmseg_ltmi.core.losses.functional import class_log_likelihood, gml_loss

mixture = class_mixture.class_mixture


def unit(generator, *shape):
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def naive(score, key_labels, num_classes, out):
    columns = []
    for c in range(num_classes):
        counts = (key_labels == c) & ~out
        some = counts.any(1)
        mine = score.masked_fill(~counts, -torch.inf).masked_fill(~some[:, None], 0)
        if mine.shape[1]:
            column = mine.logsumexp(1) - counts.sum(1).clamp(min=1).double().log()
        else:
            column = mine.sum(1)
        columns.append(column.masked_fill(~some, -torch.inf))
    return torch.stack(columns, 1)


def blocks_of(queries):
    """Small blocks, so that a test goes over the border between them."""
    return patch.multiple(class_mixture_torch, BLOCK=1, MIN_QUERIES=queries)


def inner(values, weight):
    """A scalar of the entries that are finite."""
    return (values.masked_fill(values == -torch.inf, 0) * weight).sum()


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.integers(0, 9), st.integers(0, 14), st.integers(1, 5), st.integers(1, 4)),
    st.sampled_from(['none', 'ids', 'exclude']),
    st.floats(math.log(1e-3), math.log(10)),
    st.integers(1, 10),
    st.integers(0, 10**6),
)
def test_against_one_matrix(sizes, how, log_t, block, seed):
    queries, keys, num_classes, channels = sizes
    generator = torch.Generator().manual_seed(seed)
    query, key = unit(generator, queries, channels), unit(generator, keys, channels)
    key_labels = torch.randint(-1, num_classes + 1, (keys,), generator=generator)
    ids, key_ids = (torch.randint(0, 6, (n,), generator=generator) for n in (queries, keys))
    out, named = torch.zeros(queries, keys, dtype=torch.bool), {}
    if how == 'ids':
        out, named = ids[:, None] == key_ids, dict(query_ids=ids, key_ids=key_ids)
    elif how == 'exclude':
        out = torch.rand(queries, keys, generator=generator) < 0.5
        named = dict(exclude=out)
    weights = torch.randn(2, queries, num_classes, generator=generator, dtype=torch.float64)

    results = []
    for ours in (True, False):
        q, k = query.clone().requires_grad_(), key.clone().requires_grad_()
        log_temperature = torch.tensor(log_t, dtype=torch.float64, requires_grad=True)
        temperature = log_temperature.exp()
        if ours:
            with blocks_of(block):
                both = mixture(q / temperature, k, key_labels, num_classes, **named)
                (inner(both.everything, weights[0]) + inner(both.held_out, weights[1])).backward()
            everything, held_out, expected = both
            by_log_t = -inner(expected, weights[1])
        else:
            score = q @ k.T / temperature
            everything = naive(score, key_labels, num_classes, torch.zeros_like(out))
            held_out = naive(score, key_labels, num_classes, out)
            last = inner(held_out, weights[1])
            (by_log_t,) = torch.autograd.grad(last, log_temperature, retain_graph=True)
            (inner(everything, weights[0]) + last).backward()
        gradients = [x.grad for x in (q, k, log_temperature)]
        results.append([everything.detach(), held_out.detach(), by_log_t, *gradients])
    scale = math.exp(-log_t)
    for value, exact in zip(*results, strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-9, atol=1e-11 * max(1, scale) ** 2)


@pytest.mark.parametrize('block', [1, 3, 100])
@pytest.mark.parametrize('learn', [True, False])
def test_both_terms_of_the_loss(learn, block):
    generator = torch.Generator().manual_seed(0)
    query, key = unit(generator, 11, 4), unit(generator, 17, 4)
    labels, key_labels = (torch.randint(-1, 4, (n,), generator=generator) for n in (11, 17))
    ids, key_ids = (torch.randint(0, 8, (n,), generator=generator) for n in (11, 17))
    key_labels[key_labels == 2] = 1  # a class without a key
    ids[4], key_ids[key_labels == 0] = 7, 7  # one that is held out whole
    log_prior = torch.randn(4, generator=generator, dtype=torch.float64).log_softmax(0)
    loss = GMLLoss(4, 0.2, learn, loss_weight=0.7).double()
    q, k = query.clone().requires_grad_(), key.clone().requires_grad_()
    with blocks_of(block):
        value, log_likelihood = loss.with_likelihood(
            q, labels, k, key_labels, log_prior, query_ids=ids, key_ids=key_ids
        )
        value.backward()

    p, h = query.clone().requires_grad_(), key.clone().requires_grad_()
    log_t = loss.log_temperature.detach().clone().requires_grad_()

    def term(score, out):
        joint = naive(score, key_labels, 4, out) + log_prior
        losses = [
            joint[i].logsumexp(0) - joint[i, c]
            for i, c in enumerate(labels.tolist())
            if c >= 0 and joint[i, c] > -torch.inf
        ]
        return sum(losses) / len(losses)

    exact = term(p @ h.T / 0.2, torch.zeros(11, 17, dtype=torch.bool))
    if learn:
        exact = exact + term(query @ key.T / log_t.exp(), ids[:, None] == key_ids)
    (0.7 * exact).backward()
    assert not log_likelihood.requires_grad and (log_likelihood[:, 2] == -torch.inf).all()
    for ours, reference in ((value, 0.7 * exact), (q.grad, p.grad), (k.grad, h.grad)):
        torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-8)  # T is kept in float32
    if learn:
        torch.testing.assert_close(
            loss.log_temperature_change.grad, log_t.grad, rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize('how', ['none', 'ids', 'exclude'])
def test_gradients_by_finite_differences(how):
    generator = torch.Generator().manual_seed(1)
    q, k = unit(generator, 5, 3).requires_grad_(), unit(generator, 9, 3).requires_grad_()
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    key_labels = torch.tensor([0, 1, 0, 1, -1, 1, 0, 1, 7])
    ids, key_ids = torch.tensor([0, 1, 1, 2, 9]), torch.tensor([0, 1, 1, -1, 2, -1, 0, 2, 2])
    exclude = torch.rand(5, 9, generator=generator) < 0.2
    log_prior = torch.tensor([0.3, 0.7], dtype=torch.float64).log()

    def function(q, k, t):
        if how == 'ids':
            names = dict(query_ids=ids, key_ids=key_ids)
            labels = torch.tensor([0, 1, 1, 0, 0])
            return gml_loss(q, labels, k, key_labels, log_prior, t, reduction='none', **names)
        return class_log_likelihood(
            q, k, key_labels, 2, t, exclude=exclude if how == 'exclude' else None
        )

    with blocks_of(2):
        torch.autograd.gradcheck(function, (q, k, t))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_and_layout(dtype):
    generator = torch.Generator().manual_seed(2)
    query, key = unit(generator, 6, 20).to(dtype), unit(generator, 6, 30).to(dtype)
    key_labels = torch.randint(0, 3, (60,), generator=generator)[::2]
    results = []
    for convert in (lambda x: x, lambda x: x.double().contiguous()):
        q, k = (convert(x.T).detach().requires_grad_() for x in (query, key))
        # Also where someone runs the backward pass under autocast.
        with blocks_of(7), torch.autocast('cpu', torch.bfloat16):
            values = class_log_likelihood(q, k, key_labels, 3, 0.1)
            values.square().mean().backward()
        results.append([values, q.grad, k.grad])
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    assert [x.dtype for x in results[0]] == [precise, dtype, dtype]
    tolerance = 1e-12 if dtype == torch.float64 else max(2 * torch.finfo(dtype).eps, 1e-5)
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(
            ours.double(), exact.double(), rtol=tolerance, atol=tolerance * exact.abs().max().item()
        )


def test_own_key_far_above_all_others():
    # exp(1000): neither mixture may be found from the other by a difference, or under its peak.
    query = torch.tensor([[1.0, 0.0]])
    key = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    key_labels, key_ids = torch.tensor([0, 0, 0, 1]), torch.tensor([5, -1, -1, 5])
    everything, held_out, expected = mixture(
        query / 1e-3, key, key_labels, 2, query_ids=torch.tensor([5]), key_ids=key_ids
    )
    torch.testing.assert_close(everything, torch.tensor([[1000 - math.log(3), 1000.0]]))
    torch.testing.assert_close(held_out, torch.tensor([[-math.log(2), -math.inf]]))
    torch.testing.assert_close(expected, torch.zeros(1, 2), rtol=0, atol=1e-4)


def test_identities_that_float32_cannot_tell_apart():
    ids = torch.tensor([2**40, 2**40 + 1, -3])
    key_ids = torch.tensor([2**40 + 1, 2**40 + 2, 2**40, -4])
    query, key = torch.eye(4)[:3], torch.eye(4)
    _, held_out, _ = mixture(query, key, torch.arange(4), 4, query_ids=ids, key_ids=key_ids)
    assert ((held_out == -torch.inf) == (ids[:, None] == key_ids)).all()


def test_bad_input():
    with pytest.raises(ValueError, match='give both or neither'):
        mixture(torch.eye(2), torch.eye(2), torch.arange(2), 2, query_ids=torch.arange(2))


class Watch(TorchDispatchMode):
    """The size of the largest tensor, and the names of the operators."""

    def __init__(self):
        super().__init__()
        self.largest, self.names = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        self.names.append(function._schema.name)
        return result


@pytest.mark.parametrize('keys', [500, 3000])
def test_no_matrix_of_queries_by_keys(keys):
    generator = torch.Generator().manual_seed(3)
    q, k = (unit(generator, n, 4).requires_grad_() for n in (400, keys))
    labels, key_labels = (torch.randint(0, 3, (n,), generator=generator) for n in (400, keys))
    ids, key_ids = torch.arange(400), torch.arange(keys) - 7
    log_prior = torch.full((3,), -math.log(3), dtype=torch.float64)
    with patch.object(class_mixture_torch, 'BLOCK', 50_000), Watch() as watch:
        GMLLoss(3)(
            q, labels, k, key_labels, log_prior, query_ids=ids, key_ids=key_ids
        ).backward()  # fmt: skip
    assert 0 < watch.largest <= 50_000


def test_keys_without_gradient_take_no_product():
    names = []
    for learns in (True, False):
        query, key = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4, requires_grad=learns)
        with Watch() as watch:
            GMLLoss(2)(
                query, torch.arange(6) % 2, key, torch.arange(9) % 2, torch.zeros(2)
            ).backward()  # fmt: skip
        names.append([name for name in watch.names if 'mm' in name])
    assert names == [['aten::mm'] * 2 + ['aten::addmm_'] * n for n in (2, 1)]


def test_a_loss_that_learns_the_temperature_takes_one_pass():
    query, key = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4)
    temperature = torch.tensor(0.2, requires_grad=True)
    with Watch() as watch:
        gml_loss(
            query, torch.arange(6) % 2, key, torch.arange(9) % 2, torch.zeros(2), temperature
        ).backward()  # fmt: skip
    assert [name for name in watch.names if 'mm' in name] == ['aten::mm'] * 2 + ['aten::addmm_']
