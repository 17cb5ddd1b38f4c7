"""Channels to components, band by band, and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.geometry import spectral
from eegtensor.tokens._bands import edges_to
from eegtensor.tokens._signals import Signals


def fit_mixing(recordings: Sequence[Signals], coefs: Sequence[NDArray]) -> NDArray:
    """Return the principal components of every band, largest first.

    Alpha and beta have other maps than delta: components of a band need fewer bits
    than those of the broad signal.

    Parameters
    ----------
    recordings : sequence of Signals
    coefs : sequence of ndarray, shape (n_trials, n_channels, n_frames, n_bins)
        Their spectra, scaled.

    Returns
    -------
    mixing : ndarray, shape (n_bands, n_units, n_channels)
        Orthogonal rows in every band.
    """
    names = {s.ch_names for s in recordings}
    counts = {c.shape[1] for c in coefs}
    if len(names) > 1 or len(counts) > 1:
        fail(
            "recordings have different channels: "
            f"{max(len(names), len(counts))} sets of them",
            fix="harmonise them, or fit with spatial=False",
        )
    found = []
    for low, high in pairwise(edges_to(coefs[0].shape[-1])):
        gram = sum(_gram(c[..., low:high]) for c in coefs)
        vectors = spectral.eigh(np.asarray(gram))[1][:, ::-1].T
        # The sign of a component is free: its largest weight is positive.
        largest = np.abs(vectors).argmax(axis=1)
        signs = np.sign(vectors[np.arange(len(vectors)), largest])
        found.append(vectors * signs[:, None])
    return np.ascontiguousarray(np.stack(found))


def mix(coefs: NDArray, mixing: NDArray) -> NDArray:
    """Return components of spectra (n_trials, n_channels, n_frames, n_bins)."""
    return _each_band(coefs, mixing)


def unmix(coefs: NDArray, mixing: NDArray) -> NDArray:
    """Return the inverse of `mix`."""
    return _each_band(coefs, mixing.swapaxes(1, 2))


def _each_band(coefs: NDArray, matrices: NDArray) -> NDArray:
    parts = [
        np.einsum("uc,tcfb->tufb", matrix, coefs[..., low:high], optimize=True)
        for matrix, (low, high) in zip(
            matrices, pairwise(edges_to(coefs.shape[-1])), strict=True
        )
    ]
    return np.concatenate(parts, axis=-1)


def _gram(coefs: NDArray) -> NDArray:
    return np.asarray(np.einsum("tcfb,tdfb->cd", coefs, coefs, optimize=True))
