"""A classifier on what a token network reads."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option
from eegtensor.models._base import as_generator
from eegtensor.models.maskedtokens import MaskedTokenNetwork
from eegtensor.nn import DomainBatchNorm
from eegtensor.nn._domains import Name

POOLS = ("mean", "units")


class TokenClassifierNetwork(nn.Module):
    """Tokens to states, their mean, a norm by domain, and logits.

    The norm's statistics are set by `fit_statistics` alone, without labels, and
    stay as they are in training.

    Parameters
    ----------
    encoder : MaskedTokenNetwork
    n_outputs : int
    n_units : int
        Of every trial.
    domains : iterable of str or (dataset, subject, session)
    pool : "mean" | "units"
        Means over all positions of a trial, or one for each unit.
    unseen : "pooled" | "adapt" | "raise"
        As in `DomainBatchNorm`.
    random_state : int | torch.Generator | None
    """

    def __init__(
        self,
        encoder: MaskedTokenNetwork,
        n_outputs: int,
        n_units: int,
        *,
        domains: Iterable[Name] = (),
        pool: str = "units",
        unseen: str = "pooled",
        random_state: int | torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_option("pool", pool, POOLS)
        self.encoder, self.pool = encoder, pool
        n = encoder.width * (n_units if pool == "units" else 1)
        self.norm: Any = DomainBatchNorm(n, domains, unseen=unseen)
        self.head = nn.Linear(n, n_outputs)
        with torch.no_grad():
            generator = as_generator(random_state)
            self.head.weight.normal_(0, n**-0.5, generator=generator)
            self.head.bias.zero_()

    def train(self, mode: bool = True) -> TokenClassifierNetwork:
        """Switch between training and evaluation; statistics are never moved."""
        super().train(mode)
        self.norm.eval()
        return self

    def pooled(self, x: Mapping[str, Tensor]) -> Tensor:
        """Return means of states, (batch, n_features).

        Parameters
        ----------
        x : mapping
            As `MaskedTokenNetwork.forward` takes it, with an axis of windows after
            the first of ``ids`` and ``present``.
        """
        return pool_states(self.encoder, x, self.pool)

    def features(self, x: Mapping[str, Tensor], domain: Tensor | None = None) -> Tensor:
        """Return what the head classifies, (batch, n_features)."""
        found: Tensor = self.norm(self.pooled(x), domain)
        return found

    def forward(self, x: Mapping[str, Tensor], domain: Tensor | None = None) -> Tensor:
        """Return logits, (batch, n_outputs)."""
        logits: Tensor = self.head(self.features(x, domain))
        return logits

    def with_own_norm(self) -> TokenClassifierNetwork:
        """Return a network with these weights and a copy of the statistics."""
        other = copy.copy(self)
        other._modules = {**self._modules, "norm": copy.deepcopy(self.norm)}
        return other

    @torch.no_grad()
    def fit_statistics(
        self, x: Mapping[str, Tensor], domain: Tensor, *, batch_size: int = 64
    ) -> None:
        """Replace the statistics of every domain in x by those of x.

        Parameters
        ----------
        x : mapping
            As for `pooled`, on any device.
        domain : Tensor of int64, shape (batch,)
        batch_size : int
            Trials at a time.
        """
        device = self.head.weight.device
        pooled = [
            self.pooled({k: v[rows].to(device) for k, v in x.items()})
            for rows in torch.arange(len(domain)).split(batch_size)
        ]
        self.norm.fit_statistics(torch.cat(pooled), domain.to(device))


def pool_states(
    encoder: MaskedTokenNetwork, x: Mapping[str, Tensor], pool: str
) -> Tensor:
    """Return means of a network's states over the windows and frames of trials.

    Parameters
    ----------
    encoder : MaskedTokenNetwork
    x : mapping
        See `TokenClassifierNetwork.pooled`.
    pool : "mean" | "units"

    Returns
    -------
    pooled : Tensor, shape (batch, width) or (batch, n_units * width)
    """
    n_trials, n_windows = x["ids"].shape[:2]
    flat = {
        "ids": x["ids"].flatten(0, 1),
        "present": x["present"].flatten(0, 1),
        "places": x["places"].repeat_interleave(n_windows, dim=0),
        "index": x["index"].repeat_interleave(n_windows, dim=0),
    }
    states = encoder(flat).states
    weight = flat["present"][..., None].to(states.dtype)
    # Windows join the frames: a mean over all of a trial's time.
    total = (states * weight).sum(dim=2).view(n_trials, n_windows, *states.shape[1::2])
    count = weight.sum(dim=2).view(n_trials, n_windows, -1, 1)
    total, count = total.sum(dim=1), count.sum(dim=1)
    if pool == "units":
        return (total / count.clamp_min(1)).flatten(1)
    return total.sum(dim=1) / count.sum(dim=1).clamp_min(1)
