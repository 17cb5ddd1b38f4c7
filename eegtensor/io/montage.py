"""Where channels lie: standard positions, the info of trials, interpolation."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import mne
import numpy as np
from numpy.typing import NDArray

from eegtensor import _headmodel


@functools.cache
def standard_positions() -> dict[str, NDArray]:
    """Return head positions (metres) of the 10-05 system by name."""
    info = _headmodel.make_info(_headmodel.standard_montage().ch_names, 100.0)
    return {ch["ch_name"]: ch["loc"][:3] for ch in info["chs"]}


def make_info(
    names: Sequence[str],
    types: Sequence[str],
    sfreq: float,
    positions: Mapping[str, NDArray],
    bands: Sequence[str] = ("",),
) -> mne.Info:
    """Return the info of trials: channels of each band, with their positions.

    Parameters
    ----------
    names, types : sequence of str
    sfreq : float
    positions : dict of str to ndarray, shape (3,)
    bands : sequence of str
        Words after the names, as in "Oz 12.5-13.5Hz"; all channels of the
        first band come first.
    """
    base = mne.create_info(list(names), sfreq, list(types), verbose="ERROR")
    if positions:
        montage = mne.channels.make_dig_montage(dict(positions), coord_frame="head")
        base.set_montage(montage, on_missing="ignore", verbose="ERROR")
    if tuple(bands) == ("",):
        return base
    stacked = [f"{n} {band}".strip() for band in bands for n in names]
    info = mne.create_info(stacked, sfreq, list(types) * len(bands), verbose="ERROR")
    for i, ch in enumerate(info["chs"]):
        ch["loc"] = base["chs"][i % len(names)]["loc"].copy()
        ch["coord_frame"] = base["chs"][i % len(names)]["coord_frame"]
    return info


def interpolation_matrix(
    present: Sequence[str], missing: Sequence[str], positions: Mapping[str, Any]
) -> NDArray:
    """Return the matrix that restores missing channels, by MNE's spherical splines.

    Returns
    -------
    W : ndarray, shape (n_missing, n_present)
        Zero for channels of unknown position.
    """
    sources = [n for n in present if n in positions]
    names = [*sources, *missing]
    info = make_info(names, ["eeg"] * len(names), 100.0, positions)
    # Interpolation is linear: the unit signals give its matrix, and no
    # recording is copied into an MNE object.
    unit = np.zeros((len(names), len(sources)))
    unit[: len(sources)] = np.eye(len(sources))
    raw = mne.io.RawArray(unit, info, verbose="ERROR")
    # Zeros in their rows never enter: splines read the good channels only.
    raw.info["bads"] = list(missing)
    raw.interpolate_bads(reset_bads=True, verbose="ERROR")
    W = np.zeros((len(missing), len(present)))
    columns = [list(present).index(n) for n in sources]
    W[:, columns] = raw.get_data()[len(sources) :]
    return W
