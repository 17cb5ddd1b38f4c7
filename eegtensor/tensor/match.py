"""How far two decompositions found the same components."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._shapes import (
    Random,
    as_random,
    as_tensor,
    check_modes,
    check_rank,
)
from eegtensor.tensor.cp import cp


class FactorMatch(NamedTuple):
    """The best pairing of two sets of components.

    Attributes
    ----------
    score : float
        Mean similarity, from 0 to 1; components without a partner count as 0.
    similarity : tuple of float
        Of each component of the first model with its partner.
    partner : tuple of int
        Its number in the second model; -1 for none.
    """

    score: float
    similarity: tuple[float, ...]
    partner: tuple[int, ...]


def factor_match_score(
    a: Any, b: Any, *, modes: Sequence[int] | None = None, weights: bool = False
) -> FactorMatch:
    """Return how well the components of two models agree, whatever their order.

    The similarity of two components is ``|prod_n cos(a_n, b_n)|``; the pairing
    that maximises its sum is exact (Hungarian algorithm).

    Parameters
    ----------
    a, b : CP, PARAFAC2, BlockTerm | sequence of array, shape (I_n, R)
        The two numbers of components may differ.
    modes : sequence of int | None
        Modes compared; None for all.
    weights : bool
        Whether components of different size count as less similar: the similarity
        is times ``1 - |w_a - w_b| / max(w_a, w_b)``.

    Returns
    -------
    FactorMatch

    Raises
    ------
    EEGTensorError
        If the two have other modes or sizes.

    References
    ----------
    G. Tomasi and R. Bro, "A comparison of algorithms for fitting the PARAFAC
    model", Comput. Stat. Data Anal., 2006.
    """
    (w_a, blocks_a), (w_b, blocks_b) = _blocks(a), _blocks(b)
    sizes_a, sizes_b = ([len(U) for U in blocks] for blocks in (blocks_a, blocks_b))
    if modes is None:
        modes = range(len(blocks_a))
        if len(blocks_a) != len(blocks_b):
            fail(f"One model has {len(blocks_a)} modes, the other {len(blocks_b)}")
    else:
        check_modes(modes, min(len(sizes_a), len(sizes_b)))
    if [sizes_a[n] for n in modes] != [sizes_b[n] for n in modes]:
        fail(f"One model has modes of sizes {sizes_a}, the other {sizes_b}")
    similarity = torch.ones((), dtype=torch.float64)
    for n in modes:
        U, V = (
            torch.nn.functional.normalize(F[n], dim=0) for F in (blocks_a, blocks_b)
        )
        similarity = similarity * (U.mT @ V)
    similarity = similarity.abs()
    if weights:
        larger = torch.maximum(w_a[:, None], w_b).clamp_min(1e-300)
        similarity = similarity * (1.0 - (w_a[:, None] - w_b).abs() / larger)
    return _pair(similarity.numpy())


def _pair(similarity: np.ndarray) -> FactorMatch:
    n_a, n_b = similarity.shape
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    partner, found = np.full(n_a, -1), np.zeros(n_a)
    partner[rows] = columns
    found[rows] = similarity[rows, columns]
    return FactorMatch(
        float(found.sum() / max(n_a, n_b)),
        tuple(found.tolist()),
        tuple(partner.tolist()),
    )


def _blocks(model: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the size of each component and one matrix (size, R) per mode."""
    given = getattr(model, "blocks", None) or getattr(model, "factors", model)
    given = given if isinstance(given, Sequence) else []
    blocks = [torch.as_tensor(U).detach().cpu().double() for U in given]
    if not blocks or any(U.ndim != 2 for U in blocks):
        fail(
            f"A model of factors {[tuple(U.shape) for U in blocks]} has no components",
            fix="give a CP, PARAFAC2 or block term model, or matrices (size, rank)",
        )
    if not all(bool(U.isfinite().all()) for U in blocks):
        fail(
            "A model holds NaN or infinity",
            why="Its components have no direction",
            fix="check what it was fitted to",
        )
    if len({U.shape[1] for U in blocks}) > 1:
        fail(f"Factors have {[U.shape[1] for U in blocks]} columns, not one number")
    size = torch.stack([U.norm(dim=0) for U in blocks]).prod(dim=0)
    weights = getattr(model, "weights", None)
    if weights is not None:
        size = size * torch.as_tensor(weights).detach().cpu().double().abs()
    return size, blocks


class SplitHalf(NamedTuple):
    """Agreement of models fitted to random halves.

    Attributes
    ----------
    score : float
        Mean over splits; near 1 where components do not depend on the trials.
    scores : tuple of float
        Of each split.
    """

    score: float
    scores: tuple[float, ...]


@bridged
def split_half_match(
    X: Array,
    rank: int,
    *,
    mask: Array | None = None,
    n_splits: int = 3,
    fit: Callable[..., Any] = cp,
    random_state: Random = 0,
    **options: Any,
) -> SplitHalf:
    """Return how replicable components are over random halves of the first mode.

    Parameters
    ----------
    X : array or tensor, shape (n_trials, I_2, ..., I_N)
        NaN are missing cells.
    rank : int
    mask : array of bool, shape as X | None
    n_splits : int
    fit : callable
        ``fit(X, rank, mask=..., random_state=..., **options)`` -> model with
        `factors`, of which all but the first are compared.
    random_state : int | numpy.random.Generator | torch.Generator | None
    **options
        For `fit`.

    Returns
    -------
    SplitHalf

    References
    ----------
    R. A. Harshman and W. S. De Sarbo, "An application of PARAFAC to a small sample
    problem", in: Research methods for multimode data analysis, 1984.
    """
    check_rank(rank)
    check_rank(n_splits, "n_splits")
    X, observed, _ = as_tensor(X, mask)
    scores = []
    for halves in draw_halves(len(X), n_splits, random_state):
        models = fit_halves(X, rank, observed, halves, fit, options)
        scores.append(half_score(models))
    return SplitHalf(float(np.mean(scores)), tuple(scores))


def draw_halves(
    size: int, n_splits: int, random_state: Random
) -> list[tuple[Tensor, Tensor]]:
    """Return random halves of the numbers below `size`."""
    if size < 4:
        fail(
            f"X has {size} entries along its first mode",
            why="Its halves are too small to compare",
            fix="give 4 or more",
        )
    random = as_random(random_state)
    orders = [_permutation(size, random) for _ in range(n_splits)]
    return [(order[: size // 2], order[size // 2 :]) for order in orders]


def fit_halves(
    X: Tensor,
    rank: int,
    observed: Tensor | None,
    halves: tuple[Tensor, Tensor],
    fit: Callable[..., Any],
    options: dict[str, Any],
) -> list[Any]:
    """Return the models of both halves."""
    models = []
    for seed, half in enumerate(halves):
        half = half.to(X.device)
        mask = None if observed is None else observed[half]
        models.append(fit(X[half], rank, mask=mask, random_state=seed, **options))
    return models


def half_score(models: Sequence[Any]) -> float:
    """Return the match of two halves' factors, the first mode's left out."""
    return factor_match_score(*(list(m.factors)[1:] for m in models)).score


def _permutation(size: int, random: np.random.Generator | torch.Generator) -> Tensor:
    if isinstance(random, torch.Generator):
        return torch.randperm(size, generator=random, device=random.device).cpu()
    return torch.from_numpy(random.permutation(size))
