"""The mixture log-likelihood of every class: by Triton kernels on a GPU, else by torch alone."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..training_step import is_compiling
from .class_mixture_torch import Term, torch_class_mixture, torch_gradients

# The most channels that the kernels take: they hold a row of a gradient as a whole.
MAX_CHANNELS = 256
# What LTMI_TRITON may be in the environment.
SWITCHES = ('0', 'bf16', 'tf32', 'tf32x3', 'interpret')


class ClassMixture(NamedTuple):
    """Log-likelihoods (N, C), ``-inf`` where a class has no key that counts.

    Attributes:
        everything: of all keys.
        held_out: without the keys that are left out; the same tensor if none are named.
        expected: (N, C) without graph, the mean score under the weights of ``held_out``, which is
            minus its derivative by log T; zero where a class has no key.
    """

    everything: Tensor
    held_out: Tensor
    expected: Tensor


def class_mixture(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    *,
    exclude: Tensor | None = None,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    only_held_out: bool = False,
) -> ClassMixture:
    """Log of the mean of ``exp(q.k)`` over the keys of each class, of all and of those kept.

    Args:
        query: q / T, float32 or float64.
        key: of the same dtype.
        key_labels: class of each key, int64; a label outside 0..num_classes-1 takes no part.
        num_classes: C.
        exclude: bool; True leaves a key out for a query.
        query_ids: identity of each query, int64; with ``key_ids``, and instead of ``exclude``,
            keys of the same identity are left out for a query.
        key_ids: identity of each key, int64.
        only_held_out: spare the sums over all keys; ``everything`` is then ``held_out``.

    Shape:
        query (N, D), key (K, D), key_labels (K,), exclude (N, K), ids (N,) and (K,).

    Raises:
        ValueError: only one of the two ids is given.
    """
    if (query_ids is None) != (key_ids is None):
        raise ValueError('query_ids and key_ids go together: give both or neither')
    names, found = (query_ids, key_ids), None
    if exclude is None and takes_kernels(query, key, num_classes):
        try:
            found = _KernelMixture.apply(query, key, key_labels, num_classes, only_held_out, *names)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            _give_up(error)
    if found is None:
        found = torch_class_mixture(
            query, key, key_labels, num_classes, only_held_out, exclude, *names
        )
    everything, held_out, expected = found
    return ClassMixture(held_out if everything is None else everything, held_out, expected)


def takes_kernels(query: Tensor, key: Tensor, num_classes: int) -> bool:
    """Whether Triton kernels compute the mixture, unless keys are excluded by a matrix.

    LTMI_TRITON in the environment is 0 for never; bf16, tf32 (the default) or tf32x3 for what the
    products are computed in; or interpret for tf32, and on the CPU too, by Triton's interpreter
    (TRITON_INTERPRET=1), for tests.

    Raises:
        ValueError: LTMI_TRITON is something else.
    """
    if is_compiling():
        return False
    wanted = os.environ.get('LTMI_TRITON', 'tf32')
    if wanted not in SWITCHES:
        raise ValueError(f'LTMI_TRITON is {wanted!r} in the environment: use {", ".join(SWITCHES)}')
    if wanted == '0' or not (query.is_cuda or wanted == 'interpret'):
        return False
    if _failed or not _has_triton():
        return False
    if not (query.numel() and key.numel() and num_classes and query.shape[1] <= MAX_CHANNELS):
        return False
    if query.is_cuda:
        return query.dtype == torch.float32 and _device_takes_kernels(query.device)
    return True


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec('triton') is not None


@functools.cache
def _device_takes_kernels(device: torch.device) -> bool:
    # TF32 came with Ampere.
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


# Why the kernels were given up, for the rest of the process.
_failed: list[Exception] = []


def _give_up(error: Exception) -> None:
    _failed.append(error)
    warnings.warn(
        'Triton cannot compile or launch the kernels of the contrastive term, so torch computes '
        'it, with more launches and memory. LTMI_TRITON=0 in the environment leaves them out '
        f'without this warning. {type(error).__name__}: {error}',
        stacklevel=2,
    )


class _KernelMixture(torch.autograd.Function):
    """The kernels and, should those of the backward pass fail, torch's gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        key_labels: Tensor,
        num_classes: int,
        only_held_out: bool,
        query_ids: Tensor | None,
        key_ids: Tensor | None,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        query, key, key_labels = query.contiguous(), key.contiguous(), key_labels.contiguous()
        if query_ids is not None and key_ids is not None:
            query_ids, key_ids = query_ids.contiguous(), key_ids.contiguous()
        ids = None if query_ids is None or key_ids is None else (query_ids, key_ids)
        kernels = importlib.import_module('.class_mixture_triton', __package__)
        with torch.cuda.device_of(query):
            tiles, result = kernels.mixture(query, key, key_labels, num_classes, only_held_out, ids)
        ctx.num_classes = num_classes
        ctx.save_for_backward(query, key, key_labels, query_ids, key_ids, result, *tiles)
        held_out, expected, _, everything, _ = result.mT
        ctx.mark_non_differentiable(expected)
        ctx.set_materialize_grads(False)
        return (None if only_held_out or ids is None else everything), held_out, expected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_everything: Tensor | None, of_held_out: Tensor | None, _: Any) -> Any:
        query, key, key_labels, query_ids, key_ids, result, *tiles = ctx.saved_tensors
        ids = None if query_ids is None else (query_ids, key_ids)
        needed = ctx.needs_input_grad[:2]
        try:
            if _failed:
                raise _failed[0]
            kernels = importlib.import_module('.class_mixture_triton', __package__)
            with torch.cuda.device_of(query):
                gradients = kernels.gradients(
                    query, key, ids, tiles, result, of_everything, of_held_out, needed
                )
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            if not _failed:
                _give_up(error)
            gradients = torch_gradients(
                query, key, key_labels, ctx.num_classes, query_ids, key_ids,
                (
                    Term(_as_sums(result[4]), of_everything, False),
                    Term(_as_sums(result[2]), of_held_out, True),
                ),
                needed,
            )  # fmt: skip
        return *gradients, *[None] * 5


def _as_sums(log_mass: Tensor) -> Tensor:
    """Peak and mass (2, C + 1, N): the log as the peak of a mass of one, infinite for no key."""
    log_mass = F.pad(log_mass, (0, 0, 0, 1), value=torch.inf)
    mass = torch.ones_like(log_mass).masked_fill_(log_mass.isposinf(), torch.inf)
    return torch.stack([log_mass.masked_fill(log_mass.isposinf(), 0), mass])
