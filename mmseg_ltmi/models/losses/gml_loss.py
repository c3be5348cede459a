"""Gaussian mixture likelihood loss with its learnable temperature."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from .class_mixture import class_mixture
from .functional import at_least_float32, mixture_cross_entropy


@MODELS.register_module()
class GMLLoss(nn.Module):
    """Label-aware contrastive loss of the mixture model of p(z|y), plus the temperature's own term.

    ``L_con`` moves the features and sees T as a constant. ``L_T`` is the same loss with ``q.k``
    detached and a query's own key left out of its class's mean; it moves T alone. T is kept as
    log T and should take no weight decay; mmengine reads that from the config only::

        optim_wrapper = dict(
            paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.)}))

    Args:
        num_classes: C.
        temperature: T at the start, > 0.
        learn_temperature: whether T is a parameter; otherwise it stays as it is.
        loss_weight: factor of both terms (beta).
        own_key: whether a query's own key counts in L_con as well; if not, identities must be
            given. With self keys it is the query itself: it outweighs the rest of its class, most
            of all for a query that is far from them, and pulls nowhere. A teacher's key is another
            feature, which does pull.

    Raises:
        ValueError: ``temperature`` is not positive.
    """

    def __init__(
        self,
        num_classes: int,
        temperature: float = 0.1,
        learn_temperature: bool = True,
        loss_weight: float = 0.1,
        own_key: bool = True,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f'GMLLoss.temperature must be positive, but is {temperature}')
        self.num_classes = num_classes
        self.loss_weight = loss_weight
        # One element and no scalar, which FSDP and DeepSpeed refuse.
        log_temperature = torch.tensor([math.log(temperature)])
        if learn_temperature:
            self.log_temperature = nn.Parameter(log_temperature)
        else:
            self.register_buffer('log_temperature', log_temperature)
        self.learn_temperature = learn_temperature
        self.own_key = own_key

    @property
    def temperature(self) -> Tensor:
        """T, a scalar without graph."""
        return self.log_temperature.detach().exp()[0]

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f'{prefix}log_temperature')
        if saved is not None and saved.ndim == 0:  # of a checkpoint when it was a scalar
            state_dict[f'{prefix}log_temperature'] = saved[None]
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(
        self,
        query: Tensor,
        query_labels: Tensor,
        key: Tensor,
        key_labels: Tensor,
        log_prior: Tensor,
        *,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> Tensor:
        """``loss_weight * (L_con + L_T)``, a scalar; arguments as in :func:`functional.gml_loss`.

        The identities leave a query's own key out of ``L_T``, and of ``L_con`` without ``own_key``.
        """
        return self.terms(
            query, query_labels, key, key_labels, log_prior, query_ids=query_ids, key_ids=key_ids
        )[0]

    def terms(
        self,
        query: Tensor,
        query_labels: Tensor,
        key: Tensor,
        key_labels: Tensor,
        log_prior: Tensor,
        *,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the class log-likelihoods (N, C) of the queries without graph.

        Raises:
            ValueError: no identities, where a query's own key must not count.
        """
        if not self.own_key and query_ids is None:
            raise ValueError('GMLLoss(own_key=False) needs query_ids and key_ids to know own keys')
        with torch.autocast(query.device.type, enabled=False):
            query, key = at_least_float32(query), at_least_float32(key)
            mixture = class_mixture(
                query / self.temperature,
                key,
                key_labels,
                self.num_classes,
                query_ids=query_ids,
                key_ids=key_ids,
                only_held_out=not self.own_key,
            )
            loss = mixture_cross_entropy(mixture.everything, query_labels, log_prior)
            if self.learn_temperature:
                # The difference is 0; through it T receives its gradient, in closed form.
                moved = self.log_temperature - self.log_temperature.detach()
                held_out = mixture.held_out.detach() - mixture.expected * moved
                loss = loss + mixture_cross_entropy(held_out, query_labels, log_prior)
        return self.loss_weight * loss, mixture.everything.detach()
