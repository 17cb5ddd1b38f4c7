"""Higher-order discriminant analysis: projections that separate classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.geometry._batched_eigh import eigh
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._shapes import as_tensor, check_ranks, check_sweeps
from eegtensor.tensor.kernels import gram, peak_signs, squared_norm, sweep_projections
from eegtensor.tensor.tucker import start_factors


class Discriminant(NamedTuple):
    """Orthonormal projections of each mode but the first.

    Attributes
    ----------
    core : array, shape (n_trials, R_2, ..., R_N)
        Projected trials.
    factors : tuple of (array, shape (I_n, R_n)) | None
        None for the trials' mode, the first.
    ratio : float
        Scatter between classes over the scatter within (and its ridge).
    n_iter : int
    """

    core: Array
    factors: tuple[Array | None, ...]
    ratio: float
    n_iter: int


@bridged
def hoda(
    X: Array,
    codes: Array,
    ranks: int | Sequence[int],
    *,
    ridge: float = 0.01,
    max_iter: int = 50,
    tol: float = 1e-6,
) -> Discriminant:
    """Return the projections with the largest ratio of scatters.

    Maximises tr(U' Sb U) / tr(U' (Sw + ridge tr(Sw) / I_n) U) mode by mode, the
    scatters being those of trials projected on the other modes. Each step solves
    its trace ratio exactly, by the eigenvectors of Sb - ratio Sw, so that the
    ratio never falls.

    Parameters
    ----------
    X : array or tensor, shape (n_trials, I_2, ..., I_N)
    codes : array of int, shape (n_trials,)
        Class of each trial, 0 to K - 1, none of them empty.
    ranks : int | sequence of int
        Columns for each mode but the first.
    ridge : float
        Relative to the mean within-class scatter of a direction.
    max_iter : int
        Sweeps over the modes.
    tol : float
        Relative change of the ratio that ends them.

    Returns
    -------
    Discriminant

    References
    ----------
    A.-H. Phan, A. Cichocki, "Tensor decompositions for feature extraction and
    classification of high dimensional datasets", IEICE NOLTA, 2010. H. Wang et
    al., "Trace ratio vs. ratio trace for dimensionality reduction", CVPR, 2007.
    """
    check_sweeps(max_iter, tol, ridge)
    X, observed, _ = as_tensor(X, ndim=3)
    if observed is not None:
        fail("X has missing cells", fix="restore them first, or leave trials out")
    if not isinstance(codes, Tensor) or codes.shape != X.shape[:1]:
        fail(f"codes have shape {np.shape(codes)}", fix="give one class per trial")
    if codes.is_floating_point():
        fail(f"codes have dtype {codes.dtype}", fix="number the classes: 0, 1, ...")
    codes = codes.to(X.device, torch.int64)
    if bool((codes < 0).any()):
        fail("codes hold negative numbers", fix="number the classes from 0 up")
    counts = torch.bincount(codes)
    if len(counts) < 2 or bool((counts == 0).any()):
        fail(
            f"Classes 0 to {len(counts) - 1} have {listing(counts.tolist())} trials",
            why="Scatter between classes needs two or more, none of them empty",
            fix="number the classes from 0 up, and give trials of each",
        )
    wanted: Any = [ranks] * (X.ndim - 1) if np.ndim(ranks) == 0 else ranks
    # With the trials' own axis: an axis may keep more directions than the others.
    sizes = check_ranks((None, *wanted), X.shape)
    modes = list(range(1, X.ndim))
    X = X - X.mean(dim=0)
    factors: list[Any] = start_factors(X, sizes, "st-hosvd", modes)[0]
    ratio, n_iter = 0.0, 0
    share = torch.nn.functional.one_hot(codes).to(X) / counts.to(X)

    def update(n: int, Y: Tensor) -> Tensor:
        nonlocal ratio
        between, within = _scatters(Y, n, codes, share)
        level = within.diagonal().mean()
        eye = torch.eye(len(within), dtype=within.dtype, device=within.device)
        U, ratio = trace_ratio(between, within + ridge * level * eye, sizes[n])
        return U.to(Y.dtype)

    core = X
    while n_iter < max_iter:
        before = ratio
        core = sweep_projections(X, modes, factors, update)
        n_iter += 1
        if ratio - before <= tol * ratio:
            break
    if max_iter == 0:
        core = start_factors(X, sizes, "st-hosvd", modes)[1]
    core, factors = _ordered(core, factors, codes, share)
    return Discriminant(core, tuple(factors), ratio, n_iter)


def _scatters(
    Y: Tensor, mode: int, codes: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """Return scatters between and within classes along a mode, float64."""
    means = (share.mT @ Y.flatten(1)).reshape(-1, *Y.shape[1:])
    counts = torch.bincount(codes).to(Y)
    weighted = means * counts.sqrt().view(-1, *(1 for _ in Y.shape[1:]))
    return gram(weighted, mode), gram(Y - means[codes], mode)


def trace_ratio(
    between: Tensor, within: Tensor, rank: int, *, max_iter: int = 100
) -> tuple[Tensor, float]:
    """Return the orthonormal U (n, rank) with the largest tr(U'BU) / tr(U'WU).

    Newton's iteration on the ratio, which rises to the optimum.
    """
    # Without any scatter within, only that between is left to look at.
    if float(within.diagonal().sum()) <= 0.0:
        ratio = float("inf") if float(between.diagonal().sum()) > 0.0 else 0.0
        return eigh(between)[1].flip(-1)[:, :rank], ratio
    ratio = 0.0
    for _ in range(max_iter):
        U = eigh(between - ratio * within)[1].flip(-1)[:, :rank]
        new = float((U * (between @ U)).sum() / (U * (within @ U)).sum())
        if new - ratio <= 1e-12 * abs(new):
            break
        ratio = new
    return U, ratio


def _ordered(
    core: Tensor, factors: list[Any], codes: Tensor, share: Tensor
) -> tuple[Tensor, list[Any]]:
    """Return columns by falling ratio of their own, with positive peaks."""
    out = list(factors)
    for n in range(1, core.ndim):
        between, within = _scatters(core, n, codes, share)
        own = between.diagonal() / within.diagonal().clamp_min(
            1e-12 * squared_norm(core) / core.shape[n] + 1e-300
        )
        order = own.argsort(descending=True, stable=True)
        U = factors[n][:, order]
        sign = peak_signs(U)
        out[n] = U * sign
        shape = [1] * core.ndim
        shape[n] = -1
        core = core.index_select(n, order) * sign.view(shape)
    return core, out
