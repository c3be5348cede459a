"""Segmentors that learn from a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.utils import add_prefix
from torch import Tensor, nn

from mmseg_ltmi.core.losses import DistillationLoss
from mmseg_ltmi.core.pixel_maps import resize_features, resize_labels
from mmseg_ltmi.models.decode_heads import HeadRecord, LTMIHeadMixin

from .heads import heads_of
from .ltmi_segmentors import LTMICascadeEncoderDecoder, LTMIEncoderDecoder
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
    are adjusted by the same prior. With a ``test_prior`` a frozen teacher is taken for one that
    reads the images of testing: one of images drawn as they are, or with the same ``test_prior``.

    Args:
        teacher: ``dict(config=..., checkpoint=...)``, a trained network with any backbone and a
            head with a ``cls_seg``; ``dict(type='EMA', momentum=0.999)``, a moving average of
            this one; or a registered Teacher, which gets ``student``.
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
                f'{type(head).__name__} contrast=dict(), or alpha above 0'
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
                'contrast=dict()'
            )
        return (contrasting or heads)[-1]

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The student's losses and, with ``alpha``, ``loss_distill``."""
        view = second_view(inputs, data_samples, self.data_preprocessor)
        taught = self.teacher(view, data_samples, self)
        losses = super().loss(inputs, data_samples)
        head = self.taught_head()
        record = head.take_record()
        losses.update(add_prefix(head.contrast_losses(record, taught.features), self._prefix(head)))
        if self.distillation is not None:
            losses['loss_distill'] = self._distillation_loss(self.distillation, record, taught)
        return losses

    def _prefix(self, head: LTMIHeadMixin) -> str:
        """What mmsegmentation puts before the names of this head's losses."""
        if not isinstance(self.decode_head, nn.ModuleList):
            return 'decode'
        return f'decode_{heads_of(self).index(head)}'

    def _distillation_loss(
        self, distillation: DistillationLoss, record: HeadRecord, taught: TeacherOutput
    ) -> Tensor:
        head = self.taught_head()
        wanted = taught.logits
        if taught.natural_shift is not None:  # as raw scores of the student's head
            own = head.score_reader.natural_shift.nan_to_num(nan=0.0)
            wanted = wanted + (taught.natural_shift - own)[:, None, None]
        size = record.logits.shape[2:]
        labels = resize_labels(record.class_labels(head.ignore_index), size)
        return distillation(record.logits, resize_features(wanted, size), labels)


@MODELS.register_module()
class DistilledEncoderDecoder(TeacherMixin, LTMIEncoderDecoder):
    """EncoderDecoder with a teacher."""


@MODELS.register_module()
class DistilledCascadeEncoderDecoder(TeacherMixin, LTMICascadeEncoderDecoder):
    """CascadeEncoderDecoder with a teacher."""
