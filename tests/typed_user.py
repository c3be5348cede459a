"""A user's program, which `make lint` checks strictly: the public names have types."""

from __future__ import annotations

from typing import assert_type

import torch
from torch import Tensor, nn

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core import (
    FeatureRecorder,
    GMLLoss,
    LogitAdjustedLoss,
    LTMILoss,
    OperatingPoint,
    PixelContrast,
    ScoreReader,
)
from mmseg_ltmi.core.losses.functional import (
    class_log_likelihood,
    gml_loss,
    logit_adjusted_cross_entropy,
)


def use(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    prior = ClassPrior([90, 9, 1], classes=['road', 'car', 'sign'])
    assert_type(prior.probs(), Tensor)
    assert_type(prior.num_classes, int)
    assert_type(prior.groups().tail, tuple[int, ...])
    prior = ClassPrior.from_label_files(['a.png'], num_classes=3)
    assert_type(ClassPrior.load('ade20k'), ClassPrior)

    criterion: LogitAdjustedLoss = LTMILoss(prior)
    recorder = FeatureRecorder(network)
    assert_type(recorder.channels, int)
    contrast = PixelContrast(recorder.channels, 3, prior)
    losses = contrast(recorder.features, labels)
    assert_type(criterion.natural_shift(), Tensor | None)
    total: Tensor = criterion(network(images), labels) + losses['loss_contrast']

    reader = ScoreReader(num_classes=3, tau_test=0.5)
    reader.update(criterion.natural_shift(), criterion.log_prior)
    point = OperatingPoint('tau', prior.names, tuple(reader.log_prior.tolist()), tau=0.25)
    reader.set_point(point)
    assert_type(reader.decide(total), Tensor)
    return total


def use_functions(scores: Tensor, labels: Tensor, q: Tensor, k: Tensor, of_k: Tensor) -> Tensor:
    log_prior = torch.zeros(3)
    loss = logit_adjusted_cross_entropy(scores, labels, log_prior)
    assert_type(loss, Tensor)
    return loss + class_log_likelihood(q, k, of_k, 3, torch.tensor(0.1)).sum()


assert callable(gml_loss) and issubclass(GMLLoss, nn.Module)
