"""What codes before a code tell of its size.

Energies of codes, relative to those of the training data, are whole numbers:
their sums do not depend on the order of adding, so that a decoder that goes code
by code finds the numbers that the encoder found for all codes at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Energies are counted in 2^-16 of the training data's.
_ONE = 1 << 16
_MOST = 1 << 40
_NEAR = (1, 2, 3, 2, 1)
# Bins on either side, of the last two frames.
_WIDE = 7
# Codes before, in the frame itself.
_BEFORE = (2, 6, 20)
_ALL_BEFORE = (4, 15)
# A frame's share of the long memory, 2^-2.
_FORGET = 2
# Added before the logarithm: nothing is known to be silent.
_FLOOR = 0.02


def n_features(n_units: int) -> int:
    """Return how many numbers a code's context has."""
    return 9 + (4 if n_units > 1 else 0)


def energies(codes: Tensor, relative: Tensor) -> Tensor:
    """Return codes' energies as whole numbers, of the shape of codes.

    Parameters
    ----------
    codes : Tensor of int64, shape (..., n_units, n_bins)
    relative : Tensor, shape (n_units, n_bins)
        Energy of the training data in squared steps.
    """
    # A twelfth is the energy of what a step does not tell.
    found = (codes.double().square() + 1 / 12) / (relative + 1 / 12) * _ONE
    return found.floor().clamp_max(_MOST).to(torch.int64)


class Memory:
    """Energies of the frames before, of many recordings in parallel.

    Parameters
    ----------
    shape : tuple
        (n_trials, n_units, n_bins) of a frame.
    device : torch.device
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.last = torch.full(shape, _ONE, dtype=torch.int64, device=device)
        self.before = self.last
        self.long = self.last

    def add(self, frame: Tensor) -> None:
        """Put a frame's energies behind the others."""
        self.before, self.last = self.last, frame
        self.long = self.long + ((frame - self.long) >> _FORGET)

    def features(self) -> list[Tensor]:
        """Return what frames before tell, each of the shape of a frame."""
        return _past(self.last, self.before, self.long)

    def follow(self, frames: Tensor) -> list[Tensor]:
        """Return what was known before each of some frames, and add them all.

        Parameters
        ----------
        frames : Tensor of int64, shape (n_trials, n_frames, n_units, n_bins)
        """
        last = torch.cat([self.last[:, None], frames[:, :-1]], dim=1)
        before = torch.cat([self.before[:, None], last[:, :-1]], dim=1)
        long = []
        for frame in frames.unbind(dim=1):
            long.append(self.long)
            self.add(frame)
        return _past(last, before, torch.stack(long, dim=1))


def frame_features(frame: Tensor) -> list[Tensor]:
    """Return what the lower bins of the frame itself tell of each bin.

    Parameters
    ----------
    frame : Tensor of int64, shape (..., n_units, n_bins)
        Energies; a bin's own and those above it are not looked at.
    """
    n_units, n_bins = frame.shape[-2:]
    total = torch.nn.functional.pad(frame.cumsum(dim=-1), (1, 0))
    at = torch.arange(n_bins, device=frame.device)

    def before(length: int) -> tuple[Tensor, Tensor]:
        first = (at - length).clamp_min(0)
        energy = total[..., at] - total[..., first]
        count = at - first
        return torch.where(count > 0, energy, _ONE), count.clamp_min(1)

    found = [_log(*before(length)) for length in _BEFORE]
    if n_units > 1:
        for length in _ALL_BEFORE:
            energy, count = before(length)
            shared = _log(energy.sum(dim=-2, keepdim=True), count * n_units)
            found.append(shared.expand_as(frame))
        # The unit before is the one most alike: units are ordered by energy.
        other = found[1]
        found.append(torch.cat([other[..., :1, :], other[..., :-1, :]], dim=-2))
    return found


def contexts(codes: Tensor, relative: Tensor, memory: Memory | None = None) -> Tensor:
    """Return the context of every code.

    Parameters
    ----------
    codes : Tensor of int64, shape (n_trials, n_frames, n_units, n_bins)
    relative : Tensor, shape (n_units, n_bins)
        See `energies`.
    memory : Memory | None
        Of the frames before these, which are added to it; None where none are.

    Returns
    -------
    features : Tensor, shape (n_trials, n_frames, n_units, n_bins, n_features)
        Logarithms of relative energies, the training data's last.
    """
    energy = energies(codes, relative)
    if memory is None:
        memory = Memory(energy[:, 0].shape, energy.device)
    past = memory.follow(energy)
    prior = prior_feature(relative).expand(energy.shape)
    return torch.stack([*past, *frame_features(energy), prior], dim=-1)


def prior_feature(relative: Tensor) -> Tensor:
    """Return the logarithm of the training data's energy, (n_units, n_bins)."""
    return (relative + 1 / 12).log()


def _past(last: Tensor, before: Tensor, long: Tensor) -> list[Tensor]:
    """Return features of frames before, whose last two axes are units and bins."""
    wide = 2 * _WIDE + 1
    nearby = _near(last)
    found = [
        _log(last, 1),
        _log(nearby, sum(_NEAR)),
        _log(_near(before), sum(_NEAR)),
        _log(_around(last + before, _WIDE), 2 * wide),
        _log(_near(long), sum(_NEAR)),
    ]
    n_units = last.shape[-2]
    if n_units > 1:
        shared = _log(nearby.sum(dim=-2, keepdim=True), n_units * sum(_NEAR))
        found.append(shared.expand_as(last))
    return found


def _log(energy: Tensor, count: Tensor | int) -> Tensor:
    return energy.double().div_(count * float(_ONE)).add_(_FLOOR).log_()


def _near(x: Tensor) -> Tensor:
    """Return sums over five bins, the outermost counted again beyond the ends."""
    n = x.shape[-1]
    half = len(_NEAR) // 2
    padded = torch.cat([x[..., :1]] * half + [x] + [x[..., -1:]] * half, dim=-1)
    total = padded[..., :n] * _NEAR[0]
    for k, weight in enumerate(_NEAR[1:], start=1):
        total = total + weight * padded[..., k : k + n]
    return total


def _around(x: Tensor, half: int) -> Tensor:
    """Return sums over 2 half + 1 bins, the outermost counted again."""
    n = x.shape[-1]
    padded = torch.cat([x[..., :1]] * half + [x] + [x[..., -1:]] * half, dim=-1)
    total = torch.nn.functional.pad(padded.cumsum(dim=-1), (1, 0))
    return total[..., 2 * half + 1 :] - total[..., :n]
