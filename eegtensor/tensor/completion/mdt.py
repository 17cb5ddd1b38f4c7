"""Low rank of delay-embedded tensors, by Fourier transforms (fast MDT-Tucker).

Every chosen mode of a tensor is embedded: the windows of `w` neighbours at each
place of the circle become a mode of their own, and only these are given low rank.
The least-squares problem

    min ||H(Z) - G x_1 F_1 ... x_k F_k||^2,  Z = X where observed,

in Z, F and G is solved block by block (each block cannot raise it): the Gram
matrix of a window mode is Toeplitz, and the new Z is the old one filtered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_number, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._shapes import (
    Random,
    as_random,
    as_tensor,
    check_rank,
    check_sweeps,
)
from eegtensor.tensor.completion import _toeplitz
from eegtensor.tensor.completion._circle import Circle


class MDT(NamedTuple):
    """A tensor completed by low rank of its delay embedding.

    Attributes
    ----------
    values : array, shape and dtype of X
        Observed cells are unchanged.
    factors : tuple of (array, shape (window, rank)) | None
        Orthonormal columns over the window of each mode; None where not embedded.
    ranks : tuple of int
        One for each mode; 1 where not embedded.
    history : tuple of float
        ||H(Z) - projection||^2 after each iteration, relative to the energy observed.
    changes : tuple of int
        Iterations at which a rank was raised.
    error : float
        Smallest error of the held-out cells, relative to them; NaN if none were.
    """

    values: Array
    factors: tuple[Array | None, ...]
    ranks: tuple[int, ...]
    history: tuple[float, ...]
    changes: tuple[int, ...]
    error: float


@bridged
def mdt_tucker(
    X: Array,
    mask: Array | None,
    window: int | Sequence[int],
    *,
    ranks: int | Sequence[int] | None = None,
    max_iter: int = 500,
    tol: float = 1e-3,
    noise: float = 1e-8,
    held_out: float = 0.05,
    reflect: bool = True,
    random_state: Random = 0,
) -> MDT:
    """Complete a tensor by low Tucker rank of its circular delay embedding.

    For signals alone it is one filter for all channels, which cannot restore what
    a channel lost from another: for that, embed them jointly (`multichannel_ssa`).

    Parameters
    ----------
    X : array, shape (I_1, ..., I_N)
        In any unit. NaN is lost.
    mask : array of bool, same shape, | None
        True where observed.
    window : int | sequence of int
        Samples of a window in each mode; 1 leaves a mode as it is. One number is
        for the last mode.
    ranks : int | sequence of int | None
        Of each embedded mode. None starts at 1 and raises the rank of the mode
        that cuts off most, whenever the cost stalls.
    max_iter : int
    tol : float
        The cost stalls when it falls by less, relative to itself.
    noise : float
        No rank is raised once the cost is below.
    held_out : float
        Share of the observed cells that is hidden while ranks are raised; the
        ranks that restore them best are taken. 0 raises until `noise`.
    reflect : bool
        Continue each embedded mode by its mirror image, so that its two ends do
        not meet on the circle.
    random_state : int | Generator
        Draws the held-out cells.

    Returns
    -------
    MDT

    Raises
    ------
    EEGTensorError
        If windows or ranks do not fit the shape, nothing is observed, or an
        observed cell is infinite.

    References
    ----------
    T. Yokota et al., "Missing slice recovery for tensors using a low-rank model in
    embedded space", CVPR, 2018 (model, rank increment). R. Yamamoto et al., "Fast
    algorithm for low-rank tensor completion in delay-embedded space", CVPR, 2022
    (circular embedding).
    """
    check_sweeps(max_iter, tol)
    check_number("noise", noise, least=0.0)
    if check_number("held_out", held_out, least=0.0) >= 1.0:
        fail(f"held_out={held_out!r}", fix="give a share from 0 to below 1")
    known, observed, total = as_tensor(X, mask, ndim=1)
    windows = _windows(window, known.shape)
    seen = torch.ones_like(known, dtype=torch.bool) if observed is None else observed
    margins = [w - 1 if reflect else 0 for w in windows]
    problem = Circle(
        _toeplitz.reflect(known, margins).double(),
        _toeplitz.reflect(seen, margins),
        windows,
    )
    fixed = None if ranks is None else _ranks(ranks, windows)
    if fixed is not None or total == 0.0 or held_out == 0.0:
        state = problem.run(problem.start(fixed), fixed, max_iter, tol, noise)
        error = float("nan")
    else:
        # Hidden before the mirror: a cell and its image are hidden together.
        kept = seen & ~_hidden(seen, held_out, random_state)
        less = Circle(
            torch.where(_toeplitz.reflect(kept, margins), problem.known, 0.0),
            _toeplitz.reflect(kept, margins),
            windows,
        )
        hidden = problem.seen & ~less.seen
        truth = problem.known[hidden]
        best = less.run(less.start(None), None, max_iter, tol, noise, (hidden, truth))
        error = best.error
        again = best._replace(
            Z=torch.where(problem.seen, problem.known, best.Z), history=(), changes=()
        )
        last = problem.run(again, best.ranks, max_iter, tol, noise)
        state = last._replace(history=best.history + last.history, changes=best.changes)
    values = _toeplitz.crop(state.Z, margins).to(known.dtype)
    axes = problem.axes
    places = {axis: n for n, axis in enumerate(axes)}
    factors = [state.factors[places[a]] if a in places else None for a in range(X.ndim)]
    sizes = [state.ranks[places[a]] if a in places else 1 for a in range(X.ndim)]
    return MDT(
        torch.where(seen, known, values).view(X.shape),
        tuple(factors),
        tuple(sizes),
        state.history,
        state.changes,
        error,
    )


def _hidden(seen: Tensor, share: float, random_state: Random) -> Tensor:
    # A choice among the observed: uniform numbers of the same seed may have made
    # the mask itself.
    places = seen.flatten().nonzero()[:, 0]
    count = max(1, round(share * len(places)))
    random = as_random(random_state)
    if isinstance(random, np.random.Generator):
        drawn = torch.from_numpy(random.permutation(len(places))[:count])
    else:
        drawn = torch.randperm(len(places), generator=random, device=random.device)
    hidden = torch.zeros_like(seen).flatten()
    hidden[places[drawn[:count].to(places.device)]] = True
    return hidden.view(seen.shape)


def _windows(window: Any, shape: Sequence[int]) -> list[int]:
    given = [window] if np.ndim(window) == 0 else list(window)
    sizes = [check_rank(w, "window") for w in given]
    if len(given) == 1:
        sizes = [1] * (len(shape) - 1) + sizes
    if len(sizes) != len(shape) or any(
        w > s for w, s in zip(sizes, shape, strict=True)
    ):
        fail(
            f"window={tuple(sizes)} for an array of shape {tuple(shape)}",
            fix="give one number for each mode, none above its size; 1 is no window",
        )
    return sizes


def _ranks(ranks: Any, windows: Sequence[int]) -> list[int]:
    given = [ranks] * len(windows) if np.ndim(ranks) == 0 else list(ranks)
    if len(given) != len(windows):
        fail(
            f"ranks={tuple(given)} for {len(windows)} modes",
            fix="give one rank, or one for each mode (any where the window is 1)",
        )
    checked = [
        min(check_rank(r, "ranks"), w) for r, w in zip(given, windows, strict=True)
    ]
    return [r for r, w in zip(checked, windows, strict=True) if w > 1]
