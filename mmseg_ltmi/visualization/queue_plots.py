"""Pictures of a contrast queue: how full it is, and where its keys and the queries lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from mmseg_ltmi.core.priors import ClassPrior

from .canvas import FAINT, canvas, colours, label_of
from .class_chart import GROUP_COLOURS, class_chart, frequent_first, prior_rows

NAMED = 7
"""Rare classes with a colour and a name of their own; more could not be told apart."""


def plot_queue_use(
    use: Sequence[int],
    room: Sequence[int] | None,
    prior: ClassPrior,
    names: Sequence[str],
    path: str | Path | IO[bytes],
) -> None:
    """Keys that the queue holds of each class, and the slots that the class has.

    Args:
        use: C numbers of keys.
        room: C numbers of slots; None if the queue has no share for each class.
        prior: ranks the classes.
        names: C texts.
        path: file to write.
    """
    rows = prior_rows(prior, names)
    order = frequent_first(rows)
    with class_chart([rows[c] for c in order], path, entries=2) as axes:
        place = range(len(order))
        if room is not None:
            slots = [room[c] for c in order]
            axes.barh(place, slots, color='#dddddd', edgecolor=FAINT, lw=0.5, label='slots')
        axes.barh(
            place,
            [use[c] for c in order],
            height=0.5,
            color=[GROUP_COLOURS[rows[c]['group']] for c in order],
            label='keys in them',
        )
        axes.set_xlabel(f'keys in the queue, {sum(use)} in all')


def plot_embeddings(
    keys: Tensor,
    key_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    prior: ClassPrior,
    names: Sequence[str],
    path: str | Path | IO[bytes],
) -> None:
    """Keys (dots) and queries (crosses) on their two principal axes, coloured by class.

    The rarest classes that are there have strong colours and names, those of the tail if any is;
    the others have pale colours.

    Args:
        keys: float (K, D).
        key_labels: int64 (K,), classes.
        queries: float (N, D).
        query_labels: int64 (N,), classes.
        prior: ranks the classes.
        names: C texts.
        path: file to write.

    Raises:
        ValueError: fewer than 3 points, which span no plane.
    """
    points, share = principal_plane(torch.cat([keys, queries]))
    labels = torch.cat([key_labels, query_labels])
    is_key = torch.arange(len(labels)) < len(keys)
    groups = prior.groups()
    rare_first = [*groups.tail, *groups.medium, *groups.head]
    rare_first.sort(key=lambda c: prior.pixel_counts[c])
    there = [c for c in rare_first if (labels == c).any()]
    named = [c for c in there if c in groups.tail][:NAMED] or there[:3]
    strong = dict(zip(named, colours(len(named)), strict=True))
    pale = dict(zip(rare_first, colours(max(len(rare_first), 12)), strict=False))
    with canvas(path, 8, 6.5) as figure:
        axes = figure.subplots()
        for c in reversed(there):  # the rare ones on top
            look = dict(color=strong[c]) if c in strong else dict(color=pale[c], alpha=0.25)
            for of_keys, marker in ((True, '.'), (False, 'x')):
                x, y = points[(labels == c) & (is_key == of_keys)].T
                size = 40 if c in strong else 20
                axes.scatter(x, y, size, marker=marker, linewidths=1, **look)
        for c in named:
            axes.scatter([], [], 40, color=strong[c], label=label_of(names[c]))
            x, y = points[labels == c].median(0).values.tolist()
            axes.annotate(
                label_of(names[c], 20), (x, y), fontsize=9, ha='center', color='black',
                bbox=dict(boxstyle='round,pad=0.15', facecolor='white', edgecolor=strong[c]),
            )  # fmt: skip
        axes.scatter([], [], 20, color=FAINT, alpha=0.4, label='other classes')
        axes.scatter([], [], 40, color='black', marker='.', label='key in the queue')
        axes.scatter([], [], 40, color='black', marker='x', label='query of the last step')
        axes.set_xlabel(f'first principal axis, {100 * share[0]:.0f} % of the variance')
        axes.set_ylabel(f'second, {100 * share[1]:.0f} %')
        axes.set_aspect('equal', 'datalim')
        figure.legend(loc='outside right upper', fontsize=9)


def principal_plane(points: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Coordinates (N, 2) on the two principal axes, and the share of the variance of each.

    torch's random numbers go on as if this were not called.

    Raises:
        ValueError: fewer than 3 points, or fewer than 2 channels.
    """
    if len(points) < 3 or points.shape[1] < 2:
        raise ValueError(f'points of shape {tuple(points.shape)} span no plane')
    centred = points.float().cpu() - points.float().cpu().mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # More axes than are wanted make these exact.
        _, size, axes = torch.pca_lowrank(centred, min(8, *centred.shape), center=False)
    total = centred.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
    first, second = (size[:2].square() / total).tolist()
    return centred @ axes[:, :2], (first, second)
