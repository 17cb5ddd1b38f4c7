"""Gradients of the energy of single trials, in orthonormal coordinates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from eegtensor.geometry import sqrtm, symmetrize, upper_vector
from eegtensor.training import Batch, ParamSpace, StatisticsGuard, device_of
from eegtensor.training.adapters import Adapter
from eegtensor.training.network import Network
from eegtensor.training.statistics import evaluating


def head_gradients(logits: NDArray, features: NDArray) -> NDArray:
    """Return gradients of logsumexp(W h + b) by W and b: softmax(z) (h, 1)'.

    Parameters
    ----------
    logits : ndarray, shape (n_trials, n_classes)
    features : ndarray, shape (n_trials, n_features)

    Returns
    -------
    gradients : ndarray, shape (n_trials, n_classes * (n_features + 1))
    """
    p = softmax(logits, axis=1)
    h = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    return np.einsum("nk,nf->nkf", p, h).reshape(len(p), -1)


def network_gradients(network: nn.Module, batch: Batch) -> NDArray:
    """Return gradients of logsumexp of the logits by all weights, a row a trial.

    In evaluation mode. Those of weights on manifolds are Riemannian, in orthonormal
    coordinates of the tangent space: entries of the ambient gradient would mix what
    moves a weight with what leaves its manifold.

    Returns
    -------
    gradients : ndarray, shape (n_trials, n_dimensions), float64
    """
    space, call, device = ParamSpace(network), Network(network), device_of(network)
    frames = {n: _Frame(a, p) for (n, a), p in _leaves(space)}
    leaves = list(space.leaves.values())
    rows = []
    with evaluating(network), StatisticsGuard(network, "eval"), torch.enable_grad():
        for i in range(len(batch)):
            # Trial by trial: a batch's graph would be walked once for each of them.
            one = batch.pick(torch.tensor([i], device=batch.device)).to(device)
            energy = call(one).double().logsumexp(dim=1).sum()
            found = torch.autograd.grad(energy, leaves, allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        frame(torch.zeros_like(p) if g is None else g).cpu()
                        for frame, p, g in zip(
                            frames.values(), leaves, found, strict=True
                        )
                    ]
                )
            )
    return torch.stack(rows).numpy()


def _leaves(space: ParamSpace) -> list[tuple[tuple[str, Adapter], Tensor]]:
    points = space.points()
    return [((name, space.adapters[name]), points[name]) for name in space.leaves]


class _Frame:
    """Orthonormal coordinates of a parameter's tangent space."""

    def __init__(self, adapter: Adapter, p: Tensor) -> None:
        self.name, self.p = adapter.name, p.double()
        if self.name == "stiefel":
            k = p.shape[-1]
            self.rest = torch.linalg.qr(self.p, mode="complete")[0][..., k:]
            self.pairs = torch.triu_indices(k, k, 1, device=p.device)
        elif self.name == "spd":
            self.root = sqrtm(self.p)

    def __call__(self, g: Tensor) -> Tensor:
        """Return the coordinates of the Riemannian gradient of a Euclidean one."""
        g = g.detach().as_subclass(torch.Tensor).double()
        if self.name == "stiefel":
            # p'u is the skew part of p'g; each of its entries counts twice.
            S = self.p.mT @ g
            i, j = self.pairs
            turn = (S - S.mT)[..., i, j] / 2.0**0.5
            return torch.cat([turn.flatten(), (self.rest.mT @ g).flatten()])
        if self.name == "spd":
            return upper_vector(self.root @ symmetrize(g) @ self.root).flatten()
        return g.flatten()
