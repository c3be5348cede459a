"""Bar chart of a class prior."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmseg_ltmi.core.priors import ClassPrior

GROUP_COLOURS = {'head': '#0072B2', 'medium': '#E69F00', 'tail': '#D55E00'}  # Okabe and Ito
MAX_LABELS = 60


def plot_class_prior(prior: ClassPrior, path: str | Path) -> None:
    """Share of the pixels per class on a log axis, from frequent to rare, as PNG."""
    size = min(max(6.0, 0.3 * prior.num_classes), 16.0)
    figure = Figure(figsize=(size, 4), layout='constrained')
    axes = figure.subplots()
    percent = 100 * prior.probs(0).numpy()
    order: list[int] = []
    for group, members in prior.groups()._asdict().items():
        if not members:
            continue  # two classes have no medium one
        place = np.arange(len(order), len(order) + len(members))
        axes.bar(place, percent[list(members)], color=GROUP_COLOURS[group], label=group)
        order += members
    axes.set_yscale('log')
    axes.set_ylabel('share of pixels [%]')
    axes.set_xlim(-0.8, prior.num_classes - 0.2)
    if prior.num_classes <= MAX_LABELS:
        axes.set_xticks(range(len(order)), [prior.names[c] for c in order], rotation=60, ha='right')
    else:
        axes.set_xlabel('classes from frequent to rare')
    axes.legend()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
