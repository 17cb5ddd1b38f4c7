"""Band-pass filters, resampling and references for arrays of channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, firwin, resample_poly, sosfiltfilt

from eegtensor._check import fail

Band = tuple[float | None, float | None]
# The reference scores of the shared data were made with this order.
ORDER = 4


def check_bands(band: Any, bands: Any) -> list[Band]:
    """Return the bands to filter, [(None, None)] for no filter.

    Raises
    ------
    EEGTensorError
        If both are given, or an edge is no positive number or out of order.
    """
    if band is not None and bands is not None:
        fail("Both band= and bands= are given", fix="give one of them")
    given = [band] if band is not None else bands
    if given is None:
        return [(None, None)]
    if not isinstance(given, Iterable):
        fail(f"bands={bands!r} is no list", fix="give a list of (low, high) in hertz")
    checked = [_check_band(item) for item in given]
    if not checked:
        fail("bands= is empty", fix="give a list of (low, high) in hertz, or None")
    if len(set(checked)) < len(checked):
        fail(f"bands={bands!r} names a band twice", fix="name each band once")
    return checked


def _check_band(item: Any) -> Band:
    try:
        low, high = (None if edge is None else float(edge) for edge in item)
    except (TypeError, ValueError):
        fail(
            f"The band {item!r} is not a pair of numbers",
            fix="give (low, high) in hertz; None leaves an end open",
        )
    if any(edge is not None and not edge > 0 for edge in (low, high)) or (
        low is not None and high is not None and low >= high
    ):
        fail(
            f"The band {item!r} does not rise",
            fix="give 0 < low < high in hertz; None leaves an end open",
        )
    return low, high


def band_name(band: Band) -> str:
    """Return a band in words, as "12.5-13.5Hz"."""
    low, high = band
    if low is None:
        return "" if high is None else f"below {high:g}Hz"
    return f"above {low:g}Hz" if high is None else f"{low:g}-{high:g}Hz"


def check_nyquist(bands: Sequence[Band], sfreq: float, path: Any) -> None:
    """Raise if a band reaches half the rate of a recording."""
    for band in bands:
        top = max((edge for edge in band if edge is not None), default=0.0)
        if top >= sfreq / 2:
            fail(
                f"The band {band_name(band)} reaches beyond half the rate of {path}, "
                f"which has {sfreq:g} Hz",
                fix=f"choose a band below {sfreq / 2:g} Hz, or open its end (None)",
            )


def design(band: Band, sfreq: float) -> NDArray | None:
    """Return a Butterworth filter of order 4 as second-order sections, or None."""
    low, high = band
    if low is None and high is None:
        return None
    if low is None:
        return butter(ORDER, high, "lowpass", fs=sfreq, output="sos")
    if high is None:
        return butter(ORDER, low, "highpass", fs=sfreq, output="sos")
    return butter(ORDER, (low, high), "bandpass", fs=sfreq, output="sos")


def apply_filter(
    sos: NDArray | None, x: NDArray, joints: Sequence[int] = ()
) -> NDArray:
    """Filter forwards and backwards along the last axis (zero phase).

    Parameters
    ----------
    sos : ndarray | None
        From `design`; None returns x.
    x : ndarray, shape (..., n_times)
    joints : sequence of int
        Samples at which the recording was interrupted: each piece is filtered
        by itself.
    """
    if sos is None:
        return x
    # A filter would ring over a joint into both neighbours.
    edges = [0, *sorted({j for j in joints if 0 < j < x.shape[-1]}), x.shape[-1]]
    pieces = []
    for start, stop in pairwise(edges):
        # scipy's own default, cut where the piece is shorter.
        padlen = min(_default_padlen(sos), stop - start - 1)
        pieces.append(sosfiltfilt(sos, x[..., start:stop], padlen=padlen))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)


def _default_padlen(sos: NDArray) -> int:
    taps = 2 * len(sos) + 1
    return 3 * (taps - int(min((sos[:, 2] == 0).sum(), (sos[:, 5] == 0).sum())))


def resampled_length(n_times: int, old: float, new: float) -> int:
    """Return how many samples `resample` makes of `n_times`."""
    ratio = resampling_ratio(old, new)
    # Ceiling in whole numbers, as scipy's resample_poly.
    return -(-n_times * ratio.numerator // ratio.denominator)


def resample(x: NDArray, old: float, new: float) -> NDArray:
    """Change the rate along the last axis by an anti-aliased polyphase filter.

    Sample i of the result lies at i / new seconds; the passband is flat to 80 %
    of the lower Nyquist frequency, and nothing above it is left (80 dB).
    """
    ratio = resampling_ratio(old, new)
    if ratio == 1:
        return x
    # scipy's default filter ripples by 0.1 % and lets aliases through.
    widest = max(ratio.numerator, ratio.denominator)
    taps = firwin(48 * widest + 1, 0.9 / widest, window=("kaiser", 8.0))
    # Lines removed at the ends: an offset would else ring at both.
    return resample_poly(
        x, ratio.numerator, ratio.denominator, axis=-1, window=taps, padtype="line"
    )


def resampling_ratio(old: float, new: float) -> Fraction:
    """Return the ratio of the rates that `resample` uses, a small fraction."""
    # Rates come rounded in headers (499.907 Hz): a small fraction is meant.
    return Fraction(new / old).limit_denominator(5000)


def subtract_reference(x: NDArray, index: Sequence[int]) -> None:
    """Subtract the mean of channels `index`, in place.

    Parameters
    ----------
    x : ndarray, shape (..., n_channels, n_times)
    index : sequence of int
    """
    x -= x[..., list(index), :].mean(axis=-2, keepdims=True)


def filtered_channels(
    x: NDArray,
    bands: Sequence[Band],
    sfreq: float,
    new_sfreq: float,
    joints: Sequence[int] = (),
) -> Iterator[tuple[int, NDArray]]:
    """Yield (row, filtered and resampled channel), all channels of a band first.

    One channel is held at a time, so that filtering costs no memory of the
    recording's size.

    Parameters
    ----------
    x : ndarray, shape (..., n_channels, n_times)
    """
    n_channels = x.shape[-2]
    for b, band in enumerate(bands):
        sos = design(band, sfreq)
        # Channel by channel: sosfiltfilt copies its input three times.
        for c in range(n_channels):
            y = apply_filter(sos, x[..., c, :], joints)
            yield b * n_channels + c, resample(y, sfreq, new_sfreq)
