"""What turns a decode head into its LTMI form."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ltmi.core.losses import LabelOutOfRangeError, LogitAdjustedLoss, SoftmaxFocalLoss
from mmseg_ltmi.core.posterior import ScoreReader, losses_of
from mmseg_ltmi.core.posterior.score_reader import state_folded_reading
from mmseg_ltmi.core.priors import PriorBuffer
from mmseg_ltmi.core.state_dict_hooks import before_load, keep_own_where_absent, rename_keys
from mmseg_ltmi.core.training_step import is_training_step
from mmseg_ltmi.models.raw_scores import warn_where_exported
from mmseg_ltmi.prior_message import announce_prior, announce_reading

from .classifiers import CLASSIFIERS, build_classifier
from .decode_losses import check_decode_losses
from .hard_pixels import judge_by_trained_scores
from .label_checks import bad_images, check_padding
from .record import HeadRecord
from .shared_prior import SharedPriorMixin

# A mixin in fact; to the type checker a head, whose methods it extends.
_Head: Any = BaseDecodeHead if TYPE_CHECKING else object

OWN_LOSSES = {'contrast': 'loss_contrast', 'region': 'loss_region'}
POINT_DROPPED = 'training changes the model: its operating point is dropped'


class LTMIHeadMixin(SharedPriorMixin, _Head):
    """Adds terms on the features in training, and reads the scores in testing.

    The pixel feature is what ``cls_seg`` receives, and the labels are those that the head itself
    stacks, so a head's forward pass and losses stay as they are. The plain head's state-dict keys
    stay too; ``contrast.*``, ``region.*`` and ``score_reader.*`` come on top, and none is missed
    when a stock checkpoint is loaded. ``forward`` gives raw scores, in testing too (pooled with a
    memory), and warns where a graph is made of them (docs/export.md); ``predict`` reads them.

    A head has one class prior. Whoever of ``class_prior``, the losses, the contrast and the region
    term names none takes that of the others; two that differ are an error.

    Args:
        contrast: config of the contrastive term, ``type`` defaults to PixelContrast;
            ``in_channels`` and ``num_classes`` are filled in. None leaves it out.
        class_prior: the head's class prior; None takes the one of the loss.
        tau_test: how scores are read, 0 natural and 1 balanced.
        test_prior: how often the classes are where the model is used, in any form that class_prior
            takes but 'online'. The natural reading is then for such images, and metrics take this
            prior. None means as often as in training; give the raw prior where training resamples
            the train set. Training writes it into the checkpoint.
        classifier: ``dict(type='linear')``, or ``dict(type='cosine', scale=30)`` in the place of
            ``conv_seg``, or a registered type; a stock checkpoint's ``conv_seg`` then gives the
            directions.
        region: config of the term on the class means of each image, ``type`` defaults to
            RegionRebalance; filled in like ``contrast``. None leaves it out.

    Raises:
        ValueError: a ``loss_decode`` that has another place, ``out_channels=1``, an unknown
            classifier, no ``conv_seg`` to replace, two different priors, an online ``test_prior``,
            or a loss with the name of the contrastive or the region term.
    """

    def __init__(
        self,
        *args: Any,
        contrast: dict | None = None,
        class_prior: Any = None,
        tau_test: float = 0.0,
        test_prior: Any = None,
        classifier: dict | None = None,
        region: dict | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_decode_losses(kwargs.get('loss_decode'), name)
        super().__init__(*args, **kwargs)
        if self.out_channels == 1:
            raise ValueError(
                f'{name} gives a single score (out_channels=1), which num_classes=1 and '
                'num_classes=2 with a sigmoid loss ask for: logit adjustment and contrast need a '
                f'score per class. Set num_classes=2 and leave out_channels out, or use the plain '
                f'{name.removeprefix("LTMI")}'
            )
        if classifier is not None:
            self.conv_seg = build_classifier(classifier, self._classifier())
        names = [getattr(loss, 'loss_name', '') for loss in losses_of(self)]
        for part, config, term in (
            ('contrast', contrast, 'contrastive term'),
            ('region', region, 'region term'),
        ):
            if config is not None and OWN_LOSSES[part] in names:
                raise ValueError(
                    f'a loss of {name} has loss_name={OWN_LOSSES[part]!r}, which is the name of '
                    f'the {term}: give it another'
                )
        for loss in self._own_losses():
            if loss.ignore_index is None:  # DDRHead and PIDHead do not tell their losses
                loss.ignore_index = self.ignore_index
        judge_by_trained_scores(self)
        self._contrast_config = contrast
        self.contrast = None if contrast is None else self._build_contrast()
        self.region = None if region is None else self._build('RegionRebalance', region)
        self._own_prior = PriorBuffer(class_prior, self.num_classes, f'{name}.class_prior')
        self.test_prior = self._build_test_prior(test_prior)
        self.score_reader = ScoreReader(self.num_classes, tau_test)
        if getattr(self, 'conv_seg', None) is not None:
            self.score_reader.add_memory_to(self.conv_seg)
        # Of the step that is being computed, and of the last one for a segmentor with a teacher.
        self._record: HeadRecord | None = None
        self._kept_record: HeadRecord | None = None
        self._taught = False
        self._has_seen_padding = False
        self._share_prior()
        self._update_reader()
        before_load(self, _adapt_state_dict)

    def _own_losses(self) -> list[Any]:
        own = (LogitAdjustedLoss, SoftmaxFocalLoss)
        return [loss for loss in losses_of(self) if isinstance(loss, own)]

    def _build_contrast(self, **more: Any) -> Any:
        return self._build('PixelContrast', {**(self._contrast_config or {}), **more})

    def _build(self, kind: str, config: dict) -> Any:
        return MODELS.build(
            {
                'type': f'mmseg.{kind}',
                'in_channels': self._feature_channels(),
                'num_classes': self.num_classes,
                **config,
            }
        )

    def _feature_channels(self) -> int:
        return self._classifier().in_channels

    def expect_teacher(self, channels: int) -> None:
        """From now on the segmentor gives the teacher's features to :meth:`contrast_losses`.

        The contrastive term, if there is one, is built anew for keys from these features.

        Args:
            channels: channels of the teacher's pixel features.
        """
        self._taught = True
        if self.contrast is not None:
            self.contrast = self._build_contrast(key_channels=channels)
            self._share_prior()

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        where = f'{prefix}score_reader.'
        if self.score_reader is not None and state_folded_reading(
            state_dict, where, local_metadata, self.num_classes
        ):
            how = 'as they are' if self.test_prior is None else 'as they are, without test_prior'
            print_log(
                f'{prefix.rstrip(".") or "the head"}: the checkpoint was converted, and its scores '
                f'are read {how}',
                'current',
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    # Training

    def cls_seg(self, feat: Tensor) -> Tensor:
        logits = super().cls_seg(feat)
        self._note(feat, logits)
        return logits

    def _note(self, features: Tensor, logits: Tensor) -> None:
        """For the terms of the step; outside of a loss it warns where raw scores are exported."""
        if self._record is None:
            warn_where_exported(self.score_reader)
        else:
            self._record.features, self._record.logits = features, logits

    def _stack_batch_gt(self, batch_data_samples: list) -> Any:
        stacked = super()._stack_batch_gt(batch_data_samples)
        if self._record is not None:
            # The last stack is what the head classifies: STDCHead stacks the semantic labels
            # first and then the boundaries that it makes of them. PIDHead adds an edge map.
            labels = stacked[0] if isinstance(stacked, tuple) else stacked
            self._record.labels = labels = labels.squeeze(1)
            self._record.data_samples = batch_data_samples
            if not self._has_seen_padding:  # once, since it waits for a GPU
                self._has_seen_padding = check_padding(
                    labels, batch_data_samples, self.num_classes, self.ignore_index
                )
        return stacked

    def _check_losses_and_priors(self) -> None:
        for loss in self._own_losses():
            if loss.ignore_index != self.ignore_index:
                loss_name, name = type(loss).__name__, type(self).__name__
                raise ValueError(
                    f'{loss_name} has ignore_index={loss.ignore_index}, {name} has '
                    f'ignore_index={self.ignore_index}: give it to {name} alone, whose losses take '
                    'it from there'
                )
        if any(prior.is_open for prior in self._priors()):
            self._share_prior()
        if self.test_prior is not None:
            self.test_prior.check_found()
        for prior in self._priors():
            prior.check_found()
            prior.check_ignore_index(self.ignore_index)
        if self.test_prior is not None:
            self._check_trained_prior()

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The plain head's losses, and those of the contrastive and the region term.

        A step of training (training mode, gradients computed) ends an operating point, and tells
        the reader how scores are read. A validation loss leaves all as it is.

        A head that expects a teacher leaves the contrastive term to its segmentor, which takes the
        record of the step by :meth:`take_record`.

        Raises:
            LabelOutOfRangeError: naming the images.
            ValueError: a loss has another ``ignore_index``; as the class and its priors.
        """
        self._check_losses_and_priors()
        is_step = is_training_step(self)
        if is_step and self.score_reader.has_point:
            print_log(POINT_DROPPED, 'current')
            self.score_reader.reset_point()
        record = self._record = HeadRecord()
        try:
            with ExitStack() as stack:
                for online in {prior for prior in self._priors() if prior.is_online}:
                    stack.enter_context(online.one_step())
                losses = super().loss(*args, **kwargs)
        except LabelOutOfRangeError as error:
            how = self.num_classes, self.ignore_index
            images = bad_images(record.labels, record.data_samples, *how)
            if not images:
                raise
            raise LabelOutOfRangeError(f'{error}; images: {images}') from error
        finally:
            self._record = None
        if is_step:
            self._update_reader(in_training=True)
        if self.region is not None:
            labels = record.class_labels(self.ignore_index)
            losses.update(self.region(record.features, labels))
        if self._taught:
            self._kept_record = record
        elif self.contrast is not None:
            losses.update(self.contrast_losses(record))
        return losses

    def take_record(self) -> HeadRecord:
        """What a head that expects a teacher saw in :meth:`loss`; it lets go of it."""
        record, self._kept_record = self._kept_record or HeadRecord(), None
        return record

    def contrast_losses(
        self, record: HeadRecord, key_features: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The contrastive term and its diagnostics; {} without one.

        Args:
            record: of :meth:`loss`.
            key_features: a teacher's pixel features (B, D, h, w), where one is expected.
        """
        if self.contrast is None:
            return {}
        logits = record.logits.detach() if self.contrast.needs_logits else None
        labels = record.class_labels(self.ignore_index)
        return self.contrast(record.features, labels, logits, key_features)

    def loss_by_feat(self, seg_logits: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The plain head's; where it can, the prior goes in before the upsampling."""
        if not self._adjusts_before_upsampling():
            return super().loss_by_feat(seg_logits, *args, **kwargs)
        loss: Any = self.loss_decode
        # To mmsegmentation's own method, a head whose scores hold the prior already.
        head = SimpleNamespace(
            _stack_batch_gt=self._stack_batch_gt,
            align_corners=self.align_corners,
            ignore_index=self.ignore_index,
            loss_decode=_NamedFunction(loss.of_adjusted, loss.loss_name),
            sampler=None,
        )
        return BaseDecodeHead.loss_by_feat(head, loss.adjust(seg_logits), *args, **kwargs)

    def _adjusts_before_upsampling(self) -> bool:
        """Whether the prior can be added to the scores before they are upsampled.

        Interpolation preserves a constant per class. No copy of the scores is made at full
        resolution: with 150 classes at 512x512 a head's losses take 0.97 times cross-entropy's
        time, and 1.09 times with the prior added there (docs/experiments/performance.md).
        ``acc_seg`` in the log is then of the scores as training's softmax sees them: of the natural
        posterior with ``tau=1`` and no class weights. Elsewhere it is of the raw scores.
        """
        loss, *others = losses_of(self)
        return (
            super().loss_by_feat.__func__ is BaseDecodeHead.loss_by_feat
            and self.sampler is None  # it looks at the scores too
            and not others
            and isinstance(loss, LogitAdjustedLoss)
            and type(loss).forward is LogitAdjustedLoss.forward  # not a user's own
            and not loss.prior.is_online  # it changes when the labels are seen
            and loss.log_prior.numel() == self.num_classes
        )

    # Testing

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        """The plain head's, of scores that are read; metrics without a prior take this head's."""
        reader = self.score_reader
        if reader.has_iou_rule and not reader.has_segmentor:
            raise ValueError(
                'the checkpoint holds the IoU rule, which a segmentor decides by: make model.type '
                'LTMIEncoderDecoder (LTMICascadeEncoderDecoder), or test with mmseg-ltmi test'
            )
        priors = self._priors()
        if not reader.has_shift:  # neither the checkpoint nor, without its file, the config says it
            for prior in priors:
                prior.check_found()
        moves = self.test_prior is None and any(prior.is_online for prior in priors)
        announce_prior(self._known_prior(), moves)
        announce_reading(self.reading_shift(), self.score_reader.opinions)
        reader.is_read = True
        try:
            return super().predict(*args, **kwargs)
        finally:
            reader.is_read = False

    def predict_by_feat(self, seg_logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Before the upsampling, which preserves a constant per class, and only here: a cascade
        # feeds the raw scores of forward() to its next stage, as in training.
        return super().predict_by_feat(self.score_reader(seg_logits), *args, **kwargs)

    def _classifier(self) -> nn.Conv2d:
        classifier = getattr(self, 'conv_seg', None)
        if classifier is None:
            raise ValueError(
                f'{type(self).__name__} has no conv_seg over a feature map, so there are no pixel '
                'features to contrast and no classifier to replace: leave contrast, region and '
                'classifier None here, and give them to the LTMI head of another stage (the coarse '
                'head of a cascade)'
            )
        return classifier


class _NamedFunction:
    """A loss function as mmsegmentation calls its loss modules."""

    def __init__(self, function: Any, loss_name: str) -> None:
        self.function, self.loss_name = function, loss_name

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.function(*args, **kwargs)


def _adapt_state_dict(head: LTMIHeadMixin, state_dict: dict[str, Tensor], prefix: str) -> None:
    rename_keys(
        state_dict,
        prefix,
        {f'inference_prior.{n}': f'score_reader.{n}' for n in ('natural_shift', 'log_prior')},
    )
    parts = {key.removeprefix(prefix).split('.')[0] for key in state_dict if key.startswith(prefix)}
    shift = f'{prefix}score_reader.natural_shift'
    if (
        parts.intersection(CLASSIFIERS)
        and shift not in state_dict
        and head.score_reader is not None
    ):
        # The scores of a stock checkpoint are the natural posterior, whatever the config's loss
        # would make of them. Training on tells the reader otherwise in its first step.
        read, how = torch.zeros(head.num_classes), 'as the natural posterior'
        if head.test_prior is not None:
            head.test_prior.check_found()
            how += ' of its train set'
            if any(not prior.is_open and not prior.is_online for prior in head._priors()):
                read, _ = head._at_test_prior(read)
                how += ', which class_prior is taken to be of, brought to test_prior'
            else:
                how += ', and not brought to test_prior, for which class_prior is wanted'
        print_log(
            f'{prefix.rstrip(".") or "the head"}: the checkpoint is of a stock head, and its '
            f'scores are read {how}',
            'current',
        )
        head.score_reader.natural_shift.copy_(read)
    for name in OWN_LOSSES:
        term = getattr(head, name)
        if term is not None and name not in parts:
            keep_own_where_absent(term, state_dict, f'{prefix}{name}.')
