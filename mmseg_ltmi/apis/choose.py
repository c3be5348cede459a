"""Chooses how a trained model's posterior is read: natural argmax, a tau_test, or the IoU rule."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.structures import PixelData

from mmseg_ltmi.core.posterior import ClassMemory, OperatingPoint, ScoreReader
from mmseg_ltmi.core.priors.dataset_wrappers import metainfo_of
from mmseg_ltmi.core.progress import progress_bar
from mmseg_ltmi.evaluation import (
    OperatingPointMetric,
    RankSEGRule,
    choosing,
    class_rows,
)
from mmseg_ltmi.evaluation.operating_point_metric import MEMORY_WEIGHTS
from mmseg_ltmi.models.segmentors import (
    last_head,
    network_fingerprint,
    reader_prefix,
)
from mmseg_ltmi.readings import AUTO, CHOICES, WITH_MEMORY

from .choice import RANKSEG, Choice
from .config_changes import read_config
from .split_data import check_splits, split_loader
from .split_overlap import FOLDS, default_folds, images_in
from .trained_model import class_prior_of, load_memory, load_model, measure


def choose(
    config: str | Path | Config,
    checkpoint: str | Path,
    select: str = 'val',
    report: str = 'test',
    folds: int | None = None,
    choice: str = AUTO,
    rankseg: bool = False,
    class_prior: Any = None,
    max_values: int = 2**25,
    memory: ClassMemory | str | Path | None = None,
    progress: bool = False,
    options: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Choice:
    """Measure a trained model at several operating points, and choose one.

    21 values of ``tau_test`` and the IoU rule are measured in one pass over the split that chooses,
    and all of them in one pass over the split that judges. With a memory so are 5 weights of it
    beside the classifier, each with 21 values of ``tau_test`` and the best with the IoU rule.

    Args:
        config: a file, or a Config.
        checkpoint: file with the weights.
        select: split that chooses, 'train', 'val' or 'test'.
        report: split that judges.
        folds: choose on all but one of this many blocks of the ``report`` split and measure on the
            other, in turn. 1 (or 0) takes two splits as they are. None cross-fits in 5 blocks where
            both splits have the same images, as in a data set without labels for testing.
        choice: the candidate that is chosen, one of CHOICES; all are measured. 'auto' takes the one
            whose mIoU, cross-fitted on the split that chooses, gains most over the natural argmax,
            both as the classes are there and at the frequencies of the class prior.
        rankseg: measure the peer RankSEG too, of the package rankseg.
        class_prior: as for LogitAdjustedLoss; None takes the model's, or that of a metric.
        max_values: posteriors that are kept for the fit of the IoU rule, pixels times classes.
        memory: of :func:`make_memory`, or its file.
        progress: show progress bars on stderr.
        options: values of the config by dotted key.
        warn: is told where the two splits have images in common, with each other or with the
            memory, and where the classes of the split that chooses are not as frequent as in the
            class prior.

    Raises:
        OSError: a file that is not there.
        ImportError: ``rankseg`` without the package.
        ValueError: an argument out of range, a checkpoint or a memory of another model, no such
            split, no labels in it, no class prior.

    Examples:
        >>> found = choose('config.py', 'iter_20000.pth')
        >>> print(found.table)
        >>> found.save('operating_point')
    """
    _check_arguments(folds, choice, max_values, memory)
    peers = {RANKSEG: RankSEGRule()} if rankseg else {}
    cfg = read_config(config, options)
    if folds is not None and folds > 1:
        select = report
    check_splits(cfg, select, report)
    model: Any = load_model(cfg, checkpoint)
    memory_file = Path(memory) if isinstance(memory, (str, Path)) else None
    if memory is not None:
        memory = load_memory(model, memory)
    loaders = {split: split_loader(cfg, split) for split in {select: None, report: None}}
    if memory is not None and (warning := images_in(memory, loaders)):
        warn(warning)
    if folds is None or folds < 2:
        folds, warning = default_folds(folds, loaders, select, report)
        if warning:
            warn(warning)
    how_chosen = f'chosen on {select}'
    same = '' if select == report else f', as {select} has the same images'
    if folds:
        select = report

    weights = () if memory is None else MEMORY_WEIGHTS

    def evaluate(split: str, **how: Any) -> OperatingPointMetric:
        dataset: Any = loaders[split].dataset
        prior = class_prior_of(class_prior, cfg, model, metainfo_of(dataset))
        index = last_head(model).ignore_index
        metric = OperatingPointMetric(prior, len(dataset), ignore_index=index, **how)
        predict = None if memory is None else partial(_predict_with_memory, model, memory)
        measure(model, loaders[split], metric, f'evaluating the {split} split', progress, predict)
        return metric

    crossed = folds or 1
    if choice == AUTO and not folds:
        crossed = min(FOLDS, len(loaders[select].dataset))  # type: ignore[arg-type]
    selection = evaluate(
        select,
        folds=crossed,
        max_values=max_values,
        memory_weights=weights,
        rules=peers if folds else {},
    )
    prior, judged, crossed = selection.prior, None, selection.folds
    if folds:
        if crossed < 2:
            raise ValueError(
                f'fewer than two images of the {select} split have labels, and cross-fitting takes '
                'two: choose and report on two splits'
            )
        folds, how_chosen = crossed, f'cross-fitted in {crossed} folds{same}'
    choosing.check_choice(choice, _curve(selection), select)
    shift = choosing.frequency_shift(selection.image_labels, prior)
    if not shift.drawn_alike:
        warn(_shift_warning(shift, selection, select))
    of_folds: list[dict[str, OperatingPoint]] = []
    fits = 1 + (memory is not None) + (crossed if crossed > 1 else 0)
    with progress_bar(fits if progress else None, 'fitting the IoU rule') as advance:
        points = choosing.candidates(selection, advance)
        if crossed > 1:
            of_folds = choosing.candidates_of_folds(selection, advance)
    estimates = choosing.estimates(selection, of_folds) if choice == AUTO and of_folds else {}
    if choice == AUTO:
        choice = choosing.best_estimate(estimates)
    if folds:
        areas = choosing.cross_fitted(selection, of_folds)
    else:
        # Only what was chosen: the grid of all weights and taus takes three times as long.
        rules = {n: p for n, p in points.items() if p.rule == 'iou' or p.memory_weight}
        judged = evaluate(report, rules={**rules, **peers}, max_values=0)
        areas = choosing.measured(points, judged)
    values = {name: choosing.summary_of(of, prior) for name, of in areas.items()}
    if judged is not None:
        for name, value in choosing.measured_per_image(points, judged).items():
            values[name]['image_mIoU'] = round(value, 2)
    sample = selection.sample(lambda fold: True)
    how = dict(select=select, report=report, folds=folds, max_values=max_values)
    point = replace(
        points[choice],
        weights=network_fingerprint(model),
        report={
            'checkpoint': Path(checkpoint).name,
            **how,
            'choice': choice,
            'estimates': estimates,
            'taus': selection.taus,
            'values': values,
        },
    )
    rows = {name: class_rows(of, prior.names, prior) for name, of in areas.items()}
    for of_point in rows.values():  # those of a sample have an estimate of the images' labels
        for row, exact in zip(of_point, rows['natural'], strict=True):
            row['pixels'] = exact['pixels']
    return Choice(
        point,
        points,
        values,
        rows=rows,
        taus=selection.taus,
        select_curve=_curve(selection),
        report_curve=None if judged is None else _curve(judged),
        title=f'{report} split, {how_chosen}',
        reader=_reader_at(point, model, memory),
        memory=memory,
        memory_file=memory_file,
        reader_prefix=reader_prefix(model),
        name=choice,
        estimates=estimates,
        calibration={
            name: sample.calibration(points[name].memory_weight)
            for name in ('natural', WITH_MEMORY[0])
            if name in points
        },
    )


def _shift_warning(
    shift: choosing.FrequencyShift, selection: OperatingPointMetric, split: str
) -> str:
    prior, labelled = selection.prior, selection.image_labels.sum(0)
    shares = 100 * labelled[shift.most] / labelled.sum(), 100 * prior.probs(0)[shift.most]
    return (
        f'the classes of the {split} split are not as frequent as in the class prior: '
        f'{shift.share:.0%} of its pixels are of other classes, by chance it would be '
        f'{shift.by_chance:.0%} ({prior.names[shift.most]}: {shares[0]:.1f} % of the pixels, in '
        f'the prior {shares[1]:.1f} %). What is chosen on it serves images like these'
    )


def _predict_with_memory(model: Any, memory: ClassMemory, batch: Any) -> Any:
    """Predictions that have ``memory_logits`` too, the log-posterior of a memory.

    At weight 1 the scores are the mean of the classifier's and the memory's. What becomes of them
    until the decision is linear (upsampling, the mean of windows), so predictions without and with
    the memory say what it gives.
    """
    model.reader.set_memory(memory, weight=1.0)
    both = model.test_step(batch)
    model.reader.reset_point()
    samples = model.test_step(batch)
    for sample, other in zip(samples, both, strict=True):
        sample.memory_logits = PixelData(data=2 * other.seg_logits.data - sample.seg_logits.data)
    return samples


def _check_arguments(folds: int | None, choice: str, max_values: int, memory: Any) -> None:
    if folds is not None and folds < 0:
        raise ValueError(f'folds={folds}: give 2 or more, or 1 to choose and judge on two splits')
    if max_values < 1:
        raise ValueError(f'max_values={max_values} must be 1 or more')
    if choice not in CHOICES:
        raise ValueError(f'{choice!r} cannot be chosen: take one of {list(CHOICES)}')
    if choice in WITH_MEMORY and memory is None:
        raise ValueError(
            f'{choice!r} cannot be chosen without a memory: make one with mmseg-ltmi memory, and '
            'give its file (--memory)'
        )


def _curve(metric: OperatingPointMetric) -> list[dict[str, float]]:
    return choosing.curve(metric.tau_areas.sum(0), metric.prior)


def _reader_at(point: OperatingPoint, model: Any, memory: ClassMemory | None) -> ScoreReader:
    reader = copy.deepcopy(model.reader).cpu()
    reader.set_point(point, memory)
    return reader
