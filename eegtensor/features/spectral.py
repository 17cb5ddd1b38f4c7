"""Covariance matrices of the narrow bands of trials."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import median_filter

from eegtensor._check import check_signals, fail
from eegtensor.features._base import DomainTransformer, check_fitted
from eegtensor.features._spectrum import mean_power, pieces, spectra
from eegtensor.geometry.covariance import shrink_oas

# Frequencies with less power than this share of the strongest one are filtered out.
_FLOOR = 1e-3
# Frequencies of the median: more than twice what the taper makes of a line.
_LINE = 9


class SpectralCovariances(DomainTransformer):
    """One covariance matrix for each of some narrow bands of a trial.

    The bands are equal parts of the frequencies that the source trials hold, of
    which the rate of sampling need not be known: what a filter has taken out is
    left out. A trial is tapered (Hann) and transformed once; a band's matrix is
    the real part of its cross-spectra, shrunk towards the identity by the oracle
    approximating rule with two degrees of freedom a frequency.

    Parameters
    ----------
    n_bands : int
        Fewer where trials are too short for so many.

    Attributes
    ----------
    bands_ : ndarray of int, shape (n_bands, 2)
        First frequency of each band and the first one above it, as numbers of
        the Fourier transform of a trial.

    References
    ----------
    Y. Chen, A. Wiesel, Y. C. Eldar and A. O. Hero, "Shrinkage algorithms for MMSE
    covariance estimation", IEEE Trans. Signal Process., 2010 (eq. 23).
    """

    def __init__(self, n_bands: int = 8) -> None:
        self.n_bands = n_bands

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Find the frequencies that trials hold.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts

        Raises
        ------
        EEGTensorError
            If trials have too few samples.
        """
        X = check_signals(X)
        if self.n_bands < 1:
            fail(f"n_bands={self.n_bands}", fix="give at least one band")
        if X.shape[2] < 8:
            fail(
                f"Trials have {X.shape[2]} samples",
                why="They hold no bands",
                fix="give longer trials",
            )
        power = mean_power(X, np.hanning(X.shape[2]))
        # Medians of neighbours: a line, of the mains or of a flicker, is no band.
        power = median_filter(power[1:], size=min(_LINE, len(power) - 1))
        held = np.flatnonzero(power >= _FLOOR * power.max()) + 1
        low, high = int(held[0]), int(held[-1]) + 1
        n_bands = max(1, min(self.n_bands, (high - low) // 2))
        edges = np.round(np.linspace(low, high, n_bands + 1)).astype(np.int64)
        self.bands_ = np.stack([edges[:-1], edges[1:]], axis=1)
        self._n_times = X.shape[2]
        self.n_features_in_ = X.shape[1]
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return covariances of bands.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts

        Returns
        -------
        C : ndarray, shape (n_trials, n_bands, n, n), float64, volts squared
        """
        check_fitted(self, "bands_")
        X = check_signals(X)
        if X.shape[1:] != (self.n_features_in_, self._n_times):
            fail(
                f"X has {X.shape[1]} channels x {X.shape[2]} samples, fit saw "
                f"{self.n_features_in_} x {self._n_times}",
                fix="use the same channels, rate and window as in fit",
            )
        return np.concatenate([self._covariances(part) for part in pieces(X)])

    def _covariances(self, X: NDArray) -> NDArray:
        spectrum = spectra(X, np.hanning(X.shape[2]))
        bands = []
        for low, high in self.bands_:
            Z = spectrum[:, :, low:high]
            S = (Z @ Z.conj().swapaxes(1, 2)).real / (high - low)
            bands.append(shrink_oas(S, 2 * int(high - low)))
        return np.stack(bands, axis=1)
