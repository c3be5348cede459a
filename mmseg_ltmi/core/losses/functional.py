"""Pure tensor functions behind the losses.

Source: Suh & Seo, "Long-Tailed Recognition by Mutual Information Maximization between Latent
Features and Ground-Truth Labels", ICML 2023 (arXiv 2305.01160). The pixel form is this project's
adaptation. Everything is computed in float32 at least, whatever autocast says.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import at_least_float32
from .class_mixture import class_mixture


class LabelOutOfRangeError(ValueError):
    """A label is neither a class (0..C-1) nor ``ignore_index``."""


def logit_adjusted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    log_prior: Tensor,
    tau: float = 1.0,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: str = 'mean',
    weight: Tensor | None = None,
    avg_non_ignore: bool = True,
) -> Tensor:
    """Cross-entropy of the adjusted logits ``s + tau * log pi`` (the parametric model of p(z|y)).

    With a uniform prior this is ``F.cross_entropy``, also with ``class_weight``.

    Args:
        logits: raw scores s, float.
        target: class indices or ``ignore_index``, int64.
        log_prior: log of the class prior; ``-inf`` takes a class out.
        tau: strength of the adjustment; 0 is plain cross-entropy.
        class_weight: (C,) weight of each class; the mean divides by the weights' sum.
        ignore_index: label that takes no part.
        reduction: 'mean', 'sum' or 'none'.
        weight: (N, *) weight of each pixel; it does not change what the mean divides by.
        avg_non_ignore: let 'mean' divide by the valid pixels only; otherwise by all of them, as
            mmsegmentation's CrossEntropyLoss does by default. With ``class_weight`` an ignored
            pixel counts as one of mean weight.

    Shape:
        logits (N, C, *), target (N, *), log_prior (C,). Returns a scalar, or (N, *) for 'none'.
        Without a valid pixel the value is zero and still has a graph.

    Raises:
        ValueError: shapes that do not fit, an unknown reduction.
        LabelOutOfRangeError: a label outside 0..C-1 that is not ``ignore_index`` (checked on the
            CPU; on a GPU the check would stall the stream, and torch asserts on the device).
    """
    check_reduction(reduction)
    num_classes = logits.shape[1]
    if log_prior.shape != (num_classes,):
        raise ValueError(
            f'log_prior has shape {tuple(log_prior.shape)}, but the logits have {num_classes} '
            'classes: give one log-probability per class'
        )
    if target.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f'target has shape {tuple(target.shape)}, which does not fit logits of shape '
            f'{tuple(logits.shape)}: it must be the same without the class dimension. Turn colour '
            'masks into class indices first (mmseg-ltmi convert-labels)'
        )
    if not target.is_cuda:
        _check_labels(target, num_classes, ignore_index)

    with torch.autocast(logits.device.type, enabled=False):
        if tau:
            # The sum has the shift's precision, so that float16 is converted in the same pass.
            precise = torch.promote_types(logits.dtype, torch.float32)
            shift = (tau * log_prior).to(logits.device, precise)
            scores = logits + shift.view(1, -1, *[1] * (logits.ndim - 2))
        else:
            scores = at_least_float32(logits)
        if class_weight is not None:
            class_weight = class_weight.to(scores)
        loss = F.cross_entropy(
            scores,
            target,
            weight=class_weight,
            ignore_index=ignore_index,
            reduction='none' if weight is not None or reduction == 'none' else 'sum',
        )
        if weight is not None:
            loss = loss * weight.to(loss)
            if reduction != 'none':
                loss = loss.sum()
        if reduction != 'mean':
            return loss
        valid = target != ignore_index
        if class_weight is None:
            total = (valid if avg_non_ignore else torch.ones_like(valid)).sum().to(loss)
        else:
            total = (class_weight[target.where(valid, 0)] * valid).sum()
            if not avg_non_ignore:  # an ignored pixel counts as much as the mean of the others
                total = total * target.numel() / valid.sum().clamp(min=1)
        return loss / total.where(total > 0, torch.ones_like(total))


def class_log_likelihood(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    temperature: float | Tensor,
    *,
    exclude: Tensor | None = None,
) -> Tensor:
    """Log-likelihood of each query under each class's Gaussian mixture, up to one constant.

    ``log p(z|c) = log(1/|K_c| * sum_{j in K_c} exp(q.k_j / T))``, by a log-sum-exp per class.

    Args:
        query: unit vectors.
        key: unit vectors, the mixture's centres.
        key_labels: class of each key, int64; a label outside 0..num_classes-1 takes no part.
        num_classes: C.
        temperature: T > 0, a number or a scalar tensor (it receives gradient).
        exclude: bool; True leaves a key out of a query's mixture.

    Shape:
        query (N, D), key (K, D), key_labels (K,), exclude (N, K). Returns (N, C), ``-inf`` where a
        class has no key.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = at_least_float32(query), at_least_float32(key)
        return class_mixture(
            query / temperature, key, key_labels, num_classes, exclude=exclude
        ).held_out


