"""Low rank of channels and delays together: multichannel singular spectra.

Windows of all channels are the rows of a block-Hankel matrix. Its Gram matrix is
block-Toeplitz, made of the cross-correlations of channels; keeping its leading
eigenvectors, each weighted by how far it stands out of the noise, and averaging
what overlaps, is a filter of all channels (`_toeplitz`). Lost cells are those of
which the filtered signal differs least: min <z, (1 - K) z>.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_count, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry.spectral import eigh
from eegtensor.tensor._shapes import check_rank, check_sweeps
from eegtensor.tensor.completion._standard import hidden_cells, standardise
from eegtensor.tensor.completion._toeplitz import (
    Filter,
    block_toeplitz,
    crop,
    cross_lags,
    diagonal_means,
    reflect,
)

WINDOW = 12
# Ranks that are tried in turn, as shares of channels times window.
SHARES = (1 / 8, 1 / 4, 0.4, 0.6, 0.8)
# Fewest changes of the filter at a rank, and when no higher rank is tried.
ROUNDS = 3
WORSE = 1.05
STEPS = 6


class SSA(NamedTuple):
    """Signals completed by low rank of channels and delays.

    Attributes
    ----------
    values : array, shape and dtype of X
        Observed cells are unchanged.
    rank : int
    response : array, shape (2 * window - 1, n_channels, n_channels), float64
        The filter K of the model, taps from lag -(window - 1) on, for channels of
        unit power.
    history : tuple of float
        <z, (1 - K) z> before each change of K, relative to the energy observed.
    error : float
        Smallest error of the held-out cells, relative to them; NaN if none were.
    """

    values: Array
    rank: int
    response: Array
    history: tuple[float, ...]
    error: float


@bridged
def multichannel_ssa(
    X: Array,
    mask: Array | None = None,
    *,
    window: int = WINDOW,
    rank: int | None = None,
    shrink: bool = True,
    max_iter: int = 40,
    n_steps: int = STEPS,
    tol: float = 1e-4,
    random_state: int = 0,
) -> SSA:
    """Complete signals by low rank of their block-Hankel matrix.

    Parameters
    ----------
    X : array, shape (n_channels, n_times) or (n_trials, n_channels, n_times)
        In any unit. NaN is lost.
    mask : array of bool, same shape, | None
        True where observed.
    window : int
        Samples of a window.
    rank : int | None
        None tries rising ranks, each from the one before, and takes the one that
        best restores 5 % of the observed cells, hidden like those that are lost.
    shrink : bool
        Weight an eigenvector of eigenvalue w by 1 - s / w, where s is the mean of
        the eigenvalues cut off (Wiener's filter), instead of by one.
    max_iter : int
        Most changes of the filter.
    n_steps : int
        Steps of conjugate gradients for each filter. Few leave the directions in
        which the filter is least sure near zero.
    tol : float
        With a given rank: stop when values change by less, relative to them.
    random_state : int
        Draws the hidden cells.

    Returns
    -------
    SSA

    Raises
    ------
    EEGTensorError
        If shapes do not fit, a channel holds nothing, or the window is longer than
        the signals.

    References
    ----------
    D. Kondrashov and M. Ghil, "Spatio-temporal filling of missing points in
    geophysical data sets", Nonlin. Processes Geophys. 13, 151-159, 2006 (filling
    by singular spectra, ranks by held-out cells).
    """
    check_sweeps(max_iter, tol, least=1)
    check_count("n_steps", n_steps, least=0)
    check_count("random_state", random_state, least=0)
    data = standardise(X, mask)
    window, n_times = check_rank(window, "window"), data.values.shape[-1]
    if window > n_times:
        fail(
            f"window={window} is longer than the {n_times} samples of a trial",
            fix="give a shorter window",
        )
    full = data.values.shape[1] * window
    state = Gaps(data.values, data.seen, window)
    error = float("nan")
    if rank is not None:
        chosen = min(check_rank(rank), full)
        history = tuple(state.fit(chosen, max_iter, n_steps, tol, shrink=shrink))
    else:
        rng = np.random.default_rng(random_state)
        found = choose(
            data.values, data.seen, window, rng, max_iter, n_steps, shrink=shrink
        )
        chosen, error = found.rank, found.error
        history = (*found.history, *state.resume(found, n_steps, shrink=shrink))
    return SSA(data.restored(state.values), chosen, state.response, history, error)


class Chosen(NamedTuple):
    """The state of the filling at which hidden cells were best restored.

    Attributes
    ----------
    z : Tensor
        All cells, with margins.
    rank : int
    response : Tensor
    history : tuple of float
    error : float
        NaN where nothing could be hidden.
    """

    z: Tensor
    rank: int
    response: Tensor
    history: tuple[float, ...]
    error: float


class Gaps:
    """Signals whose lost cells are filled in turn with a filter learned from all.

    Parameters
    ----------
    values : Tensor, shape (n_trials, n_channels, n_times), float64
        Zero where lost.
    seen : Tensor of bool, same shape
    window : int
    """

    def __init__(self, values: Tensor, seen: Tensor, window: int) -> None:
        self.window, self.margins = window, (0, 0, window - 1)
        self.known = reflect(values, self.margins)
        self.seen = reflect(seen, self.margins)
        self.lost = (~self.seen).to(values)
        self.total = max(
            float(self.known.square().sum()), torch.finfo(values.dtype).tiny
        )
        self.z = self.known.clone()
        self.response = values.new_zeros(0)

    @property
    def values(self) -> Tensor:
        """All cells, without margins."""
        return crop(self.z, self.margins)

    def learn(self, rank: int, *, shrink: bool) -> float:
        """Take the filter from the signals as they are filled; return the cost."""
        values, vectors = eigh(block_toeplitz(cross_lags(self.z, self.window)))
        kept, top = values[-rank:], vectors[:, -rank:]
        weights = torch.ones_like(kept)
        if shrink and rank < len(values):
            noise = values[:-rank].mean()
            weights = (1 - noise / kept.clamp_min(torch.finfo(kept.dtype).tiny)).clamp(
                0.0, 1.0
            )
        self.response = diagonal_means((top * weights) @ top.mT, self.z.shape[1])
        # Windows hold every sample `window` times.
        kept_energy = float((weights * kept).sum()) / self.window
        return (float(self.z.square().sum()) - kept_energy) / self.total

    def fill(self, n_steps: int) -> None:
        """Take steps towards the lost cells that the filter changes least."""
        apply = Filter(self.response)
        residual = self.lost * (apply(self.z) - self.z)
        direction, size = residual, float(residual.square().sum())
        for _ in range(n_steps):
            if size <= 1e-24 * self.total:
                break
            image = self.lost * (direction - apply(direction))
            curve = float((direction * image).sum())
            if curve <= 0.0:
                break
            self.z = self.z + (size / curve) * direction
            residual = residual - (size / curve) * image
            before, size = size, float(residual.square().sum())
            direction = residual + (size / before) * direction

    def fit(
        self, rank: int, max_iter: int, n_steps: int, tol: float, *, shrink: bool
    ) -> list[float]:
        """Learn and fill in turn until values change little."""
        history = []
        for _ in range(max_iter):
            history.append(self.learn(rank, shrink=shrink))
            before = self.z
            self.fill(n_steps)
            if float((self.z - before).norm()) <= tol * float(self.z.norm()):
                break
        return history

    def resume(self, chosen: Chosen, n_steps: int, *, shrink: bool) -> list[float]:
        """Go on from a choice that had fewer cells to see."""
        self.z = torch.where(self.seen, self.known, chosen.z)
        return self.fit(chosen.rank, 1, n_steps, 0.0, shrink=shrink)


def choose(
    values: Tensor,
    seen: Tensor,
    window: int,
    rng: np.random.Generator,
    max_iter: int,
    n_steps: int,
    *,
    shrink: bool,
) -> Chosen:
    """Hide cells, raise the rank, and return what restored them best."""
    hidden = hidden_cells(seen, rng)
    some = bool(hidden.any())
    trial = Gaps(torch.where(hidden, 0.0, values), seen & ~hidden, window)
    truth = values[hidden]
    size = max(float(truth.norm()), torch.finfo(values.dtype).tiny)
    full = values.shape[1] * window
    ranks = sorted({max(1, round(share * full)) for share in SHARES})
    if not some:
        ranks = ranks[: len(ranks) // 2 + 1]
    best: Chosen | None = None
    history: list[float] = []
    for rank in ranks:
        waited = 0
        # A rank goes on while it gets better, and no longer than it promises to.
        while len(history) < max_iter and waited < ROUNDS:
            history.append(trial.learn(rank, shrink=shrink))
            trial.fill(n_steps)
            waited += 1
            error = float((trial.values[hidden] - truth).norm()) / size
            error = error if some else float("nan")
            if best is None or not some or error < best.error:
                if best is not None and error < 0.98 * best.error:
                    waited = min(waited, 1)
                best = Chosen(trial.z, rank, trial.response, (), error)
        if best is not None and some and error > WORSE * best.error:
            break
    assert best is not None
    return best._replace(history=tuple(history))
