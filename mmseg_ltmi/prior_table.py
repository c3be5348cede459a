"""A class prior as people read it: a table, and a word on classes that nothing was counted of."""

from __future__ import annotations

import numpy as np
from prettytable import PrettyTable

from mmseg_ltmi.core.class_names import distinct_names, shortened
from mmseg_ltmi.core.priors import ClassPrior

SHOWN = 20


def class_table(prior: ClassPrior) -> str:
    """A row per class, from frequent to rare."""
    table = PrettyTable(['class', 'pixels', '%', 'images', 'group'], align='r')
    table.align['class'] = 'l'
    probs, names = prior.probs(0), [shortened(name) for name in distinct_names(prior.names)]
    for group, members in prior.groups()._asdict().items():
        for c in members:
            images = '-' if prior.image_counts is None else prior.image_counts[c]
            share = f'{100 * probs[c]:.4f}'
            table.add_row([names[c], f'{prior.pixel_counts[c]:,}', share, images, group])
    return f'{table}\n{prior.num_images} images, {prior.num_ignored:,} pixels ignored'


def in_one_line(prior: ClassPrior) -> str:
    """Where a prior comes from, how many classes it has, and the rarest of them."""
    share, rarest = prior.probs(0).min(0)
    return (
        f'class prior: {prior.source or "numbers"}, {prior.num_classes} classes, the rarest is '
        f'{shortened(prior.names[rarest])} with {100 * share:.4f} % of the pixels'
    )


def absent_classes(prior: ClassPrior) -> str:
    """What to do about the classes of a counted prior that have no pixel; '' if all have some."""
    absent = [prior.names[c] for c in np.flatnonzero(np.asarray(prior.pixel_counts) == 0)]
    if not absent:
        return ''
    more = f' and {len(absent) - SHOWN} more' if len(absent) > SHOWN else ''
    text = (
        f'{len(absent)} of the {prior.num_classes} classes have no pixel and cannot be learned: '
        f'{", ".join(absent[:SHOWN])}{more}. If they should have some, check that the order of '
        'classes in metainfo is that of the indices in the label files, and reduce_zero_label'
    )
    if prior.num_ignored:
        share = 100 * prior.num_ignored / (prior.num_ignored + float(np.sum(prior.pixel_counts)))
        text += (
            f'. {share:.1f} % of all pixels have the label that is ignored: if it stands for a '
            'class, as in masks of 0 and 255, convert them with mmseg-ltmi convert-labels'
        )
    return text
