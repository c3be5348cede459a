"""What a trained model is worth at several operating points, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prettytable import PrettyTable

from mmseg_ltmi.core.posterior import ClassMemory, OperatingPoint, ScoreReader
from mmseg_ltmi.core.posterior.score_reader import MEMORY
from mmseg_ltmi.core.tensor_file import save_tensors
from mmseg_ltmi.evaluation import write_rows
from mmseg_ltmi.evaluation.per_class import number
from mmseg_ltmi.evaluation.posterior_sample import Calibration
from mmseg_ltmi.models.checkpoint_file import check_is_another, read_checkpoint
from mmseg_ltmi.readings import CHOICES, MEMORY_FILE

RANKSEG = 'RankSEG'
COPIED = 'memory_is_a_copy'
"""In the report of a point's file: whether the memory beside it was written with it."""


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
        file, memory_file = folder / 'operating_point.json', folder / MEMORY_FILE
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
        # A memory that was there, and what an earlier version has written, would come over it.
        stale = ('decision.', f'{head}inference_prior.', f'{self.reader_prefix}{MEMORY}')
        state = {name: value for name, value in state.items() if not name.startswith(stale)}
        own = self.reader.state_dict()
        state.update({f'{self.reader_prefix}{name}': value for name, value in own.items()})
        whole = {**content, 'state_dict': state} if 'state_dict' in content else state
        save_tensors(whole, out)


def _rows_file(folder: Path, name: str) -> Path:
    return folder / 'per_class' / f'{name.replace(" ", "_")}.json'


def _has_copied_memory(file: Path) -> bool:
    """Whether an earlier choice has written this file and a memory beside it."""
    try:
        return OperatingPoint.load(file).report.get(COPIED) is True
    except (OSError, ValueError):
        return False
