"""CP decompositions of several people's tensors with components in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._linked import (
    by_person,
    estimate,
    first_state,
    linked_step,
    matched_state,
    signed,
)
from eegtensor.tensor._momentum import compete, settle
from eegtensor.tensor._people import (
    People,
    as_list,
    check_shared,
    compress,
    impute_people,
    read_people,
    relative_fits,
)
from eegtensor.tensor._shapes import Random, as_random, check_rank, check_sweeps
from eegtensor.tensor.cp import CP, congruence


class CoupledCP(NamedTuple):
    """One CP model per person; the first components share factors.

    Attributes
    ----------
    people : tuple of CP
        Components 0 to `common` - 1 have the same factors in everybody along the
        shared modes, and come by falling energy over all people; the others are
        each person's own. Signs are carried by the first mode that is not shared.
    shared : tuple of int
        The shared modes.
    common : int
        Number of components in common.
    fit : float
        1 - relative error of all tensors, weighted, over the observed cells.
    n_iter : int
        Sweeps over the whole tensors.
    start_fits : tuple of float
        Fit of each start, on the compressed tensors, when it was given up.
    """

    people: tuple[CP, ...]
    shared: tuple[int, ...]
    common: int
    fit: float
    n_iter: int
    start_fits: tuple[float, ...]

    @property
    def factors(self) -> tuple[Array, ...]:
        """Factors in common, one (I_n, common) per shared mode."""
        first = self.people[0].factors
        return tuple(first[n][:, : self.common] for n in self.shared)

    def reconstruct(self) -> tuple[Array, ...]:
        """Return the tensors that the model stands for."""
        return tuple(person.reconstruct() for person in self.people)


def coupled_cp(
    tensors: Sequence[Array],
    rank: int,
    *,
    shared: Sequence[int] | None = None,
    common: int | None = None,
    weights: Sequence[float] | None = None,
    mask: Sequence[Array] | None = None,
    n_init: int = 6,
    ridge: float = 1e-9,
    max_iter: int = 400,
    tol: float = 1e-7,
    random_state: Random = 0,
) -> CoupledCP:
    """Return CP models of several tensors that share factors along some modes.

    With all components in common this is group CP; with fewer, linked CP: the
    first `common` are everybody's, the others each person's own.

    Parameters
    ----------
    tensors : sequence of array, shape (I_1, ..., I_N)
        One per person; modes that are not shared may differ in size. NaN are
        missing cells.
    rank : int
        Components of each person.
    shared : sequence of int | None
        None for all modes but the first (trials). One mode at least is not shared.
    common : int | None
        Components in common; None for all.
    weights : sequence of float | None
        How much each person counts; None for alike, whatever the units and the
        numbers of trials.
    mask : sequence of array of bool | None
        True for observed cells. Missing ones are imputed by the model in turn.
    n_init : int
        Starts on the compressed tensors: leading singular vectors (where people
        have components of their own, everybody's CP, matched), then random ones.
    ridge : float
        On the normal equations, relative to their mean diagonal.
    max_iter : int
    tol : float
        Change of the relative error that ends the sweeps.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Returns
    -------
    CoupledCP

    Raises
    ------
    EEGTensorError
        If shapes, rank or masks do not fit.

    References
    ----------
    T. Yokota, A. Cichocki and Y. Yamashita, "Linked PARAFAC/CP tensor decomposition
    and its fast implementation for multi-block tensor analysis", ICONIP, 2012.
    """
    R = check_rank(rank)
    L = R if common is None else check_rank(common, "common")
    if L > R:
        fail(f"common={L} of rank={R} components", fix="give at most the rank")
    check_rank(n_init, "n_init")
    check_sweeps(max_iter, tol, ridge)
    parts = as_list(tensors, "tensors")
    result: CoupledCP = _fit(
        *parts,
        *(() if mask is None else mask),
        n=len(parts),
        rank=R,
        common=L,
        shared=shared,
        weights=weights,
        n_init=n_init,
        ridge=ridge,
        max_iter=max_iter,
        tol=tol,
        random=as_random(random_state),
    )
    return result


class _Found(NamedTuple):
    """Factors of all people, person by person and mode by mode."""

    state: list[Tensor]
    fit: float
    n_iter: int
    start_fits: tuple[float, ...]


@bridged
def _fit(
    *given: Tensor,
    n: int,
    rank: int,
    common: int,
    shared: Sequence[int] | None,
    weights: Sequence[float] | None,
    n_init: int,
    ridge: float,
    max_iter: int,
    tol: float,
    random: Any,
) -> CoupledCP:
    people = read_people(given, n, weights)
    N = people.parts[0].ndim
    modes = check_shared(people.parts, range(1, N) if shared is None else shared)
    own = [m for m in range(N) if m not in modes]
    if not own:
        fail("All modes are shared", fix="leave one out, such as that of trials")

    def model(parts: list[Tensor], before: _Found | None) -> _Found:
        step = linked_step(parts, modes, own, common, ridge)
        if before is not None:
            state, error, n_iter = settle(step, before.state, max_iter=3, tol=tol)
            return _Found(state, 1.0 - error**0.5, n_iter, before.start_fits)
        # Room for what is common and for everybody's own components.
        room = 2 * (common + len(parts) * (rank - common))
        sizes = [
            min(X, room) if m in modes else 2 * rank
            for m, X in enumerate(parts[0].shape)
        ]
        bases, cores = compress(parts, modes, sizes)
        cores = [Y.double().contiguous() for Y in cores]
        starts = [
            matched_state(cores, modes, rank, common, random)
            if k == 0 and common < rank
            else first_state(cores, modes, rank, common, k, random)
            for k in range(n_init)
        ]
        small = linked_step(cores, modes, own, common, ridge)
        state, *_, fits = compete(small, starts, max_iter=max_iter, tol=tol)
        flat = [U for basis in bases for U in basis]
        state = [(Q.double() @ U).to(Q.dtype) for Q, U in zip(flat, state, strict=True)]
        state, error, n_iter = settle(step, state, max_iter=max_iter, tol=tol)
        return _Found(state, 1.0 - error**0.5, n_iter, fits)

    if people.observed is None:
        found = model(people.parts, None)
    else:
        found = impute_people(
            people,
            model,
            lambda m: estimate(by_person(m.state, N)),
            max_iter=max_iter,
            tol=tol,
        )
    return _result(people, found, modes, own, common)


def _result(
    people: People,
    found: _Found,
    modes: tuple[int, ...],
    own: Sequence[int],
    common: int,
) -> CoupledCP:
    N = people.parts[0].ndim
    models = by_person(found.state, N)
    energy = torch.zeros(common, dtype=torch.float64, device=models[0][0].device)
    for factors in models:
        size = torch.stack([U[:, :common].double().norm(dim=0) for U in factors])
        energy += size.prod(dim=0).square()
    order = energy.argsort(descending=True, stable=True)
    fits, fit = relative_fits(people, estimate(models))
    out = []
    for s, factors in enumerate(models):
        both = [
            signed([U[:, :common][:, order] for U in factors], own[0], True),
            signed([U[:, common:] for U in factors], own[0], False),
        ]
        weights = torch.cat([w for w, _ in both]) / people.scale[s]
        joined = [
            torch.cat(pair, dim=1) for pair in zip(*(U for _, U in both), strict=True)
        ]
        out.append(
            CP(
                weights,
                tuple(joined),
                fits[s],
                found.n_iter,
                found.start_fits,
                congruence(joined),
            )
        )
    return CoupledCP(tuple(out), modes, common, fit, found.n_iter, found.start_fits)
