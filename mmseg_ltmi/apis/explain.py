"""What the classes of a trained model are taken for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from prettytable import PrettyTable

from mmseg_ltmi.core.class_names import shortened
from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.evaluation import ConfusionMetric
from mmseg_ltmi.evaluation import explain as explain_confusion
from mmseg_ltmi.models.segmentors import last_head

from .config_changes import read_config
from .split_data import split_loader
from .trained_model import class_prior_of, load_model, measure


@dataclass(frozen=True)
class Explanation:
    """What became of each class's pixels.

    Attributes:
        rows: C dicts, as :func:`mmseg_ltmi.evaluation.explain` describes them.
        prior: of the classes.
        title: of the table.
    """

    rows: list[dict[str, Any]]
    prior: ClassPrior
    title: str

    @property
    def table(self) -> str:
        """A row per class, rarest first."""
        table = PrettyTable(
            ['class', 'IoU', 'predicted', 'missed', 'as', 'false', 'in truth', 'near', 'IoU away'],
            align='r',
        )
        table.align['class'] = table.align['as'] = table.align['in truth'] = 'l'
        table.title = self.title
        for c in np.argsort(self.prior.probs().numpy(), kind='stable'):
            table.add_row([_cell(value) for value in self.rows[c].values()])
        return table.get_string()


def explain(
    config: str | Path | Config,
    checkpoint: str | Path,
    split: str = 'test',
    width: int = 3,
    class_prior: Any = None,
    operating_point: str | Path | None = None,
    progress: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Explanation:
    """Find what the classes are taken for, and how much of it happens along boundaries.

    The decision is the natural one, also where the config or the checkpoint has an operating point,
    or that of ``operating_point``.

    Args:
        config: a file, or a Config.
        checkpoint: file with the weights.
        split: 'train', 'val' or 'test'.
        width: pixels on each side of a boundary that count as near.
        class_prior: as for LogitAdjustedLoss; None takes the model's, or that of a metric.
        operating_point: file of :func:`mmseg_ltmi.apis.choose`.
        progress: show a progress bar on stderr.
        options: values of the config by dotted key.

    Raises:
        OSError: a file that is not there.
        ValueError: a checkpoint of another model, no such split, no labels in it, no class prior,
            an operating point of another model.
    """
    cfg = read_config(config, options)
    model: Any = load_model(cfg, checkpoint)
    reading = 'natural reading'
    if operating_point is not None:
        model.set_operating_point(operating_point)
        reading = f'read at {operating_point}'
    loader = split_loader(cfg, split)
    prior = class_prior_of(class_prior, cfg, model, metainfo_of(loader.dataset))
    metric = ConfusionMetric(prior.num_classes, width, last_head(model).ignore_index)
    measure(model, loader, metric, f'evaluating the {split} split', progress)
    title = f'{split} split, {reading}, %, near is within {width} pixels of a boundary'
    return Explanation(explain_confusion(metric.confusion, prior.names), prior, title)


def _cell(value: str | float | dict[str, float]) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{shortened(name)} {share:.0f}' for name, share in value.items())
    if isinstance(value, str):
        return shortened(value)
    return '' if np.isnan(value) else f'{value:.1f}'
