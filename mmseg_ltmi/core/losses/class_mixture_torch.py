"""The class mixture by torch alone, in memory that does not grow with the keys.

Scores are computed for a block of queries at a time, in the forward pass and once more in the
backward pass, as FlashAttention does (Dao et al., 2022, arXiv 2205.14135). Their exponentials are
to base 2, which the CPU computes three times as fast as those to base e.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores of one block: small enough for a CPU's cache, large enough to keep a GPU busy.
BLOCK = 2**20
CUDA_BLOCK = 2**23
# With more than BLOCK / MIN_QUERIES keys a matrix of scores grows, as 16 of their channels do.
MIN_QUERIES = 16
# Taken off a score instead of making it -inf: no NaN from differences, and its power of 2 is 0.
OUT = 1e30
LN2 = math.log(2)


class Term(NamedTuple):
    """What a gradient is made of.

    Attributes:
        sums: of a mixture: peak and mass (2, C + 1, N), None where there is none.
        gradient: by its log-likelihoods (N, C), None where there is none.
        leaves_out: whether it is the mixture without the keys that are left out.
    """

    sums: Tensor | None
    gradient: Tensor | None
    leaves_out: bool


def torch_class_mixture(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    only_held_out: bool,
    exclude: Tensor | None,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """``everything``, None if it is ``held_out``, ``held_out`` and ``expected``."""
    label = _or_spare(key_labels, num_classes)
    places = _places(query_ids, key_ids, query.dtype)
    return _ClassMixture.apply(query, key, label, num_classes, only_held_out, exclude, *places)


def torch_gradients(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    terms: Iterable[Term],
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by query and key for a forward pass that was another's."""
    label = _or_spare(key_labels, num_classes)
    places = _places(query_ids, key_ids, query.dtype)
    return _gradients(query, key, label, None, *places, terms, needed)


class _ClassMixture(torch.autograd.Function):
    """Keys run down the rows of a block: what belongs to a class is then reduced by whole rows."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        label: Tensor,
        num_classes: int,
        only_held_out: bool,
        exclude: Tensor | None,
        query_place: Tensor | None,
        key_place: Tensor | None,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        shape = (num_classes + 1, len(query))
        size = query.new_zeros(shape[0], 1).index_add_(0, label, query.new_ones(len(key), 1))
        kept_size = size.repeat(1, shape[1])
        kept = query.new_empty(3, *shape)
        total = None
        if not only_held_out and (exclude is not None or key_place is not None):
            total = query.new_empty(2, *shape)
        for rows, score, spare, out, held in _blocks(query, key, 4):
            _score(query[rows], key, score)
            if not _left_out(exclude, query_place, key_place, rows, out):
                kept[..., rows] = _sums(score, label, num_classes, spare)
                continue
            kept_size[:, rows].index_add_(0, label, out, alpha=-1)
            torch.sub(score, out, alpha=OUT, out=held)
            kept[..., rows] = _sums(held, label, num_classes, spare)
            if total is None:
                continue
            score.sub_(torch.sub(1, out, out=held), alpha=OUT)
            own = _sums(score, label, num_classes, spare)
            # Own keys are added back: taken off a sum, they could leave nothing but its rounding.
            total[..., rows] = _joined(kept[:2, :, rows], own[:2])
        held_out = _log_mean(kept, kept_size)
        everything = None if total is None else _log_mean(total, size)
        peak, mass, moment = kept
        expected = ((peak + moment / mass) * LN2).masked_fill_(mass.isinf(), 0)[:-1].T
        ctx.save_for_backward(query, key, label, exclude, query_place, key_place, kept, total)
        ctx.mark_non_differentiable(expected)
        ctx.set_materialize_grads(False)
        return everything, held_out, expected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_everything: Tensor | None, of_held_out: Tensor | None, _: Any) -> Any:
        query, key, label, exclude, query_place, key_place, kept, total = ctx.saved_tensors
        terms = Term(total, of_everything, False), Term(kept, of_held_out, True)
        gradients = _gradients(
            query, key, label, exclude, query_place, key_place, terms, ctx.needs_input_grad
        )
        return *gradients, *[None] * 6


def _gradients(
    query: Tensor,
    key: Tensor,
    label: Tensor,
    exclude: Tensor | None,
    query_place: Tensor | None,
    key_place: Tensor | None,
    terms: Iterable[Term],
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    grad_query = torch.zeros_like(query) if needed[0] else None
    grad_key = torch.zeros_like(key) if needed[1] else None
    with torch.autocast(query.device.type, enabled=False):
        for sums, gradient, leaves_out in terms:
            if sums is None or gradient is None:
                continue
            factor = _per_mass(gradient, sums)
            for rows, score, spare in _blocks(query, key, 2):
                _score(query[rows], key, score)
                if leaves_out and _left_out(exclude, query_place, key_place, rows, spare):
                    score.sub_(spare, alpha=OUT)
                # The gradient by the score, in the score's place.
                score.sub_(torch.index_select(sums[0, :, rows], 0, label, out=spare)).exp2_()
                score.mul_(torch.index_select(factor[:, rows], 0, label, out=spare))
                if grad_query is not None:
                    grad_query[rows].addmm_(score.T, key)
                if grad_key is not None:
                    grad_key.addmm_(score, query[rows])
    return grad_query, grad_key


def _blocks(query: Tensor, key: Tensor, count: int) -> Iterator[tuple[Any, ...]]:
    """Blocks of the queries, each with ``count`` matrices (K, n) to work in.

    They are the same memory for all blocks: fresh memory costs a CPU more than what is done in it.
    """
    scores = CUDA_BLOCK if query.is_cuda else BLOCK
    step = min(max(scores // max(len(key), 1), MIN_QUERIES), max(len(query), 1))
    space = [query.new_empty(len(key) * step) for _ in range(count)]
    for start in range(0, len(query), step):
        n = min(step, len(query) - start)
        yield slice(start, start + n), *(s[: len(key) * n].view(-1, n) for s in space)


def _score(query: Tensor, key: Tensor, score: Tensor) -> None:
    """(K, n), to base 2."""
    torch.mm(key, (query / LN2).T, out=score)


def _or_spare(key_labels: Tensor, num_classes: int) -> Tensor:
    """Keys without a class go to a spare one."""
    known = (key_labels >= 0) & (key_labels < num_classes)
    return key_labels.where(known, num_classes)


def _places(
    query_ids: Tensor | None, key_ids: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Numbers that are the same where identities are; float, which compares fastest in place."""
    if query_ids is None or key_ids is None:
        return None, None
    ordered = query_ids.sort().values
    query_place, key_place = (torch.searchsorted(ordered, ids) for ids in (query_ids, key_ids))
    # Place N, behind the last, is no query's: it matters not what is found there.
    found = F.pad(ordered, (0, 1))[key_place] == key_ids
    return query_place.to(dtype), key_place.where(found, -1).to(dtype)


