"""Triton kernels of the class mixture; ``class_mixture_triton.py`` launches them.

Keys are sorted by class and cut into tiles of one class each, so that what belongs to a class is
a running maximum and sum over its tiles, as in FlashAttention (Dao et al., 2022, arXiv
2205.14135). Scores live in registers only. Programs that share the keys between them each take a
contiguous range of tiles, a *split*. Class c plus split s is then a row of its own for what split
s finds of class c, since neither falls from tile to tile.

Nothing is added atomically: results are the same in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Stands for a score that does not count: no NaN from differences, and its power of 2 is 0.
OUT = tl.constexpr(-1e30)
# Scores below it do not count. A NaN is not below it, and stays.
COUNTS = tl.constexpr(-5e29)
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)

# A size of 1 would else become a Python number, and one divisible by 16 another kernel.
launched = triton.jit(do_not_specialize=['size', 'num_classes', 'splits'])


@launched
def tile_kernel(
    order, first, key, padded, row_of, class_of, last_tile, num_classes, channels,
    TILE: tl.constexpr, CLASSES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Cut the keys into tiles: the rows of each, -1 where it is not full, its class and its keys.

    ``first`` (C + 1,) is where the classes begin in ``order``, the keys' rows sorted by class.
    ``last_tile`` (C,) becomes the number of tiles up to each class, itself included. The class of
    a tile behind the last is C or more.
    """
    tile = tl.program_id(0)
    c = tl.arange(0, CLASSES)
    known = c < num_classes
    begin = tl.load(first + c, mask=known, other=0)
    end = tl.load(first + c + 1, mask=known, other=0)
    tiles = (end - begin + TILE - 1) // TILE
    last = tl.cumsum(tiles, 0)
    if tile == 0:
        tl.store(last_tile + c, last, mask=known)
    own = tl.sum((known & (last <= tile)).to(tl.int32), 0)
    tl.store(class_of + tile, own)

    mine = known & (c == own)
    before = tl.sum(tl.where(mine, last - tiles, 0), 0)
    start = tl.sum(tl.where(mine, begin, 0), 0) + (tile - before) * TILE
    stop = tl.sum(tl.where(mine, end, 0), 0)
    i = tl.arange(0, TILE)
    filled = start + i < stop
    row = tl.load(order + start + i, mask=filled, other=-1)
    slot = tile * TILE + i
    tl.store(row_of + slot, row)
    d = tl.arange(0, CHANNELS)
    values = tl.load(
        key + row.to(tl.int64)[:, None] * channels + d[None, :],
        mask=filled[:, None] & (d < channels)[None, :],
        other=0.0,
    )
    here = padded + slot.to(tl.int64)[:, None] * CHANNELS + d[None, :]
    tl.store(here, values.to(padded.dtype.element_ty))


@triton.jit
def load_tile(padded, tile, TILE: tl.constexpr, CHANNELS: tl.constexpr):
    slot = (tile * TILE + tl.arange(0, TILE)).to(tl.int64)
    return tl.load(padded + slot[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :])


@triton.jit
def load_queries(query, n, size, channels, kind: tl.constexpr, CHANNELS: tl.constexpr):
    d = tl.arange(0, CHANNELS)
    return tl.load(
        query + n.to(tl.int64)[:, None] * channels + d[None, :],
        mask=(n < size)[:, None] & (d < channels)[None, :],
        other=0.0,
    ).to(kind)


