"""Windows of signals on a curved surface: an autoencoder in embedded space.

Low rank puts the windows of all channels on a flat surface; oscillations of
changing pitch or amplitude lie on a curved one of fewer dimensions. An autoencoder
A with a narrow middle is fitted to noisy windows h while the lost cells are fitted
to it:

    min ||y - x||^2 over observed cells + b mean ||h - A(h + noise)||^2,

where x is A's windows overlapped and averaged.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._shapes import check_rank
from eegtensor.tensor.completion._autoencoder import (
    Autoencoder,
    errors,
    overlap_average,
    windows_of,
)
from eegtensor.tensor.completion._standard import hidden_cells, standardise
from eegtensor.tensor.completion._toeplitz import crop, reflect
from eegtensor.tensor.completion.gaussian import gaussian_fit, gaussian_mean

WINDOW = 8
RATE, DECAY, DECAY_STEPS = 0.003, 0.98, 100
# Balance of the two errors: where it starts, and how it is moved.
BALANCE, BALANCE_STEPS, RAISE, LOWER = 5.0, 10, 1.1, 0.99
# Windows of a stretch, stretches of a step.
STRETCH, STRETCHES = 32, 16
CHECK = 25
# Checks without a better one until it stops.
PATIENCE = 8
WIDEST = 512


class MMES(NamedTuple):
    """Signals completed by an autoencoder of their windows.

    Attributes
    ----------
    values : array, shape and dtype of X
        Observed cells are unchanged.
    n_steps : int
        Steps to the best state; 0 if nothing was better than the start.
    history : tuple of float
        Error of the held-out cells, relative to them, at the start and at every
        check after.
    """

    values: Array
    n_steps: int
    history: tuple[float, ...]


@bridged
def mmes(
    X: Array,
    mask: Array | None = None,
    *,
    window: int = WINDOW,
    latent: int = 40,
    noise: float = 0.05,
    max_iter: int = 1000,
    start: Array | None = None,
    random_state: int = 0,
) -> MMES:
    """Complete signals by an autoencoder of their windows.

    Parameters
    ----------
    X : array, shape (n_channels, n_times) or (n_trials, n_channels, n_times)
        In any unit. NaN is lost.
    mask : array of bool, same shape, | None
        True where observed.
    window : int
        Samples of a window; a window holds all channels.
    latent : int
        Width of the autoencoder's middle.
    noise : float
        Standard deviation of the noise that windows get, relative to the signals'.
    max_iter : int
        Most steps, each on 16 stretches of 32 windows.
    start : array, same shape | None
        Completed signals to begin from; None takes the mean given the channels
        seen at the same instant (`gaussian_mean`).
    random_state : int
        Draws the network, the noise, and 5 % of the observed cells, hidden like
        those lost, that tell when to stop.

    Returns
    -------
    MMES

    Raises
    ------
    EEGTensorError
        If shapes do not fit, a channel holds nothing, or the window is longer than
        the signals.

    References
    ----------
    T. Yokota et al., "Manifold modeling in embedded space: an interpretable
    alternative to deep image prior", IEEE Trans. Neural Netw. Learn. Syst., 2022
    (objective, network, balance rule; there on all windows of an image at once and
    without held-out cells).
    """
    check_count("max_iter", max_iter, least=0)
    check_count("random_state", random_state, least=0)
    check_number("noise", noise, least=0.0)
    data = standardise(X, mask)
    window = check_rank(window, "window")
    if window > data.values.shape[-1]:
        fail(
            f"window={window} is longer than the {data.values.shape[-1]} samples "
            "of a trial",
            fix="give a shorter window",
        )
    if start is None:
        first = spatial_start(data.values, data.seen)
    elif tuple(getattr(start, "shape", ())) != tuple(X.shape) or not bool(
        start.isfinite().all()
    ):
        fail(
            "start is not an array of finite numbers in the shape of X",
            fix="give completed signals, such as `complete(X).X`, or None",
        )
    else:
        first = (start.to(data.values).view_as(data.values) - data.mean) / data.scale
    model = Manifold(window, check_rank(latent, "latent"), noise, random_state)
    model.fit(data.values, data.seen, first, max_iter)
    values = model.restore(data.values, data.seen, model.filled, passes=1)
    return MMES(data.restored(values), model.n_steps, tuple(model.history))


def spatial_start(values: Tensor, seen: Tensor) -> Tensor:
    """Return the Gaussian completion, instant by instant."""
    columns = values.transpose(0, 1).flatten(1)
    have = seen.transpose(0, 1).flatten(1)
    # Learned from evenly spread columns: there may be as many patterns as columns.
    some = slice(None, None, max(1, columns.shape[1] // 1024))
    covariance = gaussian_fit(columns[:, some], have[:, some]).covariance
    filled = gaussian_mean(columns, have, covariance).X
    return filled.view(values.shape[1], len(values), -1).transpose(0, 1)


class Manifold:
    """An autoencoder of windows, and the signals that it was learned from.

    Parameters
    ----------
    window, latent : int
    noise : float
    random_state : int
    """

    def __init__(
        self, window: int, latent: int, noise: float, random_state: int
    ) -> None:
        self.window, self.latent, self.noise = window, latent, noise
        self.random_state = random_state
        self.margins = (0, 0, window - 1)
        self.n_steps, self.history = 0, list[float]()
        self.network: Autoencoder | None = None
        self.filled = torch.zeros(0)

    @torch.enable_grad()  # arrays come without
    def fit(self, values: Tensor, seen: Tensor, start: Tensor, max_iter: int) -> None:
        """Learn the network and the lost cells, all of unit power; keep the best."""
        rng = np.random.default_rng(self.random_state)
        generator = torch.Generator().manual_seed(self.random_state)
        hidden = hidden_cells(seen, rng)
        if bool(hidden.any()):
            # The start has seen the hidden cells: what it says of them is no guess.
            start = torch.where(
                hidden,
                spatial_start(torch.where(hidden, 0.0, values), seen & ~hidden),
                start,
            )
        truth = values[hidden]
        kept = reflect(seen & ~hidden, self.margins)
        known = reflect(torch.where(hidden, 0.0, values), self.margins).float()
        free = nn.Parameter(reflect(start, self.margins).float())
        n_channels = values.shape[1]
        size = n_channels * self.window
        network = Autoencoder(size, self.latent, min(size, WIDEST), generator)
        network = network.to(values.device)
        optimizer = torch.optim.Adam([free, *network.parameters()], lr=RATE)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: DECAY ** (step / DECAY_STEPS)
        )
        balance = BALANCE
        self.filled = start
        scale = max(float(truth.norm()), torch.finfo(values.dtype).tiny)
        self.history = [float((start[hidden] - truth).norm()) / scale]
        best, waited = self.history[0], 0
        n_windows = min(STRETCH, known.shape[-1] - self.window + 1)
        places = torch.arange(n_windows + self.window - 1)
        for step in range(1, max_iter + 1):
            trials = torch.randint(len(values), (STRETCHES,), generator=generator)
            last = known.shape[-1] - len(places) + 1
            begin = torch.randint(last, (STRETCHES,), generator=generator)
            at = trials[:, None, None], torch.arange(n_channels)[:, None]
            times = (begin[:, None] + places)[:, None]
            have = kept[(*at, times)]
            X = torch.where(have, known[(*at, times)], free[(*at, times)])
            shape = (STRETCHES, n_windows, size)
            drawn = self.noise * torch.randn(shape, generator=generator).to(X)
            missed, off = errors(network, X, have, drawn, self.window)
            optimizer.zero_grad()
            (missed + balance * off).backward()
            optimizer.step()
            schedule.step()
            if step % BALANCE_STEPS == 0:
                balance *= (
                    RAISE if float(missed.detach()) < float(off.detach()) else LOWER
                )
            if step % CHECK:
                continue
            state = crop(torch.where(kept, known, free.detach()), self.margins)
            found = self._project(network, state)
            error = float((found[hidden] - truth).norm()) / scale
            self.history.append(error)
            waited += 1
            if error < best or not len(truth):
                best, waited = error, 0
                self.n_steps, self.filled = step, state.double()
                self.network = copy.deepcopy(network)
            elif waited >= PATIENCE:
                break

    @torch.no_grad()
    def _project(self, network: nn.Module, values: Tensor) -> Tensor:
        padded = reflect(values, self.margins).float()
        windows = windows_of(padded, self.window)
        found = torch.stack([network(trial) for trial in windows])
        return crop(overlap_average(found, padded.shape[1]), self.margins).double()

    def restore(
        self, values: Tensor, seen: Tensor, start: Tensor, *, passes: int
    ) -> Tensor:
        """Return signals whose lost cells the autoencoder has drawn to its surface."""
        filled = torch.where(seen, values, start)
        for _ in range(passes if self.network is not None else 0):
            assert self.network is not None
            filled = torch.where(seen, values, self._project(self.network, filled))
        return filled
