"""Derivatives of each domain's cross entropy by the weights of a linear head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from eegtensor._check import fail
from eegtensor.training.batch import UNLABELLED


class HeadMoments(NamedTuple):
    """Derivatives of each domain's cross entropy by the weights of a softmax head.

    Attributes
    ----------
    share : Tensor, shape (n_domains, n_trials)
        1 / n for the n labelled trials of a domain.
    there : Tensor, shape (n_domains,)
        1 for domains with labelled trials, else 0.
    h : Tensor, shape (n_trials, n_features)
        With a column of ones for the bias.
    p : Tensor, shape (n_trials, n_classes)
    gradient : Tensor, shape (n_domains, n_classes, n_features)
        ``mean (p - y) h'``.
    """

    share: Tensor
    there: Tensor
    h: Tensor
    p: Tensor
    gradient: Tensor

    def product(self, V: Tensor) -> Tensor:
        """Return H_e V_e, for V of shape (n_domains, n_classes, n_features)."""
        t = torch.einsum("ekd,nd->enk", V, self.h)
        change = self.p * (t - (self.p * t).sum(-1, keepdim=True))
        return torch.einsum("en,enk,nd->ekd", self.share, change, self.h)

    def diagonal(self) -> Tensor:
        """Return the diagonal of H_e, ``mean p_k (1 - p_k) h_d^2``."""
        spread = self.p * (1.0 - self.p)
        return torch.einsum("en,nk,nd->ekd", self.share, spread, self.h.square())

    def hutchinson(self, n_probes: int, generator: torch.Generator | None) -> Tensor:
        """Return ``mean z * H_e z`` over random signs z, the same for all domains."""
        shape = (n_probes, *self.gradient.shape[1:])
        z = torch.rand(shape, generator=generator, device=self.h.device)
        z = (z < 0.5).to(self.h.dtype) * 2.0 - 1.0
        t = torch.einsum("rkd,nd->rnk", z, self.h)
        change = self.p * (t - (self.p * t).sum(-1, keepdim=True))
        product = torch.einsum("en,rnk,nd->rekd", self.share, change, self.h)
        return (z[:, None] * product).mean(0)


def head_moments(
    features: Tensor, logits: Tensor, y: Tensor, domain: Tensor, *, bias: bool
) -> HeadMoments:
    """Return the derivatives of a batch's domains; rows without trials are 0.

    Parameters
    ----------
    features : Tensor, shape (n_trials, n_features)
    logits : Tensor, shape (n_trials, n_classes)
    y, domain : Tensor of int64, shape (n_trials,)
    bias : bool
        Whether the head has one.
    """
    h = features.to(logits.dtype)
    if bias:
        h = torch.cat([h, torch.ones_like(h[:, :1])], 1)
    p = logits.softmax(1)
    if domain.device.type == "cpu":
        table = torch.unique(domain)
    else:
        # As many rows as trials: to count domains would make a GPU wait. Rows of
        # a domain that is in the table already get no trials.
        first = (domain[:, None] == domain).to(torch.int64).argmax(1)
        own = torch.arange(len(domain), device=domain.device)
        table = torch.where(first == own, domain, torch.iinfo(domain.dtype).min)
    known = (y != UNLABELLED).to(p.dtype)
    member = (table[:, None] == domain).to(p.dtype) * known
    count = member.sum(1)
    share = member / count.clamp_min(1.0)[:, None]
    truth = one_hot(y.clamp_min(0), logits.shape[1]).to(p.dtype)
    gradient = torch.einsum("en,nk,nd->ekd", share, p - truth, h)
    return HeadMoments(share, (count > 0).to(p.dtype), h, p, gradient)


def check_linear(head: nn.Module, who: str) -> None:
    """Raise if a head is not one linear layer.

    Raises
    ------
    EEGTensorError
    """
    if not isinstance(head, nn.Linear):
        fail(
            f"{who} needs a linear head, this one is a {type(head).__name__}",
            why="Its derivatives are known for softmax of a linear map",
            fix="choose head='linear'",
        )