def _left_out(
    exclude: Tensor | None,
    query_place: Tensor | None,
    key_place: Tensor | None,
    rows: slice,
    out: Tensor,
) -> bool:
    """Whether keys are left out; ``out`` (K, n) is then one where, else zero.

    A float, since masks of bool are slow on the CPU.
    """
    if exclude is not None:
        out.copy_(exclude[rows].T)
    elif query_place is not None and key_place is not None:
        out.copy_(key_place[:, None]).eq_(query_place[rows])
    else:
        return False
    return True


def _sums(score: Tensor, label: Tensor, num_classes: int, spare: Tensor) -> Tensor:
    """Of each class: its peak, its mass sum(2^(s - peak)) and sum((s - peak) 2^(s - peak)).

    Overwrites the score and ``spare``.
    """
    sums = score.new_zeros(3, num_classes + 1, score.shape[1])
    peak, mass, moment = sums
    # The maximum of the class itself, not of all keys: with a small temperature a class far from
    # the query would underflow to "no key" under theirs.
    peak.fill_(-OUT).scatter_reduce_(0, label[:, None].expand_as(score), score, 'amax')
    below = score.sub_(torch.index_select(peak, 0, label, out=spare))
    weight = torch.exp2(below, out=spare)
    mass.index_add_(0, label, weight)
    moment.index_add_(0, label, weight.mul_(below))
    return sums


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Peak and mass of two sets of keys together."""
    peak = torch.maximum(first[0], second[0])
    mass = first[1] * (first[0] - peak).exp2_() + second[1] * (second[0] - peak).exp2_()
    return torch.stack([peak, mass])


def _log_mean(sums: Tensor, size: Tensor) -> Tensor:
    """(N, C). A class without a key gets an infinite mass, so that no gradient passes it."""
    peak, mass = sums[:2]
    absent = size <= 0
    mass.masked_fill_(absent, torch.inf)
    return ((mass / size).log2_() + peak).mul_(LN2).masked_fill_(absent, -torch.inf)[:-1].T


def _per_mass(gradient: Tensor, sums: Tensor) -> Tensor:
    """(C + 1, N): zero for the spare class and where a class has no key."""
    mass = sums[1]
    return (F.pad(gradient.T, (0, 0, 0, 1)) / mass).masked_fill_(mass.isinf(), 0)
