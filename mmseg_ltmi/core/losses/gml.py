"""Gaussian mixture likelihood loss with its learnable temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..buffer_dtype import KeepBufferDtype
from ..state_dict_hooks import before_load
from .functional import gml_terms


class GMLLoss(KeepBufferDtype):
    """Label-aware contrastive loss of the mixture model of p(z|y), plus the temperature's own term.

    ``L_con`` moves the features and sees T as a constant. ``L_T`` is the same loss with ``q.k``
    detached and a query's own key left out of its class's mean; it moves T alone. The parameter is
    the change of log T since the start, so that weight decay pulls T to where it started.

    Source: Suh & Seo, ICML 2023 (arXiv 2305.01160).

    Args:
        num_classes: C.
        temperature: T at the start, > 0.
        learn_temperature: whether T is learned; otherwise it stays as it is.
        loss_weight: factor of both terms (beta).
        own_key: whether a query's own key counts in L_con as well; if not, identities must be
            given. With self keys it is the query itself: it outweighs the rest of its class, most
            of all for a query that is far from them, and pulls nowhere. A teacher's key is another
            feature, which does pull.

    Raises:
        ValueError: ``temperature`` is not positive.
    """

    initial_log_temperature: Tensor
    log_temperature_change: Tensor

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
        self.register_buffer('initial_log_temperature', torch.tensor([math.log(temperature)]))
        if learn_temperature:
            self.log_temperature_change = nn.Parameter(torch.zeros(1))
        else:
            self.register_buffer('log_temperature_change', torch.zeros(1))
        self.learn_temperature = learn_temperature
        self.own_key = own_key
        before_load(self, _split_log_temperature)

    @property
    def log_temperature(self) -> Tensor:
        """log T, (1,); gradient reaches the parameter through it."""
        return self.initial_log_temperature + self.log_temperature_change

    @property
    def temperature(self) -> Tensor:
        """T, a scalar without graph."""
        return self.log_temperature.detach().exp()[0]

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

        Raises:
            ValueError: no identities, where a query's own key must not count.
        """
        return self.with_likelihood(
            query, query_labels, key, key_labels, log_prior, query_ids=query_ids, key_ids=key_ids
        )[0]

    def with_likelihood(
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
        """As :meth:`forward`; the loss, and the queries' log-likelihoods (N, C).

        These are without graph and leave a query's own key out, whatever ``own_key`` is.
        """
        if not self.own_key and query_ids is None:
            raise ValueError('GMLLoss(own_key=False) needs query_ids and key_ids to know own keys')
        terms = gml_terms(
            query,
            query_labels,
            key,
            key_labels,
            log_prior,
            self.log_temperature,
            query_ids=query_ids,
            key_ids=key_ids,
            own_key=self.own_key,
            learn_temperature=self.learn_temperature,
        )
        loss = terms.contrast
        if terms.temperature is not None:
            loss = loss + terms.temperature
        return self.loss_weight * loss, terms.log_likelihood


def _split_log_temperature(loss: GMLLoss, state_dict: dict[str, Tensor], prefix: str) -> None:
    # Checkpoints had log T itself, at first as a scalar.
    saved = state_dict.pop(f'{prefix}log_temperature', None)
    if saved is not None:
        start = loss.initial_log_temperature
        state_dict[f'{prefix}initial_log_temperature'] = start
        state_dict[f'{prefix}log_temperature_change'] = saved.reshape(1).to(start) - start
    if not loss.learn_temperature:  # a fixed T is the config's, also after a run that learned it
        for name in ('initial_log_temperature', 'log_temperature_change'):
            if f'{prefix}{name}' in state_dict:
                state_dict[f'{prefix}{name}'] = getattr(loss, name)
