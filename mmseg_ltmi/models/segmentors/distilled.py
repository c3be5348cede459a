"""Segmentors that learn from a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_ltmi.models.decode_heads import LTMIHeadMixin
from mmseg_ltmi.models.grid import features_on_grid, labels_on_grid
from mmseg_ltmi.models.losses import DistillationLoss

from .operating_point import LTMICascadeEncoderDecoder, LTMIEncoderDecoder, heads_of
from .teacher import Teacher, TeacherOutput, build_teacher
from .teacher_view import second_view

# A mixin in fact; to the type checker a segmentor, whose methods it extends.
_Segmentor: Any = EncoderDecoder if TYPE_CHECKING else object


class TeacherMixin(_Segmentor):
    """Takes the contrast samples of its LTMI head from a teacher, and may be distilled from it.

    The teacher sees the batch that the student sees, or its second photometric view where the
    pipeline ends with PackTwoViews. Its features and scores are brought to the student's grid
    bilinearly. In a cascade the last LTMI head with a contrastive term is taught. Testing needs
    no teacher: a frozen one is loaded when training begins, and its config is read before.

    ``L = gamma L_sup + beta (L_con + L_T) + alpha L_KD``: gamma is ``loss_weight`` of the head's
    ``loss_decode``, beta that of ``contrast.loss``. L_KD compares scores of one reading: a frozen
    teacher's are shifted by what its loss and the student's differ in, which is nothing where both
    are adjusted by the same prior.

    Args:
        teacher: ``dict(config=..., checkpoint=...)``, a trained network with any backbone and a
            head with a ``cls_seg``; or ``dict(type='EMA', momentum=0.999)``, a moving average of
            this one.
        alpha: weight of the distillation term; 0 leaves it out.
        distill_temperature: its temperature.

    Raises:
        FileNotFoundError: the teacher's config or, when training begins, checkpoint is missing.
        ValueError: a teacher that does not fit, no LTMI head to teach.
    """

    teacher: Teacher
    distillation: DistillationLoss | None

    def __init__(
        self,
        *args: Any,
        teacher: dict,
        alpha: float = 0.0,
        distill_temperature: float = 4.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        head = self.taught_head()
        if head.contrast is None and not alpha:
            raise ValueError(
                f'the teacher of {type(self).__name__} has nothing to teach: give the '
                f'{type(head).__name__} contrast=dict(class_prior=...), or alpha above 0'
            )
        self.distillation = DistillationLoss(distill_temperature, alpha) if alpha else None
        self.teacher = build_teacher(teacher, self)
        head.expect_teacher(self.teacher.channels)

    def taught_head(self) -> LTMIHeadMixin:
        """The head that learns from the teacher."""
        heads = [
            head
            for head in heads_of(self)
            if isinstance(head, LTMIHeadMixin) and hasattr(head, 'conv_seg')
        ]
        contrasting = [head for head in heads if head.contrast is not None]
        if not heads:
            name = type(heads_of(self)[-1]).__name__
            raise ValueError(
                f'{type(self).__name__} has no LTMI head with a conv_seg to teach (the last is '
                f"{name}): make a per-pixel head 'LTMI<Head>' (FCNHead to LTMIFCNHead) with "
                'contrast=dict(class_prior=...)'
            )
        return (contrasting or heads)[-1]

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The student's losses and, with ``alpha``, ``loss_distill``."""
        view = second_view(inputs, data_samples, self.data_preprocessor)
        said = self.teacher(view, data_samples, self)
        head = self.taught_head()
        with head.watch(None if head.contrast is None else said.features) as seen:
            losses = super().loss(inputs, data_samples)
        if self.distillation is not None:
            logits = seen['logits']
            size = logits.shape[2:]
            wanted = features_on_grid(_as_read_by(head, said), size)
            labels = labels_on_grid(seen['labels'], size)
            losses['loss_distill'] = self.distillation(logits, wanted, labels)
        return losses


def _as_read_by(head: LTMIHeadMixin, said: TeacherOutput) -> Tensor:
    """The teacher's scores (B, C, h, w) as raw scores of the student's head."""
    if said.natural_shift is None:
        return said.logits
    own = head.inference_prior.natural_shift.nan_to_num(nan=0.0)
    return said.logits + (said.natural_shift - own)[:, None, None]


@MODELS.register_module()
class DistilledEncoderDecoder(TeacherMixin, LTMIEncoderDecoder):
    """EncoderDecoder with a teacher."""


@MODELS.register_module()
class DistilledCascadeEncoderDecoder(TeacherMixin, LTMICascadeEncoderDecoder):
    """CascadeEncoderDecoder with a teacher."""
