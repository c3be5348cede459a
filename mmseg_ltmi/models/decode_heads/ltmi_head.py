"""What turns a decode head into its LTMI form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ltmi.models.losses.functional import LabelOutOfRangeError
from mmseg_ltmi.models.losses.logit_adjusted_loss import LogitAdjustedLoss
from mmseg_ltmi.models.losses.natural_shift import losses_of

from .cosine_classifier import replaced_classifier
from .inference_prior import InferencePrior

# A mixin in fact; to the type checker a head, whose methods it extends.
_Head: Any = BaseDecodeHead if TYPE_CHECKING else object


class LTMIHeadMixin(_Head):
    """Adds the contrastive term in training and the inference prior in testing.

    The pixel feature is what ``cls_seg`` receives, and the labels are those that the head itself
    stacks, so a head's forward pass and losses stay as they are. The plain head's state-dict keys
    stay too; ``contrast.*`` and ``inference_prior.*`` come on top, and neither is missed when a
    stock checkpoint is loaded.

    Args:
        contrast: config of the contrastive term, ``type`` defaults to PixelContrast;
            ``in_channels`` and ``num_classes`` are filled in. None leaves it out.
        class_prior: prior of the inference shift; None takes the one of the loss.
        tau_test: operating point, 0 natural and 1 balanced.
        classifier: ``dict(type='linear')``, or ``dict(type='cosine', scale=30)`` in the place of
            ``conv_seg``; a stock checkpoint's ``conv_seg`` then gives the directions.

    Raises:
        ValueError: ``out_channels=1``, an unknown classifier, or no ``conv_seg`` to replace.
    """

    contrast: nn.Module | None
    inference_prior: InferencePrior

    def __init__(
        self,
        *args: Any,
        contrast: dict | None = None,
        class_prior: Any = None,
        tau_test: float = 0.0,
        classifier: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        name = type(self).__name__
        if self.out_channels == 1:
            raise ValueError(
                f'{name} has out_channels=1, a single sigmoid score: logit adjustment and contrast '
                f'need a score per class. Drop out_channels=1 (num_classes={self.num_classes} '
                'scores and a softmax), or use the plain head'
            )
        self.inference_prior = InferencePrior(self.num_classes, class_prior, tau_test)
        self.inference_prior.follow(losses_of(self))
        if classifier is not None:
            self.conv_seg = replaced_classifier(self._classifier(), classifier)
        self._contrast = contrast
        self.contrast = None if contrast is None else self._build_contrast()
        self._seen: dict[str, Any] | None = None

    def _build_contrast(self, **more: Any) -> nn.Module:
        return MODELS.build(
            {
                'type': 'PixelContrast',
                'in_channels': self._classifier().in_channels,
                'num_classes': self.num_classes,
                **(self._contrast or {}),
                **more,
            }
        )

    def expect_teacher(self, channels: int) -> None:
        """Build the contrastive term, if there is one, anew for keys from a teacher's features.

        Args:
            channels: channels of the teacher's pixel features.
        """
        if self.contrast is not None:
            self.contrast = self._build_contrast(key_channels=channels)

    @property
    def tau_test(self) -> float:
        return self.inference_prior.tau_test

    @tau_test.setter
    def tau_test(self, value: float) -> None:
        self.inference_prior.tau_test = value

    def cls_seg(self, feat: Tensor) -> Tensor:
        logits = super().cls_seg(feat)
        if self._seen is not None:
            self._seen.update(features=feat, logits=logits)
        return logits

    def _stack_batch_gt(self, batch_data_samples: list) -> Any:
        stacked = super()._stack_batch_gt(batch_data_samples)
        if self._seen is not None:
            # The last stack is what the head classifies: STDCHead stacks the semantic labels
            # first and then the boundaries that it makes of them. PIDHead adds an edge map.
            labels = stacked[0] if isinstance(stacked, tuple) else stacked
            self._seen.update(labels=labels.squeeze(1), data_samples=batch_data_samples)
        return stacked

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The plain head's losses, and those of the contrastive term.

        Raises:
            LabelOutOfRangeError: naming the images.
        """
        with self.watch() as seen:
            try:
                losses = super().loss(*args, **kwargs)
            except LabelOutOfRangeError as error:
                raise LabelOutOfRangeError(f'{error}; images: {self._bad_images(seen)}') from error
        self.inference_prior.follow(losses_of(self))
        if self.contrast is not None:
            logits = seen['logits'].detach() if self.contrast.needs_logits else None
            keys = seen.get('key_features')
            losses.update(self.contrast(seen['features'], seen['labels'], logits, keys))
        return losses

    def loss_by_feat(self, seg_logits: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The plain head's; where it can, the prior goes in before the upsampling.

        That preserves a constant per class, and no copy of the scores is made at full resolution.
        ``acc_seg`` is then of the natural posterior.
        """
        plain = super().loss_by_feat
        loss, *others = losses_of(self)
        if (
            plain.__func__ is not BaseDecodeHead.loss_by_feat
            or self.sampler is not None  # it looks at the scores too
            or others
            or not isinstance(loss, LogitAdjustedLoss)
            or loss.is_online  # its prior changes when the labels are seen
            or loss.log_prior.numel() != self.num_classes
        ):
            return plain(seg_logits, *args, **kwargs)
        with loss.prior_in_scores():
            shift = (loss.tau * loss.log_prior)[:, None, None]
            return plain(seg_logits + shift, *args, **kwargs)

    def predict_by_feat(self, seg_logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Before the upsampling, which preserves a constant per class, and only here: a cascade
        # feeds the raw scores of forward() to its next stage, as in training.
        return super().predict_by_feat(self.inference_prior(seg_logits), *args, **kwargs)

    @contextmanager
    def watch(self, key_features: Tensor | None = None) -> Iterator[dict[str, Any]]:
        """Record what passes through the head in :meth:`loss`, and let go of it afterwards.

        Args:
            key_features: a teacher's pixel features (B, D, h, w), for the contrastive term.

        Yields:
            a dict that :meth:`loss` fills: 'features' (B, in_channels, h, w), raw 'logits'
            (B, C, h, w), 'labels' (B, H, W) and 'data_samples'.
        """
        if self._seen is not None:  # the segmentor watches already
            yield self._seen
            return
        self._seen = {} if key_features is None else {'key_features': key_features}
        try:
            yield self._seen
        finally:
            self._seen = None

    def _classifier(self) -> nn.Conv2d:
        classifier = getattr(self, 'conv_seg', None)
        if classifier is None:
            raise ValueError(
                f'{type(self).__name__} has no conv_seg over a feature map, so there are no pixel '
                'features to contrast and no classifier to replace: leave contrast and classifier '
                'None here, and give them to the LTMI head of another stage (the coarse head of a '
                'cascade)'
            )
        return classifier

    def _bad_images(self, seen: dict[str, Any]) -> list[str]:
        labels = seen['labels']
        bad = ((labels < 0) | (labels >= self.num_classes)) & (labels != self.ignore_index)
        return [
            sample.metainfo.get('seg_map_path') or sample.metainfo.get('img_path', f'no. {i}')
            for i, sample in enumerate(seen['data_samples'])
            if bad[i].any()
        ]

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, metadata: dict, strict: bool, missing: list, *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        if self.contrast is not None and not any(
            key.startswith(f'{prefix}contrast.') for key in state_dict
        ):
            # A stock checkpoint has no contrastive term; its own initial values are handed to it.
            own = self.contrast.state_dict()
            state_dict.update({f'{prefix}contrast.{key}': value for key, value in own.items()})


def ltmi_head(head: type[BaseDecodeHead]) -> type[BaseDecodeHead]:
    """Register ``LTMI<Head>`` for a head that classifies with ``cls_seg``.

    Args:
        head: a subclass of mmsegmentation's BaseDecodeHead.

    Returns:
        the head itself, unchanged, so that this works as a decorator beside ``register_module``.

    Raises:
        TypeError: not a BaseDecodeHead.

    Examples:
        >>> @ltmi_head
        ... @MODELS.register_module()
        ... class MyHead(BaseDecodeHead): ...
        >>> MODELS.build(dict(type='LTMIMyHead', contrast=dict(class_prior='ade20k'), ...))
    """
    if not (isinstance(head, type) and issubclass(head, BaseDecodeHead)):
        raise TypeError(
            f'ltmi_head takes a subclass of mmseg.models.decode_heads.BaseDecodeHead, got {head!r}'
        )
    name = f'LTMI{head.__name__}'
    doc = f'{head.__name__} with the contrastive term and the inference prior of LTMIHeadMixin.'
    ltmi = type(name, (LTMIHeadMixin, head), {'__doc__': doc, '__module__': head.__module__})
    MODELS.register_module(name=name, module=ltmi)
    return head
