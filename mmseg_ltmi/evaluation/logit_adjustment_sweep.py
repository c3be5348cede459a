"""What other operating points would have given, in the same evaluation pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from prettytable import PrettyTable
from torch import Tensor

from mmseg_ltmi.core.posterior import areas_over_taus
from mmseg_ltmi.core.priors import ClassPrior
from mmseg_ltmi.prior_message import (
    announced_opinions,
    announced_prior,
    announced_reading,
    forget_reading,
)

from .area_rows import class_rows
from .metric_prior import check_log_prior, read_metric_prior
from .per_class import (
    COLUMNS,
    check_suffix,
    group_means,
    number,
    overall_means,
    what_is_left_out,
    write_rows,
)
from .run_folder import in_run_folder


@METRICS.register_module()
class LogitAdjustmentSweep(IoUMetric):
    """mIoU, mAcc and the groups at several ``tau_test``, as LongTailIoUMetric has them.

    It takes the natural log-posterior from ``seg_logits``, whatever ``tau_test`` or operating point
    the model of this package is read at; a memory stays in it. Those of other models are taken for
    it, as those of stock heads trained with plain cross-entropy are.

    Args:
        class_prior: as for LogitAdjustedLoss; None takes that of the LTMI head that predicts.
        taus: the values of ``tau_test``.
        per_class_file: where to write a row per class, ``.json`` or ``.csv``; ``{tau}`` in the name
            is replaced. A relative path lies in the folder of the run's log.
        kwargs: as for IoUMetric.

    Raises:
        ValueError: ``per_class_file`` has another suffix, or one name for several taus; in the
            evaluation, no prior is known, or it differs from that of the LTMI head,
            or a ``tau_test`` acts on the queries of a mask classifier.
    """

    default_prefix = 'sweep'

    def __init__(
        self,
        class_prior: Any = None,
        taus: Sequence[float] = (0.0, 0.5, 1.0),
        per_class_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_suffix(per_class_file)
        super().__init__(**kwargs)
        self.class_prior = class_prior
        self._prior: ClassPrior | None = None
        self._log_prior = torch.empty(0)
        self._reading: Tensor | None = None
        self._opinions = 1.0
        self.taus = tuple(sorted(taus))
        self.per_class_file = per_class_file
        if per_class_file is not None and len(set(map(self._file_of, self.taus))) < len(self.taus):
            raise ValueError(
                f'per_class_file={per_class_file!r} has one name for {len(self.taus)} taus: put '
                "{tau} into it, as 'sweep_tau{tau}.json'"
            )

    def _file_of(self, tau: float) -> str:
        return str(self.per_class_file).replace('{tau}', f'{tau:g}')

    def prior(self) -> ClassPrior:
        """The named prior, or the model's."""
        num_classes = len(self.dataset_meta['classes'])
        if self._prior is None:  # read once: it may be a file
            self._prior = read_metric_prior(self.class_prior, self.dataset_meta)
        model = announced_prior(num_classes)
        if self._prior is not None and model is not None:
            check_log_prior(self._prior, model)
        found = self._prior or model
        if found is None:
            raise ValueError(
                'LogitAdjustmentSweep knows no class prior: the model has no LTMI head, so give '
                "the metric class_prior= (a name such as 'ade20k', a path or counts)"
            )
        return found

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the areas (len(taus), 4, C) of each image."""
        num_classes = len(self.dataset_meta['classes'])
        if not self.results:  # once an evaluation
            self._log_prior = self.prior().log_probs()
            self._reading = self._announced_reading(num_classes)
            self._opinions = announced_opinions()
        for sample in data_samples:
            logits = sample['seg_logits']['data'].float()
            if logits.shape[0] != num_classes:
                raise ValueError(
                    f'LogitAdjustmentSweep needs a score per class: the head gives '
                    f'{logits.shape[0]} channels for {num_classes} classes'
                )
            if self._reading is not None:
                logits = logits - self._reading.to(logits)[:, None, None]
            logits = logits * self._opinions  # a tau comes off the sum, not off the mean
            label = sample['gt_sem_seg']['data'].squeeze().to(logits.device)
            areas = areas_over_taus(
                logits, label.long(), self._log_prior, self.taus, self.ignore_index
            )
            # Exact, and a quarter of float64: there is one for every image.
            self.results.append(areas.cpu().int())

    def _announced_reading(self, num_classes: int) -> Tensor | None:
        reading = announced_reading(num_classes)
        if reading is None or not reading.any():
            return None
        if reading.isnan().any():
            raise ValueError(
                "LogitAdjustmentSweep needs natural scores, but tau_test acts on the model's "
                "queries: set tau_test=0, or shift_at='map', or leave the metric out"
            )
        return reading

    def evaluate(self, size: int) -> dict:
        """As IoUMetric; a model that predicts next, and says no reading, has none."""
        metrics = super().evaluate(size)
        forget_reading()
        return metrics

    def compute_metrics(self, results: list) -> dict[str, float]:
        """``tau<value>/mIoU``, ``/mAcc``, ``/mIoU_tail``, ... in percent."""
        areas = torch.stack(results).sum(0)  # int64
        metrics: dict[str, float] = {}
        rows: list[dict[str, Any]] = []
        table = PrettyTable(['tau_test', 'mIoU', 'head', 'medium', 'tail', 'mAcc'])
        for tau, area in zip(self.taus, areas, strict=True):
            rows = class_rows(area, self.dataset_meta['classes'], self.prior())
            means = overall_means(rows) | group_means(rows)
            metrics.update({f'tau{tau:g}/{key}': value for key, value in means.items()})
            table.add_row([f'{tau:g}', *(number(means.get(column)) for column in COLUMNS)])
            if self.per_class_file is not None:
                write_rows(rows, in_run_folder(self._file_of(tau)))
        text = f'operating points:\n{table.get_string()}'
        # Which classes have a label is the same at each tau; what is predicted is not.
        if left_out := what_is_left_out(rows, with_predicted=False):
            text += f'\n{left_out}'
        print_log(text, MMLogger.get_current_instance())
        return metrics
