"""Correlation of views: the loss of deep, stochastic CCA and PLS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class DeepCCA:
    """Eckart-Young loss of a network that returns an embedding of each view: a scalar.

    Its minimum are the canonical directions, without whitening or constraints, so
    that batches may be small; of at least five times as many trials as dimensions.
    The network returns a tuple of embeddings, each of shape (n_trials, n_dims).

    Parameters
    ----------
    ridge : float
        Share of the identity in the views' covariances, in [0, 1).

    References
    ----------
    J. Chapman, L. Wells and A. Lawry Aguila, "Unconstrained stochastic CCA: unifying
    multiview and self-supervised learning", ICLR 2024, eq. 9.
    """

    per_trial = False

    def __init__(self, ridge: float = 0.0) -> None:
        self.ridge = check_number("ridge", ridge, least=0.0)
        if ridge >= 1:
            fail(f"ridge={ridge}", fix="give a share below 1")

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: StepContext
    ) -> Tensor:
        """Return the loss of the batch, a scalar."""
        if isinstance(outputs, Tensor) or not isinstance(outputs, Sequence):
            fail(
                f"DeepCCA got a {type(outputs).__name__}, not one embedding a view",
                fix="let the network return a tuple of tensors (n_trials, n_dims)",
            )
        return eckart_young(outputs, ridge=self.ridge)


def eckart_young(
    views: Sequence[Tensor],
    *,
    ridge: float = 0.0,
    weights: Sequence[Tensor] | None = None,
    independent: Sequence[Tensor] | None = None,
) -> Tensor:
    """Return -2 tr C + tr(V V) of embeddings, a scalar.

    V is the mean of the covariances of each view alone, and C is V plus those of
    each two views, over the number of views. For two views the minimum is minus the
    sum of (1 + correlation)^2.

    Parameters
    ----------
    views : sequence of Tensor, each of shape (n_trials, n_dims)
        Centred here.
    ridge : float
        V becomes (1 - ridge) V + ridge times the mean of W'W, or of the identity
        without `weights`.
    weights : sequence of Tensor, each of shape (n_features, n_dims) | None
        Of linear embeddings. With ridge = 1 the directions are those of PLS.
    independent : sequence of Tensor | None
        Embeddings of another batch: tr(V V') of both is unbiased.
    """
    if len(views) < 2:
        fail(f"{len(views)} view", fix="give at least two")
    Z = torch.stack([z - z.mean(dim=0) for z in views])
    # One trial, centred, is zero: no view varies.
    n_views, n_trials = Z.shape[0], max(Z.shape[1], 2)
    both = Z.sum(dim=0).square().sum() - Z.square().sum()
    V = _alone(Z, ridge, weights)
    # With a ridge V has it in both places: C - V stays what two views share.
    C_trace = both / ((n_trials - 1) * n_views) + V.trace()
    if independent is None:
        return -2.0 * C_trace + V.square().sum()
    other = torch.stack([z - z.mean(dim=0) for z in independent])
    return -2.0 * C_trace + (V * _alone(other, ridge, weights)).sum()


def _alone(Z: Tensor, ridge: float, weights: Sequence[Tensor] | None) -> Tensor:
    """Return V of centred embeddings, shape (n_dims, n_dims)."""
    V = torch.einsum("mnk,mnl->kl", Z, Z) / (max(Z.shape[1] - 1, 1) * len(Z))
    if not ridge:
        return V
    if weights is None:
        gram = torch.eye(V.shape[0], dtype=V.dtype, device=V.device)
    else:
        gram = torch.stack([w.mT @ w for w in weights]).mean(dim=0)
    return (1.0 - ridge) * V + ridge * gram
