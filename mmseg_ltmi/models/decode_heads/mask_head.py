"""What turns a mask classifier, such as Mask2Former's head, into its LTMI form."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ltmi.compat import require_mmdet, torch_deformable_attention
from mmseg_ltmi.core.contrast import MatchedQuerySampler
from mmseg_ltmi.core.losses import BLVLoss, LabelOutOfRangeError, LogitAdjustedLoss
from mmseg_ltmi.core.posterior import losses_of
from mmseg_ltmi.core.precision import at_least_float32
from mmseg_ltmi.core.priors import PresencePrior, PriorUser, check_same_prior

from .frequency_matching import FrequencyMatching
from .ltmi_head import LTMIHeadMixin

torch_deformable_attention()
logger = logging.getLogger(__name__)
NO_OBJECT_WEIGHT = 0.1
"""Of the stock configs."""

# A mixin in fact; to the type checker a head, whose methods it extends.
_Head: Any = Mask2FormerHead if TYPE_CHECKING else object


class _Adjusted(_Head):
    """Takes what the stock head does not know from the arguments."""

    def __init__(
        self, *args: Any, num_classes: int, loss_cls: Any, loss_decode: Any = None, **kwargs: Any
    ) -> None:
        require_mmdet(type(self))
        loss_cls = _with_no_object(loss_cls, num_classes)
        super().__init__(*args, num_classes=num_classes, loss_cls=loss_cls, **kwargs)
        self.loss_decode = MODELS.build(loss_decode or dict(type='LTMILoss'))


class LTMIMaskHeadMixin(LTMIHeadMixin):
    """Adjusts the class logits of queries in training, contrasts queries, and reads the masks.

    The C class logits are shifted by ``tau log pi`` of the *presence* of classes, in every decoder
    layer and in the matching, less the shift's mean under the prior, so that "no object" keeps its
    odds. Class weights multiply those of ``loss_cls`` and are one in the mean under the prior. The
    natural reading takes off both, their product brought to a mean of one.
    The contrastive term takes the queries that the matching gave a class, or the pixels of the
    pixel decoder's map, as a per-pixel head does.

    ``predict`` shifts the query logits to the natural posterior. Under LTMIEncoderDecoder it gives
    ``sum_q p_q(c) m_q``, as the plain head, whose logarithm the segmentor takes at the size of the
    image; under another segmentor it gives the logarithm itself. ``tau_test`` and an operating
    point are of pixels: they take the prior of pixels off the map.

    Beside the plain head's state-dict keys there are ``contrast.*`` and ``score_reader.*``. The
    log has ``acc_queries``, the share of the matched queries of the last layer whose class has the
    highest adjusted logit, and ``matched_queries``, their share of all.

    Args:
        loss_decode: LogitAdjustedLoss or LTMILoss (the default), of which the head takes the class
            prior, ``tau`` and ``class_weight``; loss and weight stay those of ``loss_cls``.
        class_prior: the class prior; its image counts are the prior of presence.
        loss_cls: as for the plain head; a ``class_weight`` of C numbers gets 0.1 for "no object".
        contrast: as for LTMIHeadMixin; the sampler of queries is MatchedQuerySampler.
        contrast_at: 'queries' or 'pixels', what is contrasted. Pixels have the prior of pixels.
        contrast_layers: 'last' or 'all', the decoder layers whose queries are contrasted.
        shift_at: 'map' or 'queries', where ``tau_test`` acts. An operating point acts on the map,
            on which it was chosen.
        frequency_matching: arguments of FrequencyMatching, which matches objects of rare classes
            with several queries; the prior of presence is then that of the matched queries, and the
            natural reading takes the repetition off. None leaves the matching as it is.

    Raises:
        ImportError: mmdet or a part of it is missing.
        ValueError: as LTMIHeadMixin; an online prior, a loss of another kind or with a loss_weight,
            an unknown switch, ``classifier``, ``test_prior`` or ``region``.
    """

    assigner: Any
    loss_decode: LogitAdjustedLoss
    class_weight: list[float]
    presence: PresencePrior
    log_queries: Tensor
    stock_weight: Tensor
    _layer_labels: list[Tensor] | None = None

    def __init__(
        self,
        *args: Any,
        contrast_at: str = 'queries',
        contrast_layers: str = 'last',
        shift_at: str = 'map',
        frequency_matching: dict | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        for argument, value, known in (
            ('contrast_at', contrast_at, ('queries', 'pixels')),
            ('contrast_layers', contrast_layers, ('last', 'all')),
            ('shift_at', shift_at, ('map', 'queries')),
        ):
            if value not in known:
                raise ValueError(
                    f'{name}.{argument} is {value!r}: use {known[0]!r} or {known[1]!r}'
                )
        if kwargs.get('classifier') is not None:
            raise ValueError(f'{name} has no conv_seg to replace: leave classifier out')
        if kwargs.get('test_prior') is not None:
            raise ValueError(
                f'{name} has no test_prior: its prior is that of the presence of classes, and its '
                'scores are read for images as in training'
            )
        if kwargs.get('region') is not None:
            raise ValueError(
                f'{name} has one query for a class of an image, which contrast= takes, and no '
                'pixels to average: leave region out'
            )
        self.contrast_at, self.contrast_layers = contrast_at, contrast_layers
        self.shift_at = shift_at
        self._matching_config = frequency_matching
        super().__init__(*args, **kwargs)

    def _feature_channels(self) -> int:
        if self.contrast_at == 'pixels':
            return self.pixel_decoder.mask_feature.out_channels
        return self.cls_embed.in_features

    def _build_contrast(self, **more: Any) -> Any:
        sampler = (self._contrast_config or {}).get('sampler') or {}
        if isinstance(sampler, dict) and self.contrast_at == 'queries':
            sampler = {'type': MatchedQuerySampler, **sampler}
        contrast = super()._build_contrast(sampler=sampler, **more)
        if contrast.needs_logits:
            raise ValueError(
                f'{type(self).__name__} has no scores of pixels, which '
                f'{type(contrast.sampler).__name__} draws by: use another sampler'
            )
        return contrast

    # One class prior, read as that of presence by loss and contrast

    def _share_prior(self) -> None:
        name = type(self).__name__
        if 'presence' not in self._modules:
            self._check_loss()
            self._stock_weight = list(self.class_weight)
            stock = torch.tensor(self._stock_weight[:-1])
            self.register_buffer('stock_weight', stock, persistent=False)
            self.presence = PresencePrior(self.num_classes, f'{name}.class_prior')
            # Of the queries that an object of each class gets.
            self.register_buffer('log_queries', torch.zeros(self.num_classes), persistent=False)
            if self._matching_config is not None:
                self.assigner = FrequencyMatching(self.assigner, **self._matching_config)
        users = [u for u in (*losses_of(self), self.contrast) if isinstance(u, PriorUser)]
        given = [self._own_prior, *(u.prior for u in users if u.prior is not self.presence)]
        if any(prior.is_online for prior in given):
            raise ValueError(
                f"the class prior of {name} is 'online', which counts pixels, where a mask "
                'classifier needs the images that hold a class: leave it None, so that '
                'ClassPriorHook counts the train set, or name one'
            )
        check_same_prior(given)
        known = next((prior for prior in given if not prior.is_open), None)
        missing = next((prior.missing for prior in given if prior.missing), '')
        of_pixels = self.contrast if self.contrast_at == 'pixels' else None
        for user in users:
            if user is not of_pixels:
                user.share_prior(self.presence)
        if known is not None and self._own_prior.is_open:
            self._own_prior.set(known.class_prior)
        if self._own_prior.is_open:
            for prior in self._priors():
                prior.missing = missing
            return
        found: Any = self._own_prior.class_prior
        self.presence.set(found)
        if isinstance(self.assigner, FrequencyMatching):
            self.assigner.set_prior(found)
            self.log_queries = self.assigner.queries.to(self.log_queries).log()
            # Losses and contrast see the classes as often as queries are matched with them.
            self.presence.log_prior = (self.presence.log_prior + self.log_queries).log_softmax(0)
        for user in users:
            if user is of_pixels:
                user.set_class_prior(found)
            else:
                user._on_new_prior()
        self._weigh_classes()

    def _check_loss(self) -> None:
        loss = self.loss_decode
        is_noisy = isinstance(loss, BLVLoss)
        if not isinstance(loss, LogitAdjustedLoss) or is_noisy or loss.loss_weight != 1:
            raise ValueError(
                f'{type(self).__name__}.loss_decode says how class logits are adjusted: give '
                'LTMILoss or LogitAdjustedLoss (BLVLoss has no form for queries), and the '
                'weight of the loss in loss_cls'
            )

    def _weigh_classes(self) -> None:
        weight = self._class_weights()
        if weight is not None:
            found = torch.tensor(self._stock_weight[:-1]) * weight.cpu()
            self.class_weight = [*found.tolist(), self._stock_weight[-1]]
            self.loss_cls.class_weight = self.class_weight

    def _class_weights(self) -> Tensor | None:
        """float32 (C,), whose mean under the prior is one."""
        weight = self.loss_decode.class_weights()
        return None if weight is None else self._centred(weight)

    def _centred(self, weight: Tensor) -> Tensor:
        return weight / (weight * self._presence()).sum()

    def _presence(self) -> Tensor:
        return self.loss_decode.prior.required().exp()

    def train_shift(self) -> Tensor:
        """What training adds to the C class logits, float32 (C,), of mean zero under the prior."""
        shift = self.loss_decode.tau * self.loss_decode.prior.required()
        return shift - (shift * self._presence()).sum()

    def _update_reader(self, in_training: bool = False) -> None:
        if self.presence.is_open:
            return
        # An object that is matched n times is counted n times: to the natural posterior by -log n.
        shift, weight = self.train_shift() - self.log_queries, self.loss_decode.class_weights()
        weight = self.stock_weight if weight is None else weight * self.stock_weight
        # A class of weight zero is not learned: it gets the smallest shift.
        weight = self._centred(weight.where(weight > 0, weight.max()))
        self.score_reader.update(shift - weight.log(), self.log_prior)

    # Training

    def _seg_data_to_instance_data(self, batch_data_samples: list) -> Any:
        found = super()._seg_data_to_instance_data(batch_data_samples)
        if self._record is not None:
            self._record.labels = torch.stack([s.gt_sem_seg.data[0] for s in batch_data_samples])
            self._record.data_samples = batch_data_samples
        for instances in found[0]:
            bad = (instances.labels < 0) | (instances.labels >= self.num_classes)
            if not bad.is_cuda and bad.any():  # a GPU would be waited for
                raise LabelOutOfRangeError(
                    f'labels {instances.labels[bad].tolist()} are neither a class (0..'
                    f'{self.num_classes - 1}) nor ignore_index={self.ignore_index}: check '
                    'num_classes, reduce_zero_label, the label maps and seg_pad_val'
                )
        return found

    def forward(self, x: Any, batch_data_samples: Any = None) -> Any:
        """The plain head's; with the natural shift in the last layer's logits where it predicts."""
        seen: list[Tensor] = []
        if self.contrast_at == 'pixels':
            hook = self.pixel_decoder.register_forward_hook(lambda _, __, out: seen.append(out[0]))
        else:
            hook = self.cls_embed.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            scores, masks = super().forward(x, batch_data_samples)
        finally:
            hook.remove()
        if self._record is not None and self.contrast_at == 'pixels':
            self._record.features = seen[-1]
        elif self._record is not None:
            layers = torch.cat([each.reshape(-1, *each.shape[-3:]) for each in seen])
            # (layer, image, query, channel) as a map of (image, channel, queries, 1)
            layers = layers if self.contrast_layers == 'all' else layers[-1:]
            self._record.features = layers.permute(1, 3, 0, 2).flatten(2)[..., None]
        elif self.score_reader.is_read:
            shift = self.score_reader.known_natural_shift()
            if self.shift_at == 'queries':
                shift = shift + self.score_reader.tau_shift()
            scores = [*scores[:-1], at_least_float32(scores[-1]) + F.pad(shift, (0, 1))]
        return scores, masks

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        targets = super().get_targets(*args, **kwargs)
        if self._layer_labels is not None:
            self._layer_labels.append(torch.stack(targets[0]))
        return targets

    def _adjusts_before_upsampling(self) -> bool:
        return False

    def loss_by_feat(self, seg_logits: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The plain head's losses, of adjusted class logits, and the diagnostics.

        Args:
            seg_logits: class logits (B, Q, C + 1) of each decoder layer.
        """
        shift = F.pad(self.train_shift(), (0, 1))
        adjusted = [at_least_float32(scores) + shift for scores in seg_logits]
        self._layer_labels = []
        try:
            losses = super().loss_by_feat(adjusted, *args, **kwargs)
            labels = torch.stack(self._layer_labels)
        finally:
            self._layer_labels = None
        if self._record is not None and self.contrast_at == 'queries':
            layers = labels if self.contrast_layers == 'all' else labels[-1:]
            self._record.labels = layers.permute(1, 0, 2).flatten(1)[..., None]
        matched = labels[-1] < self.num_classes
        correct = (adjusted[-1][..., :-1].argmax(-1) == labels[-1]) & matched
        losses['acc_queries'] = 100 * correct.sum() / matched.sum().clamp(min=1)
        losses['matched_queries'] = matched.float().mean()
        return losses

    # Testing

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        """The plain head's sums; their logarithm, read, under a segmentor that reads none."""
        summed = super().predict(*args, **kwargs)
        return summed if self.score_reader.has_segmentor else self.read_masks(summed)

    def reading_shift(self) -> Tensor:
        if self.shift_at == 'queries' and self.score_reader.tau_test:
            # In the queries' logits, from where the map's scores do not tell it.
            return torch.full_like(self.score_reader.point_shift, torch.nan)
        return super().reading_shift()

    def read_masks(self, summed: Tensor) -> Tensor:
        """Scores (..., C, H, W) of the sums that :meth:`predict` makes."""
        reader, at_queries = self.score_reader, self.shift_at == 'queries'
        # A tau of an operating point was measured on the map.
        shift = reader.point_shift if at_queries else reader.reading_shift()
        return reader.read_masks(summed, shift)


