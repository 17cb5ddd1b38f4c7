"""The conditional mean of a stationary process, exact over the whole record.

With precision Q = S^-1 (a filter), the lost cells m given the seen ones o
minimise x' Q x: Q_mm x_m = -Q_mo x_o. The conjugate gradient method needs only
filtering and masking. Three preconditioners make it quick: in stretches where
every channel is lost the Toeplitz block of Q is factorised, one factor for all
stretches of one length; stretches too long for that take S itself; scattered
cells take (Q + a D)^-1, D being the information that a cell gets from its
seen neighbours when cells are lost at random (a mean-field fixed point).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.tensor.completion.spectrum import (
    convolve,
    frequency_weights,
    impulse_response,
)

# Rows of the largest block that is factorised.
BLOCK = 2048


class Stretch(NamedTuple):
    """Stretches of one length in which all channels are lost.

    Attributes
    ----------
    length : int
    trials, starts : Tensor of int64, shape (n_stretches,)
    """

    length: int
    trials: Tensor
    starts: Tensor


class Process(NamedTuple):
    """A stationary process, ready for conditioning.

    Attributes
    ----------
    spectrum : Tensor, shape (n_frequencies, n_channels, n_channels), complex128
    precision : Tensor
        Its inverse.
    """

    spectrum: Tensor
    precision: Tensor


def process(spectrum: Tensor, nugget: float) -> Process:
    """Return a process with white noise of a relative power added.

    Parameters
    ----------
    spectrum : Tensor, shape (n_frequencies, n_channels, n_channels), complex128
    nugget : float
        Power of the noise, relative to the mean power of each channel. It also
        bounds the number of steps that the solver needs.
    """
    power = spectrum.diagonal(dim1=1, dim2=2).real
    mean = frequency_weights(spectrum) @ power
    noise = nugget * mean.clamp_min(mean.max() * 1e-6).clamp_min(1e-30)
    noisy = spectrum + torch.diag(noise).to(spectrum)
    factor = torch.linalg.cholesky(noisy)
    return Process(noisy, torch.cholesky_inverse(factor))


def scattered_filter(precision: Tensor, share: Tensor, neighbours: float) -> Tensor:
    """Return the preconditioner of cells lost at random, (Q + a D)^-1.

    Parameters
    ----------
    precision : Tensor, shape (n_frequencies, n, n)
    share : Tensor, shape (n,)
        Share of cells that each channel has lost.
    neighbours : float
        Part of D that is added.

    Notes
    -----
    If every cell is seen with probability 1 - p, the conditional covariance is
    about (Q + D)^-1 with D_c = (1 - p_c) / mean over f of (Q + D)^-1_cc.
    """
    weights = frequency_weights(precision)
    share = share.clamp(0.01, 0.99)
    spread = torch.linalg.inv(precision)
    information = torch.zeros_like(share)
    for _ in range(3):
        mean = weights @ spread.diagonal(dim1=1, dim2=2).real
        information = (1 - share) / mean
        spread = torch.linalg.inv(precision + torch.diag(information).to(precision))
    information = neighbours * information
    return torch.linalg.inv(precision + torch.diag(information).to(precision))


class Conditioner:
    """Solve for lost cells of signals that share one mask and one process.

    Parameters
    ----------
    lost : Tensor, shape (n_channels, n_trials, n_times)
        One where lost, zero where seen, in the dtype of the computation.
    stretches : sequence of Stretch
        Where all channels are lost; disjoint.
    neighbours : float
        See `scattered_filter`; changes the steps needed, not the solution.
    """

    def __init__(
        self, lost: Tensor, stretches: Sequence[Stretch], neighbours: float
    ) -> None:
        # Masks are kept as bool: a float each is as much as the signals.
        self.dtype, self.seen = lost.dtype, lost == 0
        self.neighbours = neighbours
        n_channels = len(lost)
        self.blocks = [s for s in stretches if s.length * n_channels <= BLOCK]
        scattered = ~self.seen
        self.has_wide = len(self.blocks) < len(stretches)
        wide = torch.zeros_like(scattered[..., : lost.shape[-1] * self.has_wide])
        inside = torch.zeros_like(scattered[0])
        for stretch in stretches:
            at = self._cells(stretch)
            scattered[:, at[0], at[1]] = False
            inside[at] = True
            if stretch.length * n_channels > BLOCK:
                wide[:, at[0], at[1]] = True
        open_cells = (~inside).sum().clamp_min(1).to(lost)
        self.share = (scattered.sum(dim=(1, 2)).to(lost) / open_cells).double()
        self.has_scattered = bool(scattered.any())
        # Of each stretch that is factorised, shape (length, n_channels).
        self.variances: list[Tensor] = []
        self.not_scattered, self.not_wide = ~scattered, ~wide

    @staticmethod
    def _cells(stretch: Stretch) -> tuple[Tensor, Tensor]:
        steps = torch.arange(stretch.length, device=stretch.starts.device)
        return stretch.trials[:, None], stretch.starts[:, None] + steps

    def set_process(self, model: Process) -> None:
        """Prepare for a process: its filters, and factors of the blocks."""
        dtype = self.dtype.to_complex()
        self.precision = model.precision.to(dtype)
        self.spectrum = model.spectrum.to(dtype)
        if self.has_scattered:
            self.near = scattered_filter(
                model.precision, self.share, self.neighbours
            ).to(dtype)
        longest = max((s.length for s in self.blocks), default=1)
        length = self.seen.shape[-1]
        response = impulse_response(model.precision, length, longest)
        self.factors, self.variances = [], []
        n = len(self.seen)
        for stretch in self.blocks:
            factor = self._factor(response, stretch.length)
            inverse = torch.cholesky_inverse(factor)
            self.variances.append(inverse.diagonal().view(-1, n).clone())
            self.factors.append(factor.to(self.dtype))

    def release(self) -> None:
        """Give up all but the variances: factors may be larger than the signals."""
        self.factors.clear()
        self.precision = self.spectrum = self.near = torch.zeros(0)

    def _factor(self, response: Tensor, length: int) -> Tensor:
        n = response.shape[1]
        here = torch.arange(length, device=response.device)
        block = response.new_empty(length, n, length, n)
        for i in range(length):
            row = response[(here - i).abs()]
            row[i + 1 :] = row[i + 1 :].mT.clone()
            block[i] = row.permute(1, 0, 2)
        # In place, and the lower triangle alone: no other is read.
        for i in range(length):
            above = block[: i + 1, :, i].permute(2, 0, 1)
            block[i, :, : i + 1] = (block[i, :, : i + 1] + above).mul_(0.5)
        return torch.linalg.cholesky(block.view(length * n, -1))

    def right_side(self, seen_values: Tensor) -> Tensor:
        """Return -Q_mo x_o for values that are zero where lost."""
        return self._only_lost(convolve(self.precision, seen_values)).neg_()

    def noise_side(self, white: Tensor) -> Tensor:
        """Return a right side whose solution has the conditional covariance."""
        # Any root of Q will do: cov(P_m L w) = Q_mm, so the solution has Q_mm^-1.
        root = torch.linalg.cholesky(self.precision.to(torch.complex128))
        return self._only_lost(convolve(root.to(self.precision), white))

    def solve(self, right: Tensor, start: Tensor, n_iter: int) -> Tensor:
        """Return the lost cells after some steps, zero where seen.

        Parameters
        ----------
        right, start : Tensor, shape (n_channels, n_copies * n_trials, n_times)
            Copies of the trials lie one behind the other. Both are overwritten.
        n_iter : int
        """

        def product(v: Tensor) -> Tensor:
            return self._only_lost(convolve(self.precision, v))

        return _conjugate_gradient(product, self._precondition, right, start, n_iter)

    def _only_lost(self, signals: Tensor) -> Tensor:
        return _without(signals, self.seen)

    def _precondition(self, residual: Tensor) -> Tensor:
        out: Tensor | None = None
        if self.has_scattered:
            mask = self.not_scattered
            out = convolve(self.near, _without(residual.clone(), mask))
            out = _without(out, mask)
        if self.has_wide:
            mask = self.not_wide
            part = convolve(self.spectrum, _without(residual.clone(), mask))
            part = _without(part, mask)
            out = part if out is None else out.add_(part)
        if out is None:
            out = torch.zeros_like(residual)
        n, n_trials = len(residual), self.seen.shape[1]
        for stretch, factor in zip(self.blocks, self.factors, strict=True):
            trials, times = self._cells(stretch)
            copies = torch.arange(0, residual.shape[1], n_trials)[:, None, None]
            rows = (copies + trials).expand(-1, -1, stretch.length)
            part = residual[:, rows, times].permute(3, 0, 1, 2)
            flat = part.reshape(stretch.length * n, -1)
            solved = torch.cholesky_solve(flat, factor)
            out[:, rows, times] = solved.view(part.shape).permute(1, 2, 3, 0)
        return out


def _without(signals: Tensor, cells: Tensor) -> Tensor:
    """Return all copies of the trials with zero in some cells, in place."""
    copies = signals.unflatten(1, (-1, cells.shape[1]))
    copies.masked_fill_(cells[:, None], 0.0)
    return signals


def _conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    right: Tensor,
    solution: Tensor,
    n_iter: int,
) -> Tensor:
    """Return the solution, every signal with steps of its own."""
    residual = right.sub_(product(solution))
    direction: Tensor | None = None
    before = right.new_ones(right.shape[1])
    tiny = torch.finfo(right.dtype).tiny
    for _ in range(n_iter):
        better = precondition(residual)
        now = _inner(residual, better)
        # Steps stop by themselves where nothing is left to solve.
        ratio = now / before.clamp_min(tiny)
        if direction is None:
            direction = better
        else:
            direction.mul_(ratio[:, None]).add_(better)
        del better
        image = product(direction)
        length = now / _inner(direction, image).clamp_min(tiny)
        solution += length[:, None] * direction
        residual -= image.mul_(length[:, None])
        del image
        before = now
    return solution


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("crt,crt->r", a, b)
