"""CCA and PLS of more features and trials than an eigenproblem would hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import RandomState, check_count, check_number, check_option, fail
from eegtensor.training.objectives.deepcca import eckart_young
from eegtensor.training.seeds import as_seed


class Correlated(NamedTuple):
    """Directions of views that vary together.

    Attributes
    ----------
    weights : tuple of ndarray, each of shape (n_features, n_components)
        Columns in order: the most correlated (PLS: covarying) first.
    means : tuple of ndarray, each of shape (n_features,)
    values : ndarray, shape (n_components,)
        Of two views the canonical correlations (PLS: the covariances) on the
        trials given; of more their mean over pairs of views.
    losses : ndarray, shape (n_epochs,)
    """

    weights: tuple[NDArray, ...]
    means: tuple[NDArray, ...]
    values: NDArray
    losses: NDArray

    def transform(self, views: Sequence[NDArray]) -> tuple[NDArray, ...]:
        """Return the components of each view, each of shape (n_trials, n)."""
        parts = zip(views, self.means, self.weights, strict=True)
        return tuple((np.asarray(X) - mean) @ W for X, mean, W in parts)


def stochastic_cca(
    views: Sequence[NDArray],
    n_components: int = 2,
    *,
    method: str = "cca",
    ridge: float = 0.0,
    epochs: int = 100,
    batch_size: int | None = 256,
    lr: float = 0.01,
    random_state: RandomState = 0,
) -> Correlated:
    """Return directions of two or more views by batches of trials.

    Minimises `eckart_young` by Adam, whose rate falls to zero along a cosine; the
    order of the directions, which the loss leaves open, is found by a small
    generalised eigenproblem at the end.

    Parameters
    ----------
    views : sequence of ndarray, each of shape (n_trials, n_features)
    n_components : int
    method : "cca" | "pls"
    ridge : float
        Of "cca": from 0, correlations, to 1, which is "pls".
    epochs : int
    batch_size : int | None
        Five times `n_components` where it is less. None: all trials.
    lr : float
    random_state : int | numpy.random.Generator | None

    Returns
    -------
    correlated : Correlated

    Raises
    ------
    EEGTensorError
        If views differ in their trials, or there are too few of them.

    References
    ----------
    J. Chapman, L. Wells and A. Lawry Aguila, "Unconstrained stochastic CCA", ICLR
    2024.
    """
    check_option("method", method, ("cca", "pls"))
    check_count("n_components", n_components)
    check_count("epochs", epochs)
    check_number("lr", lr, above=0.0)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    ridge = 1.0 if method == "pls" else check_number("ridge", ridge, least=0.0)
    if ridge > 1:
        fail(f"ridge={ridge}", fix="give a share from 0 to 1")
    arrays = [np.asarray(X, dtype=np.float64) for X in views]
    lengths = {len(X) for X in arrays}
    if len(arrays) < 2 or len(lengths) > 1 or any(X.ndim != 2 for X in arrays):
        fail(
            f"Views of shapes {[X.shape for X in arrays]}",
            fix="give two or more arrays (n_trials, n_features) of the same trials",
        )
    most = min(X.shape[1] for X in arrays)
    n_trials = lengths.pop()
    if not all(np.isfinite(X).all() for X in arrays):
        fail("Views hold NaN or infinity", fix="leave out such trials or features")
    if n_components > most or n_trials <= n_components:
        fail(
            f"{n_components} components of {n_trials} trials and {most} features",
            fix=f"choose at most {min(most, n_trials - 1)}",
        )
    means = tuple(X.mean(axis=0) for X in arrays)
    pairs = list(zip(arrays, means, strict=True))
    # One scale for a whole view: the rate of learning knows no unit.
    spread = [max(float((X - m).std()), 1e-300) for X, m in pairs]
    data = [
        torch.from_numpy((X - m) / s) for (X, m), s in zip(pairs, spread, strict=True)
    ]
    weights, losses = _descend(
        data, n_components, ridge, epochs, batch_size, lr, as_seed(random_state)
    )
    embedded = [(X @ W).numpy() for X, W in zip(data, weights, strict=True)]
    turn = _order(embedded, [W.numpy() for W in weights], ridge)
    found = tuple(W.numpy() @ turn / s for W, s in zip(weights, spread, strict=True))
    components = [Z @ turn for Z in embedded]
    norms = [np.linalg.norm(W, axis=0) for W in found]
    values = _values(components, norms if method == "pls" else None)
    return Correlated(found, means, values, losses)


def _descend(
    data: list[Tensor],
    k: int,
    ridge: float,
    epochs: int,
    batch_size: int | None,
    lr: float,
    seed: int,
) -> tuple[list[Tensor], NDArray]:
    """Return the weights that batches led to, and the mean loss of each epoch."""
    generator = torch.Generator().manual_seed(seed)
    n = len(data[0])
    size = n if batch_size is None else min(max(batch_size, 5 * k), n)
    weights = []
    for X in data:
        draw = torch.randn(X.shape[1], k, generator=generator, dtype=X.dtype)
        W = torch.linalg.qr(draw)[0]
        weights.append((W / (X @ W).std().clamp_min(1e-12)).requires_grad_())
    n_batches = max(n // size, 1)
    optimizer = torch.optim.Adam(weights, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * n_batches)
    losses = np.zeros(epochs)
    for epoch in range(epochs):
        order = torch.randperm(n, generator=generator)
        for part in order[: n_batches * size].split(size):
            optimizer.zero_grad()
            Z = [X[part] @ W for X, W in zip(data, weights, strict=True)]
            loss = eckart_young(Z, ridge=ridge, weights=weights)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses[epoch] += float(loss.detach()) / n_batches
    return [W.detach() for W in weights], losses


def _order(Z: list[NDArray], W: list[NDArray], ridge: float) -> NDArray:
    """Return the rotation to ordered directions, by (C - V) u = r V u."""
    n = len(Z[0]) - 1
    both = list(zip(Z, W, strict=True))
    alone = sum((1 - ridge) * z.T @ z / n + ridge * w.T @ w for z, w in both)
    total: NDArray = np.sum(Z, axis=0)
    between = total.T @ total / n - sum(z.T @ z / n for z in Z)
    _, turn = scipy.linalg.eigh(between, alone)
    # scipy's come upwards, with u' V u = 1; each view has its share of it.
    return turn[:, ::-1] * np.sqrt(len(Z))


def _values(Z: list[NDArray], lengths: list[NDArray] | None) -> NDArray:
    """Return mean correlations over pairs, or covariances per length of weights."""
    if lengths is None:
        norms = [np.linalg.norm(z, axis=0) for z in Z]
    else:
        norms = [np.sqrt(len(Z[0]) - 1) * length for length in lengths]
    pairs = [(i, j) for i in range(len(Z)) for j in range(i)]
    found = [(Z[i] * Z[j]).sum(axis=0) / (norms[i] * norms[j]) for i, j in pairs]
    mean: NDArray = np.mean(found, axis=0)
    return mean
