"""Spectra as they are coded: lanes of frames of units.

A lane is what is coded by itself from its first second to its last: a trial of
components, or one channel of a trial.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.tokens._mixing import mix, unmix


def lanes_of(coefs: NDArray, mixing: NDArray | None) -> Tensor:
    """Return spectra (n_trials, n_channels, n_frames, n_bins) as lanes.

    Returns
    -------
    lanes : Tensor, shape (n_lanes, n_frames, n_units, n_bins)
        One unit where nothing is mixed.
    """
    if mixing is None:
        return torch.from_numpy(coefs.reshape(-1, *coefs.shape[2:]))[:, :, None]
    return torch.from_numpy(np.ascontiguousarray(mix(coefs, mixing).swapaxes(1, 2)))


def spectra_of(lanes: Tensor, n_trials: int, mixing: NDArray | None) -> NDArray:
    """Return the inverse of `lanes_of`."""
    coefs = by_unit(lanes, n_trials).numpy()
    return coefs if mixing is None else unmix(coefs, mixing)


def by_unit(lanes: Tensor, n_trials: int) -> Tensor:
    """Return lanes (n_lanes, n_frames, n_units, k) as (n_trials, n_units, n_frames, k).

    Lanes of single units are units of trials.
    """
    n_frames, last = lanes.shape[1], lanes.shape[3]
    return lanes.swapaxes(1, 2).reshape(n_trials, -1, n_frames, last)


def by_lane(ids: NDArray, mixing: NDArray | None) -> Tensor:
    """Return the inverse of `by_unit`, int64."""
    found = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    if mixing is None:
        return found.flatten(0, 1)[:, :, None]
    return found.swapaxes(1, 2)
