"""Tucker decompositions of several people's tensors with shared factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._missing import Estimate
from eegtensor.tensor._people import (
    People,
    as_list,
    check_shared,
    compress,
    impute_people,
    joint_vectors,
    read_people,
    relative_fits,
)
from eegtensor.tensor._shapes import as_tensor, check_rank, check_sweeps
from eegtensor.tensor.kernels import (
    mode_product,
    peak_signs,
    project,
    squared_norm,
)


class SharedTucker(NamedTuple):
    """Factors in common, and one core per person.

    Attributes
    ----------
    cores : tuple of array
        Whole along the modes that are not shared; each in its tensor's unit.
    factors : tuple of array, shape (I_n, R_n)
        One per shared mode: orthonormal columns, their largest entry positive, by
        falling energy.
    shared : tuple of int
        The modes.
    fit : float
        1 - relative error of all tensors, weighted, over the observed cells.
    fits : tuple of float
        Of each tensor.
    n_iter : int
    """

    cores: tuple[Array, ...]
    factors: tuple[Array, ...]
    shared: tuple[int, ...]
    fit: float
    fits: tuple[float, ...]
    n_iter: int

    def reconstruct(self) -> tuple[Array, ...]:
        """Return the tensors that the model stands for."""
        return tuple(_expand(G, *self.factors, shared=self.shared) for G in self.cores)


@bridged
def _expand(core: Tensor, *factors: Tensor, shared: Sequence[int]) -> Tensor:
    for n, U in zip(shared, factors, strict=True):
        core = mode_product(core, U, n)
    return core


def shared_tucker(
    tensors: Sequence[Array],
    ranks: int | Sequence[int],
    *,
    shared: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    mask: Sequence[Array] | None = None,
    max_iter: int = 50,
    tol: float = 1e-6,
) -> SharedTucker:
    """Return Tucker decompositions that share factors (population value decomposition).

    Channels, frequencies and times have the same subspaces in all people, the cores
    are each one's own. Shared factors are leading eigenvectors of the weighted sum
    of Grams, refined by orthogonal iteration.

    Parameters
    ----------
    tensors : sequence of array, shape (I_1, ..., I_N)
        Modes that are not shared may differ in size. NaN are missing cells.
    ranks : int | sequence of int
        One for all shared modes, or one for each.
    shared : sequence of int | None
        None for all modes but the first (trials).
    weights : sequence of float | None
        How much each person counts; None for alike, whatever the units and the
        numbers of trials.
    mask : sequence of array of bool | None
        True for observed cells. Missing ones are imputed by the model in turn.
    max_iter : int
        Sweeps of orthogonal iteration; 0 keeps the start.
    tol : float
        It stops when the fit grows by less.

    Returns
    -------
    SharedTucker

    Raises
    ------
    EEGTensorError
        If shapes, ranks or masks do not fit.

    References
    ----------
    C. M. Crainiceanu et al., "Population value decomposition, a framework for the
    analysis of image populations", J. Am. Stat. Assoc., 2011.
    """
    parts = as_list(tensors, "tensors")
    result: SharedTucker = _fit(
        *parts,
        *(() if mask is None else mask),
        n=len(parts),
        ranks=ranks,
        shared=shared,
        weights=weights,
        max_iter=max_iter,
        tol=tol,
    )
    return result


@bridged
def shared_tucker_project(model: SharedTucker, X: Array) -> Array:
    """Return the core of a new person's tensor for the shared factors.

    Parameters
    ----------
    model : SharedTucker
    X : array or tensor
        Without missing cells; sizes of shared modes as fitted.

    Returns
    -------
    core : array
    """
    X, observed, _ = as_tensor(X)
    if observed is not None:
        fail("X has missing cells", fix="complete it first")
    for n, U in zip(model.shared, model.factors, strict=True):
        if X.ndim <= n or X.shape[n] != len(U):
            fail(f"X has shape {tuple(X.shape)}, the model {len(U)} along mode {n}")
        X = mode_product(X, torch.as_tensor(U).to(X).mT, n)
    return X


class _Found(NamedTuple):
    factors: list[Any]
    cores: list[Tensor]
    fit: float
    n_iter: int


@bridged
def _fit(
    *given: Tensor,
    n: int,
    ranks: Any,
    shared: Sequence[int] | None,
    weights: Sequence[float] | None,
    max_iter: int,
    tol: float,
) -> SharedTucker:
    check_sweeps(max_iter, tol)
    people = read_people(given, n, weights)
    N = people.parts[0].ndim
    modes = check_shared(people.parts, range(1, N) if shared is None else shared)
    sizes = _sizes(people.parts, modes, ranks)

    def model(parts: list[Tensor], before: _Found | None) -> _Found:
        return _iterate(parts, modes, sizes, before, max_iter, tol)

    if people.observed is None:
        found = model(people.parts, None)
    else:
        found = impute_people(
            people,
            model,
            lambda m: _estimate(m.cores, m.factors, modes),
            max_iter=20 * max_iter + 1,
            tol=tol,
        )
    return _result(people, found, modes)


def _estimate(
    cores: Sequence[Tensor], factors: Sequence[Tensor], modes: Sequence[int]
) -> Estimate:
    """Return what gives a part of a person's tensor, as the model has it."""

    def part_of(s: int, part: slice) -> Tensor:
        if 0 not in modes:
            return cast(Tensor, _expand(cores[s][part], *factors, shared=modes))
        # `modes` are sorted: the first factor is that of the first mode.
        some = [factors[0][part], *factors[1:]]
        return cast(Tensor, _expand(cores[s], *some, shared=modes))

    return part_of


