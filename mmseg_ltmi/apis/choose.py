"""Chooses how a trained model's posterior is read: natural argmax, a tau_test, or the IoU rule."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.structures import PixelData
from prettytable import PrettyTable
from torch.utils.data import DataLoader

from mmseg_ltmi.core.posterior import ClassMemory, OperatingPoint, ScoreReader
from mmseg_ltmi.core.posterior.score_reader import MEMORY
from mmseg_ltmi.core.priors.dataset_parts import distinct_images, image_file
from mmseg_ltmi.core.progress import progress_bar
from mmseg_ltmi.core.tensor_file import save_tensors
from mmseg_ltmi.evaluation import (
    OperatingPointMetric,
    RankSEGRule,
    choosing,
    class_rows,
    write_rows,
)
from mmseg_ltmi.evaluation.operating_point_metric import MEMORY_WEIGHTS
from mmseg_ltmi.evaluation.per_class import number
from mmseg_ltmi.evaluation.posterior_sample import Calibration
from mmseg_ltmi.models.checkpoint_file import check_is_another, read_checkpoint
from mmseg_ltmi.models.segmentors import (
    classifier_fingerprint,
    last_head,
    reader_prefix,
)

from .config_changes import read_config
from .trained_model import (
    class_prior_of,
    load_memory,
    load_model,
    measure,
    metainfo_of,
    split_loader,
)

AUTO = 'auto'
CHOICES = (AUTO, 'natural', *choosing.CRITERIA, choosing.IOU_RULE, *choosing.WITH_MEMORY)
RANKSEG = 'RankSEG'
COPIED = 'memory_is_a_copy'
"""In the report of a point's file: whether the memory beside it was written with it."""
FOLDS = 5
"""Of cross-fitting, where nobody says how many."""


