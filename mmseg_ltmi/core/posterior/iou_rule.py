"""The decision that maximises the mIoU of a whole data set, fitted to posteriors.

mIoU = mean_c TP_c / U_c with U_c = P_c + G_c - TP_c. One more pixel given to class c earns 1/U_c if
it is right and costs IoU_c/U_c if it is wrong, so the best decision is the argmax of
``[p_c (1 + IoU_c) - IoU_c] / U_c``, affine in the posterior. It is a plug-in rule for a
linear-fractional metric (Koyejo et al. 2014; Narasimhan et al. 2015).

IoU_c and U_c are counted with labels, or expected under a posterior. The second has less noise: a
class of which few images are at hand still has a probability in all the others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .areas import BLOCK, decision_areas, expected_areas


class IoURule(NamedTuple):
    """The rule, and what it is worth where it was fitted.

    Attributes:
        iou: float64 (C,), IoU_c of the operating point, 0..1.
        union: float64 (C,), U_c as a share of all pixels.
        miou: mIoU of the rule, 0..1.
        miou_argmax: mIoU of the plain argmax.
    """

    iou: Tensor
    union: Tensor
    miou: float
    miou_argmax: float

    def as_argmax(self) -> IoURule:
        """A rule that decides by argmax: with IoU_c = 0 and equal unions it does."""
        flat = torch.ones_like(self.union) / len(self.union)
        return IoURule(torch.zeros_like(self.iou), flat, self.miou_argmax, self.miou_argmax)


def iou_scores(posterior: Tensor, iou: Tensor, union: Tensor, dim: int = -1) -> Tensor:
    """``[p_c (1 + IoU_c) - IoU_c] / U_c``.

    Args:
        posterior: sums to one over the classes.
        iou: (C,).
        union: (C,), positive.
        dim: of the classes.
    """
    scale = union.min() / union  # a common factor; it keeps rare classes' scores near one
    shape = [1] * posterior.ndim
    shape[dim] = -1
    gain, cost = ((scale * v).to(posterior).view(shape) for v in (1 + iou, iou))
    return posterior * gain - cost


def decide_by_iou(posterior: Tensor, iou: Tensor, union: Tensor) -> Tensor:
    """Classes, int64 (M,), of the posterior (M, C) of many pixels."""
    # A CPU keeps a block in its cache and is 3 times as fast.
    parts = [iou_scores(of, iou, union).argmax(1) for of in posterior.split(BLOCK)]
    return torch.cat(parts)


def fit_iou_rule(
    posterior: Tensor,
    label: Tensor,
    probs: Tensor,
    weight: Tensor | None = None,
    rounds: int = 12,
    damping: float = 0.5,
) -> IoURule:
    """Fit the rule by its fixed point, from argmax, from the balanced classifier and from halfway.

    Args:
        posterior: (M, C) natural posterior of the pixels.
        label: int64 (M,), classes. Or float (M, C), how probable each class is: everything is
            then an expected value, in place of a count. The posterior itself serves if it is
            calibrated.
        probs: (C,) class prior. A class without a label cannot be fitted: it gets the mean IoU of
            the others and the union that its prior tells.
        weight: (M,) number of pixels that each one stands for; None is one.
        rounds: iterations from each start.
        damping: share of the old value that stays in each.

    Returns:
        the best iterate, whose mIoU on these pixels is that of argmax or better, counted or
        expected. mIoU is over the classes that have a label.

    Raises:
        ValueError: no pixel.
    """
    if not len(label):
        raise ValueError('the IoU rule needs labelled pixels, but there is none')
    weight = None if weight is None else weight.double()
    held: Tensor | None = None

    def areas(decision: Tensor) -> Tensor:
        if label.is_floating_point():
            return expected_areas(decision, label, weight, held)
        return decision_areas(decision, label, posterior.shape[1], weight)

    argmax = posterior.argmax(1)
    held = areas(argmax)[3]
    seen = held > 0

    def measure(decision: Tensor) -> tuple[Tensor, Tensor]:
        intersect, union, *_ = areas(decision)
        iou = intersect / union.clamp(min=torch.finfo(torch.float64).tiny)
        return (
            iou.where(seen, iou[seen].mean()),
            (union / held.sum()).where(seen, probs.double().clamp(min=1e-12)),
        )

    miou_argmax = float(measure(argmax)[0][seen].mean())
    best: IoURule | None = None
    # A fixed point is a local optimum, so there are several places to start from.
    for tau in (0.0, 0.5, 1.0):
        balance = probs.to(posterior).clamp(min=1e-12) ** tau
        iou, union = measure((posterior / balance).argmax(1))
        for _ in range(rounds):
            new_iou, new_union = measure(decide_by_iou(posterior, iou, union))
            miou = float(new_iou[seen].mean())
            if miou >= (miou_argmax if best is None else best.miou):
                best = IoURule(iou, union, miou, miou_argmax)
            iou = damping * iou + (1 - damping) * new_iou
            union = damping * union + (1 - damping) * new_union
    return best or IoURule(iou, union, miou_argmax, miou_argmax).as_argmax()