def _sizes(
    parts: Sequence[Tensor], modes: Sequence[int], ranks: Any
) -> list[int | None]:
    wanted = [ranks] * len(modes) if np.ndim(ranks) == 0 else list(ranks)
    if len(wanted) != len(modes):
        fail(
            f"ranks={listing(wanted)} for {len(modes)} shared modes",
            fix="give one rank, or one for each shared mode",
        )
    sizes: list[int | None] = [None] * parts[0].ndim
    for n, r in zip(modes, wanted, strict=True):
        cells = sum(X.numel() // X.shape[n] for X in parts)
        sizes[n] = min(check_rank(r, "ranks"), parts[0].shape[n], cells)
    return sizes


def _iterate(
    parts: list[Tensor],
    modes: Sequence[int],
    sizes: Sequence[int | None],
    before: _Found | None,
    max_iter: int,
    tol: float,
) -> _Found:
    total = sum(squared_norm(X) for X in parts)
    if before is None:
        bases, cores = compress(parts, modes, sizes)
        factors = [bases[0][n] for n in modes]
        sweeps = max_iter
    else:
        factors, cores, sweeps = list(before.factors), before.cores, 1
    fit, n_iter = _fit_of(cores, total), 0
    while n_iter < sweeps and total > 0:
        for at, n in enumerate(modes):
            others = {m: U for m, U in zip(modes, factors, strict=True) if m != n}
            full = [others.get(m) for m in range(parts[0].ndim)]
            cores = [project(X, full, list(others)) for X in parts]  # type: ignore[arg-type]
            size = sizes[n]
            assert size is not None
            factors[at] = joint_vectors(cores, n, size).to(parts[0].dtype)
        cores = [mode_product(Y, factors[-1].mT, modes[-1]) for Y in cores]
        n_iter += 1
        last, fit = fit, _fit_of(cores, total)
        if fit - last < tol:
            break
    return _Found(factors, cores, fit, n_iter)


def _fit_of(cores: Sequence[Tensor], total: float) -> float:
    if total == 0.0:
        return 1.0
    kept = sum(squared_norm(G) for G in cores)
    return 1.0 - math.sqrt(max(total - kept, 0.0) / total)


def _result(people: People, found: _Found, modes: Sequence[int]) -> SharedTucker:
    factors, cores = list(found.factors), list(found.cores)
    for at, n in enumerate(modes):
        # The order is by the energy of all, the sign is the factor's own.
        energy = sum(
            G.double().movedim(n, 0).flatten(1).square().sum(dim=1) for G in cores
        )
        assert isinstance(energy, Tensor)
        order = energy.argsort(descending=True, stable=True)
        U = factors[at][:, order]
        sign = peak_signs(U)
        factors[at] = U * sign
        shape = [1] * cores[0].ndim
        shape[n] = -1
        cores = [G.index_select(n, order) * sign.view(shape) for G in cores]
    fits, fit = relative_fits(people, _estimate(cores, factors, modes))
    own = [G / a for G, a in zip(cores, people.scale, strict=True)]
    return SharedTucker(
        tuple(own), tuple(factors), tuple(modes), fit, fits, found.n_iter
    )
