"""Launches the kernels of the class mixture. It needs Triton: import it where that is wanted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from . import class_mixture_kernels as kernels

Ids = tuple[Tensor, Tensor] | None


class Blocks(NamedTuple):
    """Queries and keys of a tile, warps and pipeline stages of a program."""

    queries: int
    keys: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """The keys in tiles of one class each, as ``tile_kernel`` cuts them."""

    padded: Tensor
    row_of: Tensor
    class_of: Tensor
    first: Tensor
    last_tile: Tensor


def precision() -> str:
    """Of the products: LTMI_TRITON, or TF32; tf32x3 is three of TF32, nearly a float32."""
    wanted = os.environ.get('LTMI_TRITON', '')
    return wanted if wanted in ('bf16', 'tf32x3') else 'tf32'


def choose_blocks(query: Tensor, num_keys: int, num_classes: int) -> Blocks:
    """Tiles no larger than a class needs; the registers and shared memory they take were counted.

    They are those of the kernels as Triton 3.6 compiles them for compute capabilities 8.0 to 9.0.
    """
    row = _width(query.shape[1]) * (2 if precision() == 'bf16' else 4)
    # Tiles of 64 by 64; the compiler keeps another copy for bfloat16, and on Blackwell.
    needed = (256 if precision() == 'bf16' or _is_blackwell(query) else 192) * row + 2048
    is_large = precision() != 'tf32x3' and needed <= _shared_memory(query)
    largest = 64 if is_large else 32
    of_class = triton.next_power_of_2(max(num_keys // num_classes, 16))
    return Blocks(largest, min(of_class, largest), warps=8, stages=2)


def mixture(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    only_held_out: bool,
    ids: Ids,
) -> tuple[Tiles, Tensor]:
    """The tiles, and the planes (5, C, N) that ``join_kernel`` describes. All is contiguous."""
    blocks = choose_blocks(query, len(key), num_classes)
    tiles = cut(key, key_labels, num_classes, blocks.keys)
    size, channels = query.shape
    splits = _splits(query, tiles, blocks)
    options = dict(IDS=ids is not None, OWN=ids is not None and not only_held_out)
    partial = query.new_empty(3 if ids is None else 6, num_classes + splits, size)
    result = query.new_empty(5, num_classes, size)
    programs = triton.cdiv(size, blocks.queries)
    kernels.sums_kernel[programs, splits](
        query, tiles.padded, tiles.row_of, tiles.class_of, tiles.last_tile, *(ids or (None, None)),
        partial, size, channels, num_classes, splits, **options, **_constants(tiles, blocks),
    )  # fmt: skip
    kernels.join_kernel[programs, num_classes](
        partial, tiles.first, tiles.last_tile, result, size, num_classes, splits,
        **options, ACC=_sum_type(query), QUERIES=blocks.queries,
    )  # fmt: skip
    return tiles, result


def gradients(
    query: Tensor,
    key: Tensor,
    ids: Ids,
    tiles: Sequence[Tensor],
    result: Tensor,
    of_everything: Tensor | None,
    of_held_out: Tensor | None,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by query and key from those by the log-likelihoods (N, C)."""
    cuts = Tiles(*tiles)
    size, channels = query.shape
    num_classes = result.shape[1]
    blocks = choose_blocks(query, len(key), num_classes)
    blocks = blocks._replace(keys=len(cuts.row_of) // len(cuts.class_of))  # as they were cut
    splits = _splits(query, cuts, blocks)
    by_all = result if of_everything is None else of_everything.T  # else it is not read
    by_kept = result if of_held_out is None else of_held_out.T
    inputs = (
        query, cuts.padded, cuts.row_of, cuts.class_of, cuts.last_tile, *(ids or (None, None)),
        result, by_all, by_kept,
    )  # fmt: skip
    strides = (*by_all.stride()[-2:], *by_kept.stride()[-2:])
    constants = _constants(cuts, blocks)
    constants.update(
        IDS=ids is not None, ALL=of_everything is not None, KEPT=of_held_out is not None
    )
    of_query = of_key = None
    if needed[0]:
        partial = query.new_empty(splits, size, channels)
        kernels.query_kernel[triton.cdiv(size, blocks.queries), splits](
            *inputs, partial, size, channels, num_classes, splits, *strides, **constants
        )
        of_query = partial.sum(0)
    if needed[1]:
        of_key = torch.zeros_like(key)
        kernels.key_kernel[len(cuts.class_of),](
            *inputs, of_key, size, channels, num_classes, *strides, **constants
        )
    return of_query, of_key


def cut(key: Tensor, key_labels: Tensor, num_classes: int, size: int) -> Tiles:
    """Sort the keys by class and cut them into tiles of ``size`` rows."""
    ordered, order = key_labels.sort(stable=True)
    classes = torch.arange(num_classes + 1, device=key.device)
    # Labels that are no class are before the first and behind the last.
    first = torch.searchsorted(ordered, classes, out_int32=True)
    most = len(key) // size + num_classes  # tiles that there can be, each class's last one half
    channels = _width(key.shape[1])
    kind = torch.bfloat16 if precision() == 'bf16' else key.dtype
    tiles = Tiles(
        padded=key.new_empty(most * size, channels, dtype=kind),
        row_of=first.new_empty(most * size),
        class_of=first.new_empty(most),
        first=first,
        last_tile=first.new_empty(num_classes),
    )
    kernels.tile_kernel[most,](
        order, first, key, tiles.padded, tiles.row_of, tiles.class_of, tiles.last_tile,
        num_classes, key.shape[1],
        TILE=size, CLASSES=triton.next_power_of_2(num_classes), CHANNELS=channels,
    )  # fmt: skip
    return tiles


def _width(channels: int) -> int:
    return max(triton.next_power_of_2(channels), 16)


def _is_blackwell(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) >= (10, 0)


def _shared_memory(tensor: Tensor) -> int:
    """Bytes that a program may use."""
    if not tensor.is_cuda:
        return 2**20  # in Triton's interpreter
    device = torch.cuda.get_device_properties(tensor.device)
    return getattr(device, 'shared_memory_per_block_optin', 101376)  # at least so since Ampere


def _splits(query: Tensor, tiles: Tiles, blocks: Blocks) -> int:
    """Programs that share the keys between them, so that the device has enough of them."""
    wanted = 3  # in Triton's interpreter
    if query.is_cuda:
        wanted = 4 * torch.cuda.get_device_properties(query.device).multi_processor_count
    return min(max(wanted // triton.cdiv(len(query), blocks.queries), 1), len(tiles.class_of))


def _constants(tiles: Tiles, blocks: Blocks) -> dict[str, Any]:
    return dict(
        PRECISION='tf32' if tiles.padded.dtype == torch.bfloat16 else precision(),
        ACC=_sum_type(tiles.padded),
        QUERIES=blocks.queries,
        TILE=blocks.keys,
        CHANNELS=tiles.padded.shape[1],
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )


def _sum_type(values: Tensor) -> Any:
    return kernels.tl.float64 if values.dtype == torch.float64 else kernels.tl.float32
