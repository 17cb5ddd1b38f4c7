"""How many components: core consistency, held-out cells, replicability, evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._shapes import Random, as_random, as_tensor, check_rank
from eegtensor.tensor.ard import ard_cp
from eegtensor.tensor.consistency import core_consistency, crossed_consistency
from eegtensor.tensor.cp import cp
from eegtensor.tensor.kernels import leading_vectors, squared_norm
from eegtensor.tensor.match import draw_halves, fit_halves, half_score

METHODS = ("cross-validation", "core-consistency", "split-half", "ard")
# From these values up, a model counts as valid.
CONSISTENT = 80.0
REPLICABLE = 0.9


@bridged
def mdl_ranks(X: Array, *, effective: bool = True) -> tuple[int, ...]:
    """Return a Tucker rank per mode: the shortest description of its eigenvalues.

    Each unfolding is read as samples of I_n variables in white noise; k directions
    are kept where the likelihood of equal eigenvalues for the rest, and the price
    ``k (2 I_n - k) / 2 log N`` of the directions, add up to the least.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N)
    effective : bool
        Whether neighbours that are alike count as less than one sample each: N is
        the number of other cells times ``(1 - rho^2) / (1 + rho^2)`` for each other
        mode, rho the correlation of neighbours along it.

    Returns
    -------
    ranks : tuple of int
        From 0 (noise alone) to I_n - 1.

    References
    ----------
    M. Wax and T. Kailath, "Detection of signals by information theoretic
    criteria", IEEE Trans. Acoust., Speech, Signal Process., 1985.
    """
    X, observed, total = as_tensor(X)
    if observed is not None:
        fail("X has missing cells", fix="complete it, or choose by cross-validation")
    if total == 0.0:
        return (0,) * X.ndim
    rho = [_neighbours(X, n) if effective else 0.0 for n in range(X.ndim)]
    ranks = []
    for n, size in enumerate(X.shape):
        others = X.numel() // size
        alike = [(1.0 - r * r) / (1.0 + r * r) for m, r in enumerate(rho) if m != n]
        ranks.append(
            _wax_kailath(leading_vectors(X, n, 1)[1], others, math.prod(alike))
        )
    return tuple(ranks)


def _neighbours(X: Tensor, mode: int) -> float:
    """Return the correlation of neighbours along a mode."""
    if X.shape[mode] < 2:
        return 0.0
    Y = X.movedim(mode, 0)
    inner = sum(float((a.double() * b.double()).sum()) for a, b in pairwise(Y))
    scale = math.sqrt(squared_norm(Y[:-1]) * squared_norm(Y[1:]))
    return inner / scale if scale > 0 else 0.0


def _wax_kailath(energy: Tensor, others: int, alike: float) -> int:
    p, N = len(energy), max(others * alike, 2.0)
    floor = float(energy[0]) * 1e-14
    values = energy.clamp_min(floor).cpu().numpy()
    k = np.arange(p)
    logs = np.cumsum(np.log(values)[::-1])[::-1]
    means = np.cumsum(values[::-1])[::-1] / (p - k)
    # Zero for equal eigenvalues, else negative: log of geometric over arithmetic mean.
    likelihood = N * (logs - (p - k) * np.log(means))
    return int(np.argmin(-likelihood + 0.5 * k * (2 * p - k) * math.log(N)))


class RankTable(NamedTuple):
    """What speaks for each rank, and a choice.

    Attributes
    ----------
    choice : int
        The rank chosen by `method`.
    method : str
    choices : dict of str to int
        The choice of every method that was computed.
    ranks : tuple of int
        Of the rows; each of the following has one entry per row, NaN where it was
        not computed.
    fit : tuple of float
        1 - relative error over the observed cells.
    held_out, held_out_error : tuple of float
        Relative error over cells held out, mean over folds and its standard error.
    core_consistency : tuple of float
        In percent, on all of X: components that fit noise can pass.
    crossed_consistency : tuple of float
        That of components of one half of the first mode on the other half; mean of
        both, median over splits.
    split_half : tuple of float
        Mean factor match over halves of the first mode.
    congruence : tuple of float
        Above 0.95, components cancel each other.
    """

    choice: int
    method: str
    choices: dict[str, int]
    ranks: tuple[int, ...]
    fit: tuple[float, ...]
    held_out: tuple[float, ...]
    held_out_error: tuple[float, ...]
    core_consistency: tuple[float, ...]
    crossed_consistency: tuple[float, ...]
    split_half: tuple[float, ...]
    congruence: tuple[float, ...]

    def rows(self) -> list[dict[str, float]]:
        """Return one dict per rank, as `pandas.DataFrame` takes them."""
        names = self._fields[self._fields.index("ranks") + 1 :]
        return [
            {"rank": rank, **{name: getattr(self, name)[at] for name in names}}
            for at, rank in enumerate(self.ranks)
        ]


@bridged
def choose_rank(
    X: Array,
    ranks: Sequence[int],
    *,
    method: str = "cross-validation",
    mask: Array | None = None,
    n_folds: int = 5,
    held_out: float = 0.05,
    n_splits: int = 3,
    ard: bool = True,
    fit: Callable[..., Any] = cp,
    random_state: Random = 0,
    **options: Any,
) -> RankTable:
    """Return a table of CP models of several ranks, and a choice among them.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N)
        NaN are missing cells.
    ranks : sequence of int
    method : "cross-validation" | "core-consistency" | "split-half" | "ard"
        The smallest rank whose held-out error is within one standard error of the
        least; the largest rank whose crossed core consistency is 80 or more; the
        largest whose halves match by 0.9 or more; the rank nearest to `ard_cp`'s.
    mask : array of bool, shape as X | None
        True for observed cells.
    n_folds : int
        Random sets of held-out cells; 0 leaves that column out.
    held_out : float
        Share of the observed cells in each set.
    n_splits : int
        Random halves; 0 leaves both columns of halves out.
    ard : bool
        Whether `ard_cp` is run (always for ``method="ard"``).
    fit : callable
        ``fit(X, rank, mask=..., random_state=..., **options)`` -> CP.
    random_state : int | numpy.random.Generator | torch.Generator | None
    **options
        For `fit`.

    Returns
    -------
    RankTable

    Raises
    ------
    EEGTensorError
        If a rank, a share or the method is not known, or a method's column is left
        out.
    """
    check_option("method", method, METHODS)
    sizes = tuple(sorted({check_rank(r, "ranks") for r in np.atleast_1d(ranks)}))
    if not sizes:
        fail("ranks is empty", fix="give one or more numbers of components")
    for name, value in (("n_folds", n_folds), ("n_splits", n_splits)):
        check_count(name, value, least=0)
    if check_number("held_out", held_out, above=0.0) >= 1.0:
        fail(f"held_out={held_out!r}", fix="give a share such as 0.05")
    needs = {"cross-validation": n_folds, "ard": 1}.get(method, n_splits)
    if needs < 1:
        fail(
            f"method={method!r} with n_folds={n_folds!r} and n_splits={n_splits!r}",
            fix="give 1 or more where the method needs it, 2 or more for an error bar",
        )
    X, observed, _ = as_tensor(X, mask)
    random = as_random(random_state)
    folds = [_fold(X, observed, held_out, random) for _ in range(n_folds)]
    # Every rank is judged on the same folds and halves.
    halves = draw_halves(len(X), n_splits, random) if n_splits else []
    columns: dict[str, list[float]] = {name: [] for name in RankTable._fields[4:]}
    for rank in sizes:
        model = fit(X, rank, mask=observed, random_state=0, **options)
        columns["fit"].append(float(model.fit))
        columns["congruence"].append(float(getattr(model, "congruence", math.nan)))
        columns["core_consistency"].append(core_consistency(X, model, mask=observed))
        lost = [_held_out_error(X, observed, f, rank, fit, options) for f in folds]
        columns["held_out"].append(float(np.mean(lost)) if lost else math.nan)
        spread = float(np.std(lost, ddof=1)) if len(lost) > 1 else math.nan
        columns["held_out_error"].append(spread / math.sqrt(max(len(lost), 1)))
        scores, crossed = [math.nan], [math.nan]
        if halves:
            pairs = [
                (fit_halves(X, rank, observed, h, fit, options), h) for h in halves
            ]
            scores = [half_score(models) for models, _ in pairs]
            crossed = [crossed_consistency(X, observed, m, h) for m, h in pairs]
        columns["split_half"].append(float(np.mean(scores)))
        columns["crossed_consistency"].append(float(np.median(crossed)))
    choices = _choices(sizes, columns)
    if ard or method == "ard":
        top = max(2 * max(sizes), 10)
        found = ard_cp(X, top, mask=observed, random_state=random).rank
        choices["ard"] = min(sizes, key=lambda r: abs(r - found))
    rows = {name: tuple(values) for name, values in columns.items()}
    return RankTable(choices[method], method, choices, sizes, **rows)


def _fold(
    X: Tensor,
    observed: Tensor | None,
    share: float,
    random: np.random.Generator | torch.Generator,
) -> Tensor:
    """Return the numbers of cells held out, of the tensor read as one row."""
    count = X.numel() if observed is None else int(observed.sum())
    size = round(share * count)
    if not 0 < size < count:
        fail(
            f"A share of {share} of {count} cells leaves none on one side",
            fix="raise held_out or give a larger tensor",
        )
    if isinstance(random, torch.Generator):
        drawn = torch.randperm(count, generator=random, device=random.device)[:size]
    else:
        drawn = torch.from_numpy(random.choice(count, size, replace=False))
    drawn = drawn.to(X.device)
    return drawn if observed is None else observed.flatten().nonzero()[drawn, 0]


def _held_out_error(
    X: Tensor,
    observed: Tensor | None,
    held: Tensor,
    rank: int,
    fit: Callable[..., Any],
    options: dict[str, Any],
) -> float:
    kept = (
        torch.ones_like(X, dtype=torch.bool) if observed is None else observed.clone()
    )
    kept.view(-1)[held] = False
    model = fit(X, rank, mask=kept, random_state=0, **options)
    truth = X.flatten()[held]
    energy = squared_norm(truth)
    if energy == 0:
        return 0.0
    return math.sqrt(squared_norm(truth - model.reconstruct().flatten()[held]) / energy)


def _choices(ranks: Sequence[int], columns: dict[str, list[float]]) -> dict[str, int]:
    choices = {}
    held = np.array(columns["held_out"])
    if np.isfinite(held).all():
        best = int(held.argmin())
        spread = columns["held_out_error"][best]
        limit = held[best] + (spread if math.isfinite(spread) else 0.0)
        choices["cross-validation"] = ranks[int(np.flatnonzero(held <= limit)[0])]
    scores = np.array(columns["split_half"])
    if np.isfinite(scores).all():
        crossed = np.array(columns["crossed_consistency"])
        valid = np.flatnonzero(crossed >= CONSISTENT)
        choices["core-consistency"] = ranks[int(valid[-1]) if len(valid) else 0]
        good = np.flatnonzero(scores >= REPLICABLE)
        choices["split-half"] = ranks[int(good[-1] if len(good) else scores.argmax())]
    return choices
