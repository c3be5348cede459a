"""How a trained model's posterior is read, as a small JSON file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..json_file import read_json, write_json
from ..priors.class_prior import balancing_shift
from .iou_rule import iou_scores

FORMAT = 'mmseg_ltmi.operating_point'
RULES = ('tau', 'iou')


@dataclass(frozen=True)
class OperatingPoint:
    """A decision on the natural posterior.

    Attributes:
        rule: 'tau', argmax of ``log p_c - tau log pi_c``, or 'iou', argmax of
            ``[p_c (1 + IoU_c) - IoU_c] / U_c``.
        classes: C names.
        log_prior: C numbers, log pi.
        tau: for 'tau'.
        iou: C numbers in 0..1, for 'iou'.
        union: C positive numbers, for 'iou'.
        memory_weight: of a ClassMemory beside the classifier, lambda; 0 needs none.
        memory: file of that memory; in a JSON file, from the folder of that file.
        weights: fingerprint of the network that it was chosen for; '' fits every one.
        report: what it was chosen on and what it was worth.
    """

    rule: str
    classes: tuple[str, ...]
    log_prior: tuple[float, ...]
    tau: float = 0.0
    iou: tuple[float, ...] = ()
    union: tuple[float, ...] = ()
    memory_weight: float = 0.0
    memory: str = ''
    weights: str = ''
    report: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, log_posterior: Tensor) -> Tensor:
        """Scores to take the argmax of.

        Args:
            log_posterior: (C, ...) natural log-posterior up to a constant per pixel. With a memory
                it is the sum of both, the memory's times ``memory_weight``.
        """
        if self.rule == 'tau':
            shift = self.tau * balancing_shift(torch.tensor(self.log_prior)).to(log_posterior)
            return log_posterior + shift.view(-1, *[1] * (log_posterior.ndim - 1))
        # The weights of both opinions sum to one, or the posterior would be too sure.
        posterior = (log_posterior.float() / (1 + self.memory_weight)).softmax(0)
        iou, union = (torch.tensor(v, dtype=torch.float32) for v in (self.iou, self.union))
        return iou_scores(posterior, iou, union, dim=0)

    def decide(self, log_posterior: Tensor) -> Tensor:
        """Classes (...) of a natural log-posterior (C, ...)."""
        return self.scores(log_posterior).max(0).indices

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`save` writes; a number of the report that is unknown (nan) is None."""
        fields = asdict(self)
        return {'format': FORMAT, 'version': 1, **fields, 'report': _without_nan(fields['report'])}

    def save(self, path: str | Path) -> None:
        """Write JSON; a reader never sees half a file."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, source: str | Path | dict) -> OperatingPoint:
        """Read a file, or a dict of its content.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is truncated or not an operating point, entries that make none.
        """
        where = 'the operating point'
        data: Any = source
        if not isinstance(source, dict):
            where = str(source)
            data = read_json(source, 'choose it again with mmseg-ltmi choose')
        if not isinstance(data, dict) or (data.get('format'), data.get('version')) != (FORMAT, 1):
            raise ValueError(f'{where} is not an operating point: its "format" is not {FORMAT!r}')
        fields = {key: value for key, value in data.items() if key not in ('format', 'version')}
        try:
            for name in ('classes', 'log_prior', 'iou', 'union'):
                fields[name] = tuple(fields[name])
            if fields.get('memory') and not isinstance(source, dict):
                fields['memory'] = str(Path(source).parent / fields['memory'])
            point = cls(**fields)
            point.check()
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{where} is not an operating point: {error!r}') from error
        return point

    def check(self) -> None:
        """Raise ValueError for entries that make no decision."""
        if self.rule not in RULES:
            raise ValueError(f'its rule is {self.rule!r}, not one of {RULES}')
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f'classes must be names, but are {self.classes!r:.80}')
        if not isinstance(self.weights, str) or not isinstance(self.report, dict):
            raise ValueError('weights must be a text, and report a dict')
        needed = {'log_prior': self.log_prior}
        if self.rule == 'iou':
            needed |= {'iou': self.iou, 'union': self.union}
        for name, values in needed.items():
            if len(values) != len(self.classes) or not all(map(_is_finite, values)):
                raise ValueError(f'{name} must hold {len(self.classes)} finite numbers')
        for name, value in (('tau', self.tau), ('memory_weight', self.memory_weight)):
            if not _is_finite(value):
                raise ValueError(f'{name} must be a finite number, but is {value!r:.80}')
        if self.memory_weight < 0:
            raise ValueError(f'memory_weight={self.memory_weight:g} must not be negative')
        if bool(self.memory_weight) != bool(self.memory) or not isinstance(self.memory, str):
            raise ValueError(
                f'memory_weight={self.memory_weight!r:.80} and memory={self.memory!r:.80} go '
                'together: a weight needs the file of the memory, and a file a weight'
            )
        if self.rule == 'iou' and min(self.union) <= 0:
            raise ValueError('union must be positive')
        if not self.scores(torch.zeros(len(self.classes), 1)).isfinite().all():
            raise ValueError('its numbers are too large or too small to compute with')

    def __str__(self) -> str:
        rule = f'tau_test={self.tau:g}' if self.rule == 'tau' else 'IoU rule'
        return f'memory_weight={self.memory_weight:g}, {rule}' if self.memory_weight else rule


def _without_nan(value: Any) -> Any:
    # JSON has no nan.
    if isinstance(value, Mapping):
        return {key: _without_nan(v) for key, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_finite(value: Any) -> bool:
    # In float32, in which scores are computed.
    return isinstance(value, (int, float)) and abs(value) <= torch.finfo(torch.float32).max