@dataclass(frozen=True)
class Choice:
    """What a model is worth at several operating points, and the one that was chosen.

    Attributes:
        point: the chosen one; its ``report`` says what it was chosen on and what it was worth.
        points: the candidates by name.
        values: :func:`summary` of each candidate, and of the peer RankSEG, on the split that
            judges, in percent.
        rows: a row per class of each of them.
        taus: T values of ``tau_test``.
        select_curve: T summaries on the split that chooses.
        report_curve: T summaries on the split that judges; None where it is the same.
        title: of the table.
        reader: of the model, at the chosen point.
        name: of the chosen candidate.
        estimates: of :func:`choosing.estimates`, where 'auto' has chosen by them.
        calibration: on the split that chooses, of the candidates 'natural' and 'memory'.
        memory_file: of the memory, if it was given as a file.
        memory: that was given.
        reader_prefix: where its keys begin in a checkpoint of the model.
    """

    point: OperatingPoint
    points: dict[str, OperatingPoint]
    values: dict[str, dict[str, float]]
    rows: dict[str, list[dict[str, Any]]]
    taus: tuple[float, ...]
    select_curve: list[dict[str, float]]
    report_curve: list[dict[str, float]] | None
    title: str
    reader: ScoreReader
    reader_prefix: str
    name: str
    memory: ClassMemory | None = None
    estimates: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    memory_file: Path | None = None

    @property
    def table(self) -> str:
        """What each candidate is worth."""
        columns = {'mIoU': 'mIoU', 'mIoU_tail': 'tail mIoU', 'mAcc': 'mAcc'}
        if self.report_curve is not None:
            columns['image_mIoU'] = 'mIoU of an image'
        header = ['operating point', 'tau_test', *columns.values()]
        if self.memory is not None:
            header.insert(1, 'memory')
        if self.estimates:
            header += ['mIoU of folds', "at the prior's frequencies"]
        table = PrettyTable(header, align='r')
        table.align['operating point'] = 'l'
        table.title = self.title
        for name, values in self.values.items():
            point = self.points.get(name)
            tau = f'{point.tau:g}' if point is not None and point.rule == 'tau' else ''
            row = [name, tau, *(number(values[key]) for key in columns)]
            if self.memory is not None:
                weight = 0.0 if point is None else point.memory_weight
                row.insert(1, f'{weight:g}' if weight else '')
            if self.estimates:
                row += map(number, self.estimates.get(name, (None, None)))
            table.add_row(row)
        return table.get_string()

    @property
    def calibration_text(self) -> str:
        """How far the posterior can be believed; a memory is in it, and no tau and no rule."""
        return '\n'.join(
            f'{name} posterior: calibration error {of.error:.1f} %, mean -log p {of.log_loss:.3f}'
            for name, of in self.calibration.items()
        )

    def save(self, folder: str | Path) -> None:
        """Write ``operating_point.json``, ``curves.png`` and ``per_class/NAME.json``.

        And the memory beside them, where the chosen point needs it. What an earlier choice has
        written there goes: rows of readings that this one has not measured, and its memory.
        """
        from mmseg_ltmi.visualization import plot_operating_points

        folder = Path(folder)
        file, memory_file = folder / 'operating_point.json', folder / choosing.MEMORY_FILE
        was_copied = _has_copied_memory(file)
        for name in {*CHOICES, RANKSEG} - self.rows.keys():
            _rows_file(folder, name).unlink(missing_ok=True)
        for name, rows in self.rows.items():
            write_rows(rows, _rows_file(folder, name))
        curves = self.select_curve, self.report_curve
        plot_operating_points(self.taus, *curves, self.values['IoU rule'], folder / 'curves.png')
        given = self.memory_file is not None and memory_file.resolve() == self.memory_file.resolve()
        copies = self.memory is not None and self.point.memory_weight > 0 and not given
        if self.memory is not None and copies:
            self.memory.save(memory_file)
        # Said, so that a later choice removes no memory that somebody else has put there.
        replace(self.point, report={**self.point.report, COPIED: copies}).save(file)
        if was_copied and not given and not copies:
            memory_file.unlink(missing_ok=True)

    def embed(self, checkpoint: str | Path, out: str | Path) -> None:
        """Write a copy of a checkpoint of the model that holds the chosen point.

        Raises:
            OSError: a file that is not there, or cannot be written.
            ValueError: a file that is no checkpoint, or the same file twice.
        """
        check_is_another(out, checkpoint)
        content, state = read_checkpoint(checkpoint)
        head = self.reader_prefix.removesuffix('score_reader.')
        # What an earlier version has written would come over it.
        earlier = ('decision.', f'{head}inference_prior.')
        state = {name: value for name, value in state.items() if not name.startswith(earlier)}
        own = self.reader.state_dict()
        memory = f'{self.reader_prefix}{MEMORY}'
        state = {name: value for name, value in state.items() if not name.startswith(memory)}
        state.update({f'{self.reader_prefix}{name}': value for name, value in own.items()})
        whole = {**content, 'state_dict': state} if 'state_dict' in content else state
        save_tensors(whole, out)


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
    _check_splits(cfg, select, report)
    model: Any = load_model(cfg, checkpoint)
    memory_file = Path(memory) if isinstance(memory, (str, Path)) else None
    if memory is not None:
        memory = load_memory(model, memory)
    loaders = {split: split_loader(cfg, split) for split in {select: None, report: None}}
    if memory is not None and (warning := _images_in(memory, loaders)):
        warn(warning)
    if folds is None or folds < 2:
        folds, warning = _default_folds(folds, loaders, select, report)
        if warning:
            warn(warning)
    how_chosen = f'chosen on {select}'
    if folds:
        same = '' if select == report else f', as {select} has the same images'
        how_chosen, select = f'cross-fitted in {folds} folds{same}', report

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
    prior, judged = selection.prior, None
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
        weights=classifier_fingerprint(model),
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
            for name in ('natural', choosing.WITH_MEMORY[0])
            if name in points
        },
    )