@launched
def sums_kernel(
    query, padded, row_of, class_of, last_tile, query_id, key_id, partial,
    size, channels, num_classes, splits,
    IDS: tl.constexpr, OWN: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    QUERIES: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What each split finds of each class, for a block of queries, into ``partial``.

    Its planes (C + splits, N) are: peak, mass and moment of the keys that are kept; peak, mass and
    number of a query's own keys.
    """
    split = tl.program_id(1)
    n = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    inside = n < size
    q = load_queries(query, n, size, channels, padded.dtype.element_ty, CHANNELS)
    if IDS:
        of_query = tl.load(query_id + n, mask=inside, other=0)
        lowest = tl.min(of_query, 0)
        highest = tl.max(of_query, 0)
    total = tl.load(last_tile + num_classes - 1)
    each = tl.cdiv(total, splits)
    peak = tl.full([QUERIES], OUT, ACC)
    mass = tl.zeros([QUERIES], ACC)
    moment = tl.zeros([QUERIES], ACC)
    own_peak = tl.full([QUERIES], OUT, ACC)
    own_mass = tl.zeros([QUERIES], ACC)
    own_number = tl.zeros([QUERIES], ACC)
    plane = (num_classes + splits).to(tl.int64) * size
    of_class = -1
    for tile in range(split * each, tl.minimum((split + 1) * each, total)):
        now = tl.load(class_of + tile)
        k = load_tile(padded, tile, TILE, CHANNELS)
        row = tl.load(row_of + tile * TILE + tl.arange(0, TILE))
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=ACC) * LOG2E
        score = tl.where((row >= 0)[None, :], score, OUT)
        begins = now != of_class
        of_class = now
        peak = tl.where(begins, OUT, peak)
        mass = tl.where(begins, 0.0, mass)
        moment = tl.where(begins, 0.0, moment)
        if IDS:
            own_peak = tl.where(begins, OUT, own_peak)
            own_mass = tl.where(begins, 0.0, own_mass)
            own_number = tl.where(begins, 0.0, own_number)
            of_key = tl.load(key_id + row, mask=row >= 0, other=0)
            near = (row >= 0) & (of_key >= lowest) & (of_key <= highest)
            if tl.max(near.to(tl.int32), 0) > 0:  # most of a queue is of earlier steps
                own = (of_key[None, :] == of_query[:, None]) & (row >= 0)[None, :]
                own_number += tl.sum(tl.where(own, 1.0, 0.0), 1)
                if OWN:
                    owned = tl.where(own, score, OUT)
                    own_top = tl.maximum(own_peak, tl.max(owned, 1))
                    own_weight = tl.where(own, tl.exp2(owned - own_top[:, None]), 0.0)
                    own_mass = own_mass * tl.exp2(own_peak - own_top) + tl.sum(own_weight, 1)
                    own_peak = own_top
                score = tl.where(own, OUT, score)
        top = tl.maximum(peak, tl.max(score, 1))
        below = score - top[:, None]
        weight = tl.where(score <= COUNTS, 0.0, tl.exp2(below))
        moment = (moment + (peak - top) * mass) * tl.exp2(peak - top)
        moment += tl.sum(weight * below, 1)
        mass = mass * tl.exp2(peak - top) + tl.sum(weight, 1)
        peak = top
        # Stored after every tile, over what was stored before: that needs no branch.
        here = partial + (now + split).to(tl.int64) * size + n
        tl.store(here, peak, mask=inside)
        tl.store(here + plane, mass, mask=inside)
        tl.store(here + 2 * plane, moment, mask=inside)
        if IDS:
            tl.store(here + 3 * plane, own_peak, mask=inside)
            tl.store(here + 4 * plane, own_mass, mask=inside)
            tl.store(here + 5 * plane, own_number, mask=inside)


@launched
def join_kernel(
    partial, first, last_tile, result, size, num_classes, splits,
    IDS: tl.constexpr, OWN: tl.constexpr, ACC: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Join the splits of a class.

    The planes (C, N) of ``result``: log-mean without own keys, mean score, log to base 2 of the
    mass, ``inf`` where a class has no key; and log-mean and log of the mass of all keys.
    """
    c = tl.program_id(1)
    n = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    inside = n < size
    number = (tl.load(first + c + 1) - tl.load(first + c)).to(ACC)
    begin = tl.load(last_tile + c - 1, mask=c > 0, other=0)
    end = tl.load(last_tile + c)
    each = tl.maximum(tl.cdiv(tl.load(last_tile + num_classes - 1), splits), 1)
    stop = tl.where(end > begin, (end - 1) // each + 1, begin // each)
    peak = tl.full([QUERIES], OUT, ACC)
    mass = tl.zeros([QUERIES], ACC)
    moment = tl.zeros([QUERIES], ACC)
    own_peak = tl.full([QUERIES], OUT, ACC)
    own_mass = tl.zeros([QUERIES], ACC)
    own_number = tl.zeros([QUERIES], ACC)
    plane = (num_classes + splits).to(tl.int64) * size
    for split in range(begin // each, stop):
        here = partial + (c + split).to(tl.int64) * size + n
        peak_here = tl.load(here, mask=inside, other=OUT)
        mass_here = tl.load(here + plane, mask=inside, other=0.0)
        moment_here = tl.load(here + 2 * plane, mask=inside, other=0.0)
        top = tl.maximum(peak, peak_here)
        moment = (moment + (peak - top) * mass) * tl.exp2(peak - top)
        moment += (moment_here + (peak_here - top) * mass_here) * tl.exp2(peak_here - top)
        mass = mass * tl.exp2(peak - top) + mass_here * tl.exp2(peak_here - top)
        peak = top
        if IDS:
            own_number += tl.load(here + 5 * plane, mask=inside, other=0.0)
            if OWN:
                peak_here = tl.load(here + 3 * plane, mask=inside, other=OUT)
                mass_here = tl.load(here + 4 * plane, mask=inside, other=0.0)
                top = tl.maximum(own_peak, peak_here)
                own_mass = own_mass * tl.exp2(own_peak - top) + mass_here * tl.exp2(peak_here - top)
                own_peak = top

    place = result + c.to(tl.int64) * size + n
    plane = num_classes.to(tl.int64) * size
    kept = number - own_number
    absent = kept <= 0
    log_mass = tl.where(absent, float('inf'), peak + tl.log2(mass))
    log_mean = tl.where(absent, float('-inf'), (peak + tl.log2(mass / kept)) * LN2)
    tl.store(place, log_mean, mask=inside)
    tl.store(place + plane, tl.where(absent, 0.0, (peak + moment / mass) * LN2), mask=inside)
    tl.store(place + 2 * plane, log_mass, mask=inside)
    if OWN:
        top = tl.maximum(peak, own_peak)
        mass = mass * tl.exp2(peak - top) + own_mass * tl.exp2(own_peak - top)
        log_mass = tl.where(number <= 0, float('inf'), top + tl.log2(mass))
        log_mean = tl.where(number <= 0, float('-inf'), (top + tl.log2(mass / number)) * LN2)
        tl.store(place + 3 * plane, log_mean, mask=inside)
        tl.store(place + 4 * plane, log_mass, mask=inside)


@triton.jit
def by_score(
    score, filled, own, all_log, all_gradient, kept_log, kept_gradient,
    IDS: tl.constexpr, ALL: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """The gradient by the scores of a tile; the logs and gradients are broadcast to it."""
    gradient = tl.zeros_like(score)
    if ALL:
        gradient += tl.exp2(score - all_log) * all_gradient
    if KEPT:
        weight = tl.exp2(score - kept_log) * kept_gradient
        if IDS:
            weight = tl.where(own, 0.0, weight)
        gradient += weight
    return tl.where(filled, gradient, 0.0)


@triton.jit
def load_class(
    of_class, n, inside, size, result, all_gradient, kept_gradient,
    all_c, all_n, kept_c, kept_n, plane, ALL: tl.constexpr, KEPT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A class's log masses and the gradients of its log-likelihoods, for a block of queries."""
    log_all = tl.zeros_like(n).to(ACC)
    log_kept = log_all
    by_all = log_all
    by_kept = log_all
    c = of_class.to(tl.int64)
    if ALL:
        log_all = tl.load(result + 4 * plane + c * size + n, mask=inside, other=0.0)
        by_all = tl.load(all_gradient + c * all_c + n * all_n, mask=inside, other=0.0)
    if KEPT:
        log_kept = tl.load(result + 2 * plane + c * size + n, mask=inside, other=0.0)
        by_kept = tl.load(kept_gradient + c * kept_c + n * kept_n, mask=inside, other=0.0)
    return log_all, by_all, log_kept, by_kept


@launched
def query_kernel(
    query, padded, row_of, class_of, last_tile, query_id, key_id, result,
    all_gradient, kept_gradient, partial,
    size, channels, num_classes, splits, all_c, all_n, kept_c, kept_n,
    IDS: tl.constexpr, ALL: tl.constexpr, KEPT: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
    QUERIES: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A split's part of the gradient by a block of queries, into ``partial`` (splits, N, D)."""
    split = tl.program_id(1)
    n = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    inside = n < size
    q = load_queries(query, n, size, channels, padded.dtype.element_ty, CHANNELS)
    of_query = tl.zeros_like(n)
    if IDS:
        of_query = tl.load(query_id + n, mask=inside, other=0)
    total = tl.load(last_tile + num_classes - 1)
    each = tl.cdiv(total, splits)
    plane = num_classes.to(tl.int64) * size
    gradient = tl.zeros([QUERIES, CHANNELS], ACC)
    for tile in range(split * each, tl.minimum((split + 1) * each, total)):
        now = tl.load(class_of + tile)
        k = load_tile(padded, tile, TILE, CHANNELS)
        row = tl.load(row_of + tile * TILE + tl.arange(0, TILE))
        log_all, by_all, log_kept, by_kept = load_class(
            now, n, inside, size, result, all_gradient, kept_gradient,
            all_c, all_n, kept_c, kept_n, plane, ALL, KEPT, ACC,
        )  # fmt: skip
        own = (row == row)[None, :]
        if IDS:
            own = tl.load(key_id + row, mask=row >= 0, other=0)[None, :] == of_query[:, None]
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=ACC) * LOG2E
        weight = by_score(
            score, (row >= 0)[None, :], own, log_all[:, None], by_all[:, None],
            log_kept[:, None], by_kept[:, None], IDS, ALL, KEPT,
        )  # fmt: skip
        gradient = tl.dot(weight.to(k.dtype), k, gradient, input_precision=PRECISION, out_dtype=ACC)
    d = tl.arange(0, CHANNELS)
    here = partial + (split.to(tl.int64) * size + n)[:, None] * channels + d[None, :]
    tl.store(here, gradient, mask=inside[:, None] & (d < channels)[None, :])


@launched
def key_kernel(
    query, padded, row_of, class_of, last_tile, query_id, key_id, result,
    all_gradient, kept_gradient, of_keys,
    size, channels, num_classes, all_c, all_n, kept_c, kept_n,
    IDS: tl.constexpr, ALL: tl.constexpr, KEPT: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
    QUERIES: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradient by the keys of a tile, into their rows of ``of_keys`` (K, D)."""
    tile = tl.program_id(0)
    # A tile behind the last has no class and no keys.
    stop = tl.where(tile < tl.load(last_tile + num_classes - 1), size, 0)
    now = tl.load(class_of + tile)
    k = load_tile(padded, tile, TILE, CHANNELS)
    row = tl.load(row_of + tile * TILE + tl.arange(0, TILE))
    of_key = row
    if IDS:
        of_key = tl.load(key_id + row, mask=row >= 0, other=0)
    plane = num_classes.to(tl.int64) * size
    gradient = tl.zeros([TILE, CHANNELS], ACC)
    for start in range(0, stop, QUERIES):
        n = start + tl.arange(0, QUERIES)
        inside = n < size
        q = load_queries(query, n, size, channels, padded.dtype.element_ty, CHANNELS)
        log_all, by_all, log_kept, by_kept = load_class(
            now, n, inside, size, result, all_gradient, kept_gradient,
            all_c, all_n, kept_c, kept_n, plane, ALL, KEPT, ACC,
        )  # fmt: skip
        own = inside[None, :]
        if IDS:
            of_query = tl.load(query_id + n, mask=inside, other=0)
            own = of_key[:, None] == of_query[None, :]
        score = tl.dot(k, tl.trans(q), input_precision=PRECISION, out_dtype=ACC) * LOG2E
        weight = by_score(
            score, (row >= 0)[:, None] & inside[None, :], own, log_all[None, :], by_all[None, :],
            log_kept[None, :], by_kept[None, :], IDS, ALL, KEPT,
        )  # fmt: skip
        gradient = tl.dot(weight.to(k.dtype), q, gradient, input_precision=PRECISION, out_dtype=ACC)
    d = tl.arange(0, CHANNELS)
    here = of_keys + row.to(tl.int64)[:, None] * channels + d[None, :]
    tl.store(here, gradient, mask=(row >= 0)[:, None] & (d < channels)[None, :])
