"""Networks whose pixel features are the contrast samples of a student.

Source: Suh & Seo, ICML 2023 (arXiv 2305.01160): a frozen, better trained network, or as a fallback
a moving average of the network itself.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ltmi.core.posterior import natural_shift_of_head, predicting_losses_of
from mmseg_ltmi.core.priors import check_priors_found
from mmseg_ltmi.core.recorder import FeatureRecorder
from mmseg_ltmi.core.state_dict_hooks import before_load
from mmseg_ltmi.core.training_step import is_training_step
from mmseg_ltmi.models.decode_heads import LTMIHeadMixin

from .heads import heads_of, last_head
from .teacher_files import build_head, check_label_space, classifier_of, load_weights, read_model
from .teacher_view import Renormalization

PLAIN = dict(type='mmseg.SegDataPreProcessor')  # neither normalizes nor swaps channels


class TeacherOutput(NamedTuple):
    """A teacher's features and scores of a batch, without graph.

    Attributes:
        features: pixel features (B, D, h, w), what its classifier sees.
        logits: its raw scores (B, C, h, w).
        natural_shift: float32 (C,), which added to the raw scores gives the natural log-posterior;
            None where it is the student's own.
    """

    features: Tensor
    logits: Tensor
    natural_shift: Tensor | None


class Teacher(nn.Module):
    """Base of the teachers: always in evaluation mode, never with a gradient.

    Attributes:
        channels: D, channels of the pixel features.
    """

    channels: int

    def train(self, mode: bool = True) -> Teacher:
        """Evaluation mode, whatever is asked: BatchNorm takes its running statistics."""
        return super().train(False)

    def forward(self, inputs: Tensor, data_samples: list, student: EncoderDecoder) -> TeacherOutput:
        """Features and scores of a batch.

        Args:
            inputs: normalized images (B, 3, H, W), as the student gets them.
            data_samples: their data samples.
            student: the segmentor that is being trained.
        """
        raise NotImplementedError


@MODELS.register_module()
class FrozenTeacher(Teacher):
    """A trained network, which no checkpoint of the student holds.

    The config is read at once, the checkpoint when training begins: a student is tested and
    deployed without its teacher's weights.

    Args:
        config: file of a training config (also ``mmseg::...``), or its content.
        checkpoint: file or address of its weights.
        student: the segmentor that is to be trained; the classes must be as many.

    Raises:
        FileNotFoundError: no such config; when training begins, no such checkpoint.
        ValueError: a config without a ``cls_seg`` head, or with another number of classes; when
            training begins, weights that do not fit or that know other classes.
    """

    natural_shift: Tensor

    def __init__(self, config: Any, checkpoint: str, student: EncoderDecoder) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self._model = read_model(config)
        self.channels = build_head(self._model, student.num_classes).conv_seg.in_channels
        preprocessor = MODELS.build(self._model.get('data_preprocessor', PLAIN))
        self.renormalization = Renormalization(student.data_preprocessor, preprocessor)
        self.register_buffer('natural_shift', torch.zeros(student.num_classes), persistent=False)
        # In a list, which hides it from state_dict, parameters and whoever copies the model.
        self._loaded: list[EncoderDecoder] = []
        self._label_space: dict[str, Any] | None = None

    @property
    def network(self) -> EncoderDecoder:
        """The network; the first use loads it."""
        return self.load()

    def load(self) -> EncoderDecoder:
        """Load the network, if it is not there."""
        if not self._loaded:
            network, self._label_space, folded = load_weights(self._model, self.checkpoint)
            self.natural_shift.copy_(_natural_shift(network) if folded is None else -folded)
            _keep_features_only(network)
            self._loaded.append(network.to(self.natural_shift))  # its device and dtype
        return self._loaded[0]

    def init_weights(self) -> None:
        """Load the network. mmengine's Runner calls this before it trains."""
        self.load()

    def forward(self, inputs: Tensor, data_samples: list, student: EncoderDecoder) -> TeacherOutput:
        network = self.load()
        if self._label_space is not None:
            # Once, with the first batch: only then is the student's data set known.
            check_label_space(self._label_space, data_samples, student.num_classes, self.checkpoint)
            self._label_space = None
        output = _run(network, self.renormalization(inputs), data_samples)
        return output._replace(natural_shift=self.natural_shift)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> FrozenTeacher:
        for network in self._loaded:  # to another device or dtype, with the rest of the model
            network._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        return self  # for EMAHook: what never changes can be shared


