"""Bar chart of a class prior."""

from __future__ import annotations

from pathlib import Path

from mmseg_ltmi.core.class_names import distinct_names
from mmseg_ltmi.core.priors import ClassPrior

from .class_chart import GROUP_COLOURS, class_chart, frequent_first, mark_unknown, prior_rows


def plot_class_prior(prior: ClassPrior, path: str | Path) -> None:
    """Share of the pixels per class on a log axis, from frequent to rare."""
    rows = prior_rows(prior, distinct_names(prior.names))
    rows = [rows[c] for c in frequent_first(rows)]
    with class_chart(rows, path) as axes:
        axes.barh(
            range(len(rows)),
            [100 * row['prior'] for row in rows],
            color=[GROUP_COLOURS[row['group']] for row in rows],
        )
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter('{x:g}')  # without powers, which are markup
        axes.xaxis.set_minor_formatter('')
        axes.set_xlabel('share of the pixels [%]')
        for i, row in enumerate(rows):
            if row['prior'] == 0:
                mark_unknown(axes, i, 'no pixel')
