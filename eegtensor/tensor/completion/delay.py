"""Channels and delays jointly: a stationary Gaussian process learned from holes.

The joint covariance of all channels at all delays is block-Toeplitz, so it is a
matrix at every frequency (`spectrum`). Expectation and maximisation alternate:
the lost cells given the seen ones, over the whole record at once
(`_conditional`), with a draw of what stays uncertain; then the cross-spectral
matrices of both together. Powers keep a fine resolution in frequency,
coherences a coarse one. The whole-record answer replaces the block-Hankel matrix
of (channels x delays) rows: same second moments, no windows, no rank to choose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.tensor.completion._conditional import (
    Conditioner,
    Stretch,
    process,
)
from eegtensor.tensor.completion.spectrum import (
    fast_length,
    smooth_coherence,
    welch,
)

NUGGET = 1e-4
FIRST_NUGGET = 1e-3
# Lags of coherence, where most cells are seen and where few are.
COHERENCE_LAGS = (32, 16)
MOST_SEEN = 0.6
# With fewer cells than this, components are not known well enough to smooth them
# instead of channels.
COMPONENTS_SEEN = 0.2
# Lost samples appended to every trial, so that its two ends do not touch.
TAIL = 24


class Stationary(NamedTuple):
    """What was learned from trials with lost cells.

    Attributes
    ----------
    spectrum : Tensor, shape (n_lags / 2 + 1, n_channels, n_channels)
        Cross-spectral matrices.
    n_lags : int
    nugget : float
        Relative power of the white noise that conditioning adds.
    """

    spectrum: Tensor
    n_lags: int
    nugget: float


class Conditioned(NamedTuple):
    """Lost cells given those seen.

    Attributes
    ----------
    values : Tensor, shape (n_trials, n_channels, n_times)
        Cells seen are unchanged.
    draws : Tensor, shape (n_draws, n_trials, n_channels, n_times)
        Draws of the error: zero mean, with the conditional covariance.
    variance : Tensor, shape (n_trials, n_channels, n_times)
        Exact inside stretches without any channel, NaN elsewhere.
    """

    values: Tensor
    draws: Tensor
    variance: Tensor


def regularise(spectrum: Tensor, seen: Tensor) -> Tensor:
    """Return the spectrum with as much coherence as the observed cells pay for."""
    share = float(seen.double().mean())
    lags = COHERENCE_LAGS[0] if share > MOST_SEEN else COHERENCE_LAGS[1]
    return smooth_coherence(spectrum, lags, components=share > COMPONENTS_SEEN)


def gaps(lost: Tensor) -> list[Stretch]:
    """Return the stretches in which all channels are lost, by length.

    Parameters
    ----------
    lost : Tensor of bool, shape (n_channels, n_trials, n_times)
    """
    empty = lost.all(dim=0).to(torch.int8)
    edge = empty.new_zeros(len(empty), 1)
    steps = torch.diff(empty, dim=1, prepend=edge, append=edge)
    trials, starts = (steps == 1).nonzero(as_tuple=True)
    ends = (steps == -1).nonzero(as_tuple=True)[1]
    lengths = ends - starts
    return [
        Stretch(int(n), trials[lengths == n], starts[lengths == n])
        for n in lengths.unique()
    ]


class Conditional:
    """Trials with one mask, for conditioning on what was seen.

    Parameters
    ----------
    values : Tensor, shape (n_trials, n_channels, n_times)
        Zero mean, zero where lost.
    seen : Tensor of bool, same shape
    n_draws : int
        Draws of the error that are carried along.
    generator : torch.Generator
    neighbours : float
        Of the solver's filter for scattered cells.
    """

    def __init__(
        self,
        values: Tensor,
        seen: Tensor,
        n_draws: int,
        generator: torch.Generator,
        *,
        neighbours: float = 0.01,
    ) -> None:
        self.shape = values.shape
        n_trials, n_channels, n_times = values.shape
        tail = max(2, min(TAIL, 1536 // n_channels))
        length = fast_length(n_times + tail)
        size = (n_channels, n_trials, length)
        self.seen_values = values.new_zeros(size)
        self.seen_values[..., :n_times] = values.permute(1, 0, 2)
        lost = torch.ones(size, dtype=torch.bool, device=values.device)
        lost[..., :n_times] = ~seen.permute(1, 0, 2)
        self.stretches = gaps(lost)
        self.solver = Conditioner(lost.to(values), self.stretches, neighbours)
        white = torch.randn(
            n_channels,
            n_draws * n_trials,
            length,
            generator=generator,
            dtype=torch.float64,
        )
        self.white = white.to(values)
        self.n_draws = n_draws
        self.seen = seen
        self.state = values.new_zeros(n_channels, (1 + n_draws) * n_trials, length)

    def start(self, values: Tensor) -> None:
        """Begin from completed values instead of zero."""
        n_trials, _, n_times = self.shape
        self.state[:, :n_trials, :n_times] = values.permute(1, 0, 2).to(self.state)
        self.state[:, :n_trials].masked_fill_(self.solver.seen, 0.0)

    def resume(self, other: Conditional) -> None:
        """Go on from the state of trials of the same shape with another mask."""
        self.white = other.white
        copies = len(self.state[0]) // self.shape[0]
        seen = self.solver.seen.repeat(1, copies, 1)
        self.state = other.state.masked_fill(seen, 0.0)

    def advance(self, model: Stationary, n_iter: int, *, nugget: float) -> None:
        """Take steps towards the conditional mean and the draws, in place."""
        self.solver.set_process(process(model.spectrum, nugget))
        right = self.solver.right_side(self.seen_values)
        if self.n_draws:
            right = torch.cat([right, self.solver.noise_side(self.white)], dim=1)
        self.state = self.solver.solve(right, self.state, n_iter)

    def learned(self, n_lags: int) -> Stationary:
        """Return what the mean and the draws of its error say about the process."""
        n_trials, _, n_times = self.shape
        mean = (self.seen_values + self.state[:, :n_trials])[..., :n_times]
        spectrum = welch(mean, n_lags)
        if self.n_draws:
            spectrum = spectrum + welch(self.state[:, n_trials:, :n_times], n_lags)
        return Stationary(regularise(spectrum, self.seen), n_lags, NUGGET)

    def result(self) -> Conditioned:
        """Return the state in the shape of the trials."""
        n_trials, n_channels, n_times = self.shape
        state = self.state[..., :n_times].permute(1, 0, 2)
        values = self.seen_values[..., :n_times].permute(1, 0, 2) + state[:n_trials]
        draws = state[n_trials:].reshape(self.n_draws, *self.shape)
        padded = torch.full((n_channels, *self.seen_values.shape[1:]), torch.nan)
        for stretch, variance in zip(
            self.solver.blocks, self.solver.variances, strict=True
        ):
            trials, times = self.solver._cells(stretch)
            padded[:, trials, times] = variance.T[:, None].to(padded)
        return Conditioned(
            values, draws, padded[..., :n_times].permute(1, 0, 2).to(values)
        )


def learn(
    trials: Conditional,
    first: Tensor,
    n_lags: int,
    *,
    n_iter: int = 6,
    n_steps: int = 8,
    score: Callable[[Tensor], float] | None = None,
) -> Stationary:
    """Learn the cross-spectral matrices by expectation and maximisation.

    Parameters
    ----------
    trials : Conditional
    first : Tensor, shape (n_lags / 2 + 1, n_channels, n_channels)
        Where to begin.
    n_lags : int
    n_iter : int
        Rounds.
    n_steps : int
        Steps of the solver a round; it goes on from the round before.
    score : callable | None
        Error of completed values; learning stops when it rises and returns the
        best round's matrices.

    Returns
    -------
    Stationary
    """
    model = best = Stationary(first, n_lags, NUGGET)
    lowest = float("inf")
    for step in range(n_iter):
        # Noise falls from round to round: first what is easy to tell.
        nugget = NUGGET * (FIRST_NUGGET / NUGGET) ** max(0.0, 1 - step / 3)
        trials.advance(model, n_steps, nugget=nugget)
        if score is not None:
            error = score(trials.result().values)
            if error > lowest * 1.01 and step > 2:
                break
            if error < lowest:
                lowest, best = error, model
        model = trials.learned(n_lags)
        if score is None:
            best = model
    return best