@MODELS.register_module()
class EMATeacher(Teacher):
    """A moving average of the student itself; checkpoints hold it.

    Before it sees a batch of training it becomes ``m * average + (1 - m) * student``, and before
    the first one the student itself, whose weights were loaded by then. BatchNorm's running
    statistics are averaged with the weights' momentum, since they belong to them; integer buffers
    are copied. Where k batches make one step (``accumulative_counts``), it moves with each of them:
    take the k-th root of the momentum. From a checkpoint whose average does not fit, as of other
    classes, it begins anew.

    mmengine's ExponentialMovingAverage would not do: with buffers, it goes on to update the memory
    that its module left when it was moved to a GPU.

    Args:
        student: the segmentor that is to be trained.
        momentum: m, from 0 to below 1.

    Raises:
        ValueError: ``momentum`` is out of range.
    """

    steps: Tensor

    def __init__(self, student: EncoderDecoder, momentum: float = 0.999) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(
                f'the momentum of an EMA teacher is the share of it that stays in a step, at least '
                f'0 and below 1, but is {momentum}'
            )
        super().__init__()
        self.momentum = momentum
        self.network = copy.deepcopy(student)
        _keep_features_only(self.network)
        self.channels = classifier_of(last_head(self.network)).in_channels
        self.register_buffer('steps', torch.tensor(0))
        before_load(self, _begin_anew_where_it_does_not_fit)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Take a step towards the student."""
        # A tensor, so that no step waits for the device to answer.
        share = torch.where(self.steps == 0, 1.0, 1 - self.momentum)
        new = student.state_dict()
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[name], share.to(value.dtype))
            else:
                value.copy_(new[name])
        self.steps += 1

    def forward(self, inputs: Tensor, data_samples: list, student: EncoderDecoder) -> TeacherOutput:
        # Here and not after the step, so that it needs no hook and that a run which is resumed
        # goes on exactly.
        if is_training_step(student):
            self.update(student)
        return _run(self.network, inputs, data_samples)


def _begin_anew_where_it_does_not_fit(
    teacher: EMATeacher, state_dict: dict[str, Tensor], prefix: str
) -> None:
    # What is left out of a load stays random, and an average that has begun keeps most of it.
    if f'{prefix}steps' not in state_dict:
        return
    for name, own in teacher.network.state_dict().items():
        saved = state_dict.get(f'{prefix}network.{name}')
        if own.is_floating_point() and (saved is None or saved.shape != own.shape):
            how = 'is missing' if saved is None else f'has shape {tuple(saved.shape)}'
            print_log(
                f'the EMA teacher begins anew as the student: {prefix}network.{name} of the '
                f'checkpoint {how}, and the model has {tuple(own.shape)}',
                'current',
                logging.WARNING,
            )
            state_dict[f'{prefix}steps'] = torch.zeros_like(teacher.steps)
            return


SHORT_NAMES = {'EMA': 'EMATeacher'}
ARGUMENTS = {'EMATeacher': {'momentum'}, 'FrozenTeacher': {'config', 'checkpoint'}}


def build_teacher(teacher: Any, student: EncoderDecoder) -> Teacher:
    """The teacher that a config asks for.

    Args:
        teacher: ``dict(config=..., checkpoint=...)``, ``dict(type='EMA', momentum=0.999)``, or the
            config of a registered Teacher.
        student: the segmentor that is to be trained.

    Raises:
        ValueError: another dict; and as the teachers.
    """
    options = dict(teacher) if isinstance(teacher, dict) else {}
    kind = options.pop('type', 'FrozenTeacher')
    kind = SHORT_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    known = ARGUMENTS.get(kind, set(options)) if isinstance(kind, str) else set(options)
    if (
        not set(options) <= known
        or (isinstance(kind, str) and MODELS.get(kind) is None)
        or (kind == 'FrozenTeacher' and options.get('config') is None)
    ):
        raise ValueError(
            f"teacher={teacher}: use dict(config='teacher.py', checkpoint='teacher.pth') or "
            "dict(type='EMA', momentum=0.999), or a type that is registered in MODELS"
        )
    if kind == 'FrozenTeacher' and options.get('checkpoint') is None:
        raise ValueError(
            f'the teacher has a config ({options["config"]}) but no checkpoint: give the file that '
            'training this config has written (teacher.checkpoint)'
        )
    return MODELS.build({**options, 'type': kind, 'student': student})


def _natural_shift(network: EncoderDecoder) -> Tensor:
    """What turns the network's raw scores into its natural log-posterior, float32 (C,)."""
    head = last_head(network)
    reader: Any = getattr(network, 'reader', None)  # that of an LTMI segmentor knows best
    if reader is not None and reader.has_shift:
        return reader.natural_shift
    shift = natural_shift_of_head(head, network.num_classes)
    if shift is not None:
        return shift
    check_priors_found(head)
    if any(getattr(loss, 'needs_class_prior', False) for loss in predicting_losses_of(head)):
        raise ValueError(
            "the teacher's loss_decode has class_prior=None, which its checkpoint does not "
            'hold: name the prior it was trained with in teacher.config (the class_prior.json '
            'in its work dir)'
        )
    return torch.zeros(network.num_classes)


def _keep_features_only(network: EncoderDecoder) -> None:
    """Take out what only training and reading the scores need; no parameter stays trainable."""
    reader: Any = getattr(network, 'reader', None)
    if reader is not None:
        reader.reset_point()  # or a memory would still be pooled with the classifier
    for name in ('auxiliary_head', 'score_reader', '_point', 'teacher'):
        if hasattr(network, name):
            setattr(network, name, None)
    for head in heads_of(network):
        head.loss_decode = nn.Identity()
        if isinstance(head, LTMIHeadMixin):
            for name in ('contrast', 'region', 'score_reader'):
                setattr(head, name, None)
    network.requires_grad_(False).eval()


@torch.no_grad()
def _run(network: EncoderDecoder, inputs: Tensor, data_samples: list) -> TeacherOutput:
    """What the last classifier of the network sees and gives."""
    head = last_head(network)
    with FeatureRecorder(network, classifier_of(head)) as recorder:
        network(inputs, data_samples, mode='tensor')
        if not recorder.has_recorded:
            raise ValueError(
                f'the teacher has no cls_seg features: {type(head).__name__} does not use its '
                'conv_seg. Take a teacher with a per-pixel head, such as UPerHead'
            )
        return TeacherOutput(recorder.features, recorder.logits, None)