def _with_no_object(loss_cls: Any, num_classes: int) -> Any:
    """The config with a class weight of C + 1 numbers, as the plain head needs it."""
    given = loss_cls.get('class_weight')
    weight = [1.0] * num_classes if given is None else list(given)
    if len(weight) == num_classes:
        weight.append(NO_OBJECT_WEIGHT)
        if given is not None:
            logger.info(
                'loss_cls.class_weight has %d entries; %g for "no object" is added: give %d to set '
                'it',
                num_classes,
                NO_OBJECT_WEIGHT,
                num_classes + 1,
            )
    if len(weight) != num_classes + 1:
        raise ValueError(
            f'loss_cls.class_weight has {len(weight)} entries: give {num_classes} (num_classes), '
            f'to which {NO_OBJECT_WEIGHT} for "no object" is added, or {num_classes + 1} with it'
        )
    made = type(loss_cls)(loss_cls)
    made['class_weight'] = weight
    return made


def _make(head: type[nn.Module]) -> Any:
    name = f'LTMI{head.__name__}'
    doc = f'{head.__name__} with what LTMIMaskHeadMixin adds.'
    bases = (LTMIMaskHeadMixin, _Adjusted, head)
    made: Any = type(name, bases, {'__doc__': doc, '__module__': __name__})
    MODELS.register_module(name=name, module=made)
    return made


LTMIMaskFormerHead = _make(MaskFormerHead)
LTMIMask2FormerHead = _make(Mask2FormerHead)