def _rows_file(folder: Path, name: str) -> Path:
    return folder / 'per_class' / f'{name.replace(" ", "_")}.json'


def _has_copied_memory(file: Path) -> bool:
    """Whether an earlier choice has written this file and a memory beside it."""
    try:
        return OperatingPoint.load(file).report.get(COPIED) is True
    except (OSError, ValueError):
        return False


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
        memory = 2 * other.seg_logits.data - sample.seg_logits.data
        sample.memory_logits = PixelData(data=memory)
    return samples


def _check_arguments(folds: int | None, choice: str, max_values: int, memory: Any) -> None:
    if folds is not None and folds < 0:
        raise ValueError(f'folds={folds}: give 2 or more, or 1 to choose and judge on two splits')
    if max_values < 1:
        raise ValueError(f'max_values={max_values} must be 1 or more')
    if choice not in CHOICES:
        raise ValueError(f'{choice!r} cannot be chosen: take one of {list(CHOICES)}')
    if choice in choosing.WITH_MEMORY and memory is None:
        raise ValueError(
            f'{choice!r} cannot be chosen without a memory: make one with mmseg-ltmi memory, and '
            'give its file (--memory)'
        )


def _check_splits(cfg: Config, select: str, report: str) -> None:
    missing, other = select, report
    if cfg.get(f'{select}_dataloader') is not None:
        missing, other = report, select
    if cfg.get(f'{missing}_dataloader') is None and cfg.get(f'{other}_dataloader') is not None:
        raise ValueError(
            f'the config has no {missing}_dataloader: cross-fit on the {other} split, with '
            f'--select {other} --report {other} --folds {FOLDS}, or name another split'
        )


def _default_folds(
    folds: int | None, loaders: dict[str, DataLoader], select: str, report: str
) -> tuple[int, str]:
    """How many folds, and what is wrong with choosing and judging on these splits without any.

    Args:
        folds: None if that is not said.
    """
    dataset: Any = loaders[report].dataset
    common = total = len(dataset)
    same, where = True, f'the same split ({select})'
    if select != report:
        try:
            chosen, judged = (_images_of(loaders[split].dataset) for split in (select, report))
        except ValueError as error:
            return 0, f'whether {select} and {report} have images in common is unknown: {error}'
        common, total, same = len(chosen & judged), len(judged), chosen == judged
        where = f'the same images ({common} of the {total} of {report} are in {select} too)'
    if not common:
        return 0, ''
    if folds is None and same and total > 1:
        return min(FOLDS, total), ''
    return 0, (
        f'chosen and reported on {where}: the figures flatter the choice. Name another split, or '
        f'cross-fit with --folds {FOLDS}.'
    )


def _images_in(memory: ClassMemory, loaders: dict[str, DataLoader]) -> str:
    """That a memory holds pixels of images that choose or judge; '' if not, or if not known."""
    paths = () if memory.origins is None else memory.origins.images
    stored = {os.path.realpath(path) for path in paths if path}
    found = []
    for split, loader in loaders.items():
        with suppress(ValueError):
            if common := len(_images_of(loader.dataset) & stored):
                found.append(f'{common} images of {split}')
    if not found:
        return ''
    return (
        f'the memory holds pixels of {" and ".join(found)}, which find themselves there: the '
        'figures with a memory flatter it. Make it of the train split, and choose on another'
    )


def _images_of(dataset: Any) -> set[str]:
    # The files: splits of two names, or with other indices, may read the same ones.
    return {image_file(*image) for image in distinct_images(dataset)} - {''}


def _curve(metric: OperatingPointMetric) -> list[dict[str, float]]:
    return choosing.curve(metric.tau_areas.sum(0), metric.prior)


def _reader_at(point: OperatingPoint, model: Any, memory: ClassMemory | None) -> ScoreReader:
    reader = copy.deepcopy(model.reader).cpu()
    reader.set_point(point, memory)
    return reader