class GMLTerms(NamedTuple):
    """The Gaussian mixture likelihood loss in its parts.

    Attributes:
        contrast: L_con, which moves the features; T is a constant in it.
        temperature: L_T, the same loss without own keys, which moves T alone; None if T is not
            learned.
        log_likelihood: (N, C), without graph and without own keys, which know their class.
    """

    contrast: Tensor
    temperature: Tensor | None
    log_likelihood: Tensor


def gml_terms(
    query: Tensor,
    query_labels: Tensor,
    key: Tensor,
    key_labels: Tensor,
    log_prior: Tensor,
    log_temperature: Tensor,
    *,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    own_key: bool = True,
    learn_temperature: bool = True,
    reduction: str = 'mean',
) -> GMLTerms:
    """Both terms of the contrastive loss, from one pass over the scores.

    Args:
        query: unit vectors.
        query_labels: class of each query, int64; a label outside 0..C-1 contributes nothing.
        key: unit vectors.
        key_labels: class of each key, int64.
        log_prior: log class distribution *of the queries*.
        log_temperature: log T, one element; it receives gradient from ``temperature`` alone.
        query_ids: identity of each query, int64; with ``key_ids``, keys of the same identity are a
            query's own.
        key_ids: identity of each key, int64.
        own_key: whether own keys count in ``contrast``; they never do in ``temperature``.
        learn_temperature: whether ``temperature`` is wanted.
        reduction: 'mean' (over the usable queries), 'sum' or 'none'.

    Shape:
        as for :func:`gml_loss`; log_temperature has one element.

    Raises:
        ValueError: only one of the two ids is given, an unknown reduction.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = at_least_float32(query), at_least_float32(key)
        mixture = class_mixture(
            query / log_temperature.detach().exp(),
            key,
            key_labels,
            log_prior.shape[0],
            query_ids=query_ids,
            key_ids=key_ids,
            only_held_out=not own_key,
        )
        log_likelihood = mixture.everything
        if learn_temperature:
            # The difference is 0; through it T receives its gradient, in closed form.
            moved = log_temperature - log_temperature.detach()
            held_out = mixture.held_out.detach() - mixture.expected * moved
            log_likelihood = torch.stack([log_likelihood, held_out])  # half of the launches
        losses = mixture_cross_entropy(log_likelihood, query_labels, log_prior, reduction)
        contrast, temperature = losses if learn_temperature else (losses, None)
        return GMLTerms(contrast, temperature, mixture.held_out.detach())


def gml_loss(
    query: Tensor,
    query_labels: Tensor,
    key: Tensor,
    key_labels: Tensor,
    log_prior: Tensor,
    temperature: float | Tensor,
    *,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    reduction: str = 'mean',
) -> Tensor:
    """Gaussian mixture likelihood loss ``CE({log p(z|c) + log pi_c}_c, y)``.

    For both terms of the method see GMLLoss, or :func:`gml_terms`: they take one pass over the
    scores, where a call of this for each term takes two.

    Args:
        query: unit vectors.
        query_labels: class of each query, int64; a label outside 0..C-1 contributes nothing.
        key: unit vectors.
        key_labels: class of each key, int64.
        log_prior: log class distribution *of the queries*.
        temperature: T > 0, a number or a scalar tensor (it receives gradient).
        query_ids: identity of each query, int64; with ``key_ids``, a key of the same identity is
            left out of that query's mixture.
        key_ids: identity of each key, int64.
        reduction: 'mean' (over the usable queries), 'sum' or 'none'.

    Shape:
        query (N, D), query_labels (N,), key (K, D), key_labels (K,), log_prior (C,), ids (N,) and
        (K,). Returns a scalar, or (N,) for 'none'. A query whose class has no key contributes
        nothing; without a usable query the value is zero and still has a graph.

    Raises:
        ValueError: only one of the two ids is given, an unknown reduction.
    """
    learns = isinstance(temperature, Tensor) and temperature.requires_grad
    precise = torch.promote_types(query.dtype, torch.float32)
    if not isinstance(temperature, Tensor):
        temperature = torch.full((), temperature, dtype=precise, device=query.device)
    terms = gml_terms(
        query,
        query_labels,
        key,
        key_labels,
        log_prior,
        temperature.log(),
        query_ids=query_ids,
        key_ids=key_ids,
        own_key=False,
        learn_temperature=learns,
        reduction=reduction,
    )
    if terms.temperature is None:
        return terms.contrast
    # Both have one value: the second lends its gradient by T.
    return terms.contrast + (terms.temperature - terms.temperature.detach())


def mixture_cross_entropy(
    log_likelihood: Tensor, query_labels: Tensor, log_prior: Tensor, reduction: str = 'mean'
) -> Tensor:
    """:func:`gml_loss` from the class log-likelihoods, ``-inf`` where there is no key.

    Shape:
        log_likelihood (*, N, C). Returns (*), or (*, N) for 'none'.
    """
    check_reduction(reduction)
    log_joint = log_likelihood + log_prior.to(log_likelihood)
    known = (query_labels >= 0) & (query_labels < log_prior.shape[0])
    label = query_labels.where(known, 0).expand(log_joint.shape[:-1])
    own = log_joint.gather(-1, label[..., None])[..., 0]
    usable = known & (own > -torch.inf)
    # Rows that are not used are made harmless before the log-sum-exp, or -inf would become NaN.
    log_joint = log_joint.where(usable[..., None], 0)
    loss = (log_joint.logsumexp(-1) - own.where(usable, 0)).where(usable, 0)
    if reduction == 'none':
        return loss
    if reduction == 'sum':
        return loss.sum(-1)
    return loss.sum(-1) / usable.sum(-1).clamp(min=1)


def distillation_loss(
    student: Tensor, teacher: Tensor, valid: Tensor, temperature: float = 4.0
) -> Tensor:
    """``T^2 KL(softmax(t / T) || softmax(s / T))``, the mean over the valid pixels.

    Args:
        student: scores s, float.
        teacher: scores t, float.
        valid: bool, the pixels that count.
        temperature: T > 0; the factor T^2 keeps the gradient's scale.

    Shape:
        student and teacher (N, C, *), valid (N, *). Returns a scalar. Without a valid pixel the
        value is zero and still has a graph.
    """
    log_s, log_t = (
        (at_least_float32(scores) / temperature).log_softmax(1) for scores in (student, teacher)
    )
    divergence = F.kl_div(log_s, log_t, reduction='none', log_target=True).sum(1).where(valid, 0)
    return temperature**2 * divergence.sum() / valid.sum().clamp(min=1)


def check_reduction(reduction: str) -> None:
    """Raise ValueError for what no loss knows."""
    if reduction not in ('mean', 'sum', 'none'):
        raise ValueError(f"reduction is {reduction!r}: use 'mean', 'sum' or 'none'")


def _check_labels(target: Tensor, num_classes: int, ignore_index: int) -> None:
    bad = ((target < 0) | (target >= num_classes)) & (target != ignore_index)
    if bad.any():
        raise LabelOutOfRangeError(
            f'labels {target[bad].unique().tolist()} are neither a class (0..{num_classes - 1}) '
            f'nor ignore_index={ignore_index}: check num_classes, reduce_zero_label, the label '
            'maps and what pads them (seg_pad_val of the data_preprocessor)'
        )
