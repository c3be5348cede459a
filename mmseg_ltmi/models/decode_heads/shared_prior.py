"""The class prior that a head's losses and terms share, and the reading that follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmseg_ltmi.core.contrast import PixelContrast
from mmseg_ltmi.core.posterior import ScoreReader, losses_of, predicting_losses_of, stated_shift
from mmseg_ltmi.core.priors import (
    ClassPrior,
    PriorBuffer,
    PriorUser,
    check_same_prior,
    is_same_log_prior,
)
from mmseg_ltmi.core.priors.class_prior import occurs
from mmseg_ltmi.core.region_rebalance import RegionRebalance

# A mixin in fact; to the type checker a module, as the functions below take one.
_Module: Any = nn.Module if TYPE_CHECKING else object


class SharedPriorMixin(_Module):
    """A head with one class prior, by which its scores are read.

    Whoever of the head, its losses, its contrast and its region term names no prior takes that of
    the others; two that differ are an error.
    """

    num_classes: int
    contrast: PixelContrast | None
    region: RegionRebalance | None
    score_reader: ScoreReader
    test_prior: PriorBuffer | None
    _own_prior: PriorBuffer

    def _priors(self) -> list[PriorBuffer]:
        losses = [loss.prior for loss in losses_of(self) if isinstance(loss, PriorUser)]
        terms = [getattr(term, 'prior', None) for term in (self.contrast, self.region)]
        return [self._own_prior, *losses, *(prior for prior in terms if prior is not None)]

    def _build_test_prior(self, value: Any) -> PriorBuffer | None:
        if value is None:
            return None
        prior = PriorBuffer(value, self.num_classes, f'{type(self).__name__}.test_prior')
        if prior.is_online:
            raise ValueError(
                f'{prior.name} is online, but training does not see the images that it is of: name '
                'a prior of them, such as a file of mmseg-ltmi count'
            )
        return prior

    def _share_prior(self) -> None:
        """Let whoever has no prior take that of the others.

        Raises:
            ValueError: two differ, or nobody would count an online one.
        """
        priors = self._priors()
        check_same_prior(priors)
        known = next((prior for prior in priors if not prior.is_open), None)
        if known is None:
            missing = next((prior.missing for prior in priors if prior.missing), '')
            for prior in priors:  # so that nobody counts one in its place
                prior.missing = missing
            return
        known.expect_classes(self.num_classes)  # before EMAHook copies the counts
        if self._own_prior.is_waiting and not known.is_online:
            self._own_prior.set(known.class_prior)
        parts = [*losses_of(self), self.contrast, self.region]
        users = [part for part in parts if isinstance(part, PriorUser)]
        for user in users:
            if known.is_online and user.prior is not known:
                user.share_prior(known)  # counted once a step, by the first that has it
            elif user.needs_class_prior:
                user.set_class_prior(known.class_prior)
        if known is self._own_prior and known.is_online:
            if not users:
                raise ValueError(
                    f'{known.name} is online, but the head has neither a LogitAdjustedLoss nor '
                    'contrast= nor region=, which count the labels'
                )
            users[0].counts_labels = True  # nobody else does

    def _check_trained_prior(self) -> None:
        if all(prior.is_open and not prior.is_online for prior in self._priors()):
            raise ValueError(
                f'{type(self).__name__} has test_prior, but not the prior of training, from which '
                'scores are brought to it: give class_prior (mmseg-ltmi count --as-trained makes '
                "one), or custom_hooks=[dict(type='ClassPriorHook')]"
            )

    @property
    def needs_class_prior(self) -> bool:
        """Whether nobody has a prior yet; ClassPriorHook then calls :meth:`set_class_prior`."""
        if self.score_reader is None:  # in a moving average, which has no use for one
            return False
        return all(prior.is_waiting for prior in self._priors())

    def set_class_prior(self, class_prior: Any) -> None:
        """Set the head's prior, in any form that ``class_prior`` of the head takes, errors too."""
        self._own_prior.set(class_prior)
        self._share_prior()
        self._update_reader()

    @property
    def log_prior(self) -> Tensor:
        """float32 (C,), or (0,) while it is open."""
        return next((p for p in self._priors() if not p.is_open), self._own_prior).log_prior

    def _update_reader(self, in_training: bool = False) -> None:
        if not in_training and any(prior.is_online for prior in self._priors()):
            # Nothing is counted yet, which is no prior to read by; that of testing may be known.
            known = None if self.test_prior is None else self.test_prior.log_prior
            self.score_reader.update(None, known)
            return
        stated = stated_shift(predicting_losses_of(self), self.num_classes)
        shift, prior = self._at_test_prior(stated)
        if in_training and shift is None and self.score_reader.has_shift:
            print_log(
                'no loss states how its scores are read (as with Dice): they are read as they are, '
                'and no longer as the checkpoint said',
                'current',
            )
            self.score_reader.forget_shift()
        self.score_reader.update(shift, prior)

    def _at_test_prior(self, shift: Any) -> tuple[Any, Tensor]:
        """The natural shift under ``test_prior``, from that under training's, and the log-prior."""
        prior, target = self.log_prior, self.test_prior
        if target is None or target.is_open:
            return shift, prior
        wanted = target.log_prior
        if prior.numel():
            # A class that training never showed was not learned, however frequent it is here.
            wanted = wanted.where(occurs(prior), prior)
            # By Bayes. Scores of which no loss says what they are pass for p(c|x).
            natural = torch.zeros_like(prior)
            if shift is not None:  # of a cross-entropy it is on the CPU
                natural = shift.to(prior, non_blocking=not prior.is_cpu)
            shift = natural - prior + wanted
        return shift, wanted

    @property
    def tau_test(self) -> float:
        """How scores are read, 0 natural and 1 balanced."""
        return self.score_reader.tau_test

    @tau_test.setter
    def tau_test(self, value: float) -> None:
        self.score_reader.tau_test = value

    def reading_shift(self) -> Tensor:
        """What ``predict`` adds to the natural log-posterior, float32 (C,).

        NaN where its scores do not tell that.
        """
        return self.score_reader.reading_shift()

    @property
    def predicting_prior(self) -> ClassPrior | None:
        """The prior by which the trained head will predict; None while it is open or online."""
        priors = self._priors() if self.test_prior is None else [self.test_prior]
        return next((p.class_prior for p in priors if p.class_prior is not None), None)

    def _known_prior(self) -> ClassPrior | Tensor:
        own = self.log_prior if self.test_prior is None else self.test_prior.log_prior
        known, read = self.predicting_prior, self.score_reader.log_prior
        # A checkpoint of another prior is read by its own.
        return known if known is not None and is_same_log_prior(own, read) else read
