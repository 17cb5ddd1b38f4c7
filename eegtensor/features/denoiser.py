"""Trials without noise: of sensors, or reduced to what their condition shares."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, check_option, check_signals, fail
from eegtensor.features._base import DomainTransformer, check_fitted
from eegtensor.tensor.denoising import (
    apply_paired,
    denoise_nonlocal,
    fit_paired,
    noise_level,
    noise_spectrum,
)
from eegtensor.tensor.denoising.nonlocal_lowrank import DOMAINS


class NonlocalDenoiser(DomainTransformer):
    """Noise of sensors taken from each trial, by stretches that resemble each other.

    `fit` learns how much noise each channel has, `transform` denoises each trial by
    itself: no trial speaks to another one, and labels are not needed. Trials of a
    second or more hold enough that is alike. To denoise many short trials together,
    or a recording, call `eegtensor.tensor.denoising.denoise_nonlocal`.

    Parameters
    ----------
    domain : "time-frequency" | "time"
        Whether patches are oscillations, alike whatever their phase, or waveforms.
    noise : "white" | "unshared"
        As in `denoise_nonlocal`: told by the highest frequencies, or what other
        channels do not tell, with its spectrum ("time-frequency" alone).
    rank : int | None
        Eigen-channels; None: those that rise above the noise.
    patch, step : int | None
        Samples.
    n_similar, n_iter, feedback, strength
        As in `denoise_nonlocal`.

    Attributes
    ----------
    noise_ : ndarray, shape (n_channels,) or (n_channels, patch // 2), volts
        Standard deviation of the noise, with its spectrum if it is "unshared".

    See Also
    --------
    eegtensor.tensor.denoising.denoise_nonlocal : the method.
    """

    def __init__(
        self,
        domain: str = "time-frequency",
        noise: str = "white",
        rank: int | None = None,
        patch: int | None = None,
        step: int | None = None,
        n_similar: int = 40,
        n_iter: int = 3,
        feedback: float = 0.1,
        strength: float = 0.9,
    ) -> None:
        self.domain = domain
        self.noise = noise
        self.rank = rank
        self.patch = patch
        self.step = step
        self.n_similar = n_similar
        self.n_iter = n_iter
        self.feedback = feedback
        self.strength = strength

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Learn the noise of each channel.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y, subjects, sessions : ignored

        Raises
        ------
        EEGTensorError
            If options do not fit, or there are too few channels or samples.
        """
        X = check_signals(X)
        check_option("domain", self.domain, DOMAINS)
        check_option("noise", self.noise, ("white", "unshared"))
        if self.noise == "white":
            self.noise_ = noise_level(X)
        elif self.domain == "time":
            fail(
                "noise='unshared' has a spectrum",
                fix="choose domain='time-frequency', or noise='white'",
            )
        else:
            self.noise_ = noise_spectrum(X, patch=self.patch, step=self.step)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return trials without what `fit` found to be noise.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        subjects, sessions : ignored

        Returns
        -------
        X : ndarray, same shape, float64

        Raises
        ------
        EEGTensorError
            If channels differ from those of `fit`, or trials are shorter than a
            patch.
        """
        check_fitted(self, "noise_")
        options: dict[str, Any] = self.get_params(deep=False)
        options.pop("noise")
        trials = check_signals(X)
        if trials.shape[1] != self.n_features_in_:
            fail(
                f"Trials have {trials.shape[1]} channels, the fit saw "
                f"{self.n_features_in_}",
                fix="give the same channels in the same order",
            )
        return np.stack(
            [denoise_nonlocal(x, sigma=self.noise_, **options).X for x in trials]
        )


class PairedDenoiser(DomainTransformer):
    """Evoked responses of single trials, by networks that trials train on each other.

    Within a class (of one subject and session, where they are given), every trial
    learns to predict the average of others; noise of one trial says nothing about
    another, so what is learned is the signal. Labels are needed in `fit` alone.

    Whatever trials do not share is taken away: induced rhythms, spontaneous
    activity. For event-related potentials, not for band power or motor imagery.

    Parameters
    ----------
    hidden, kernel, n_rounds, n_networks, max_epochs, patience : int
        As in `eegtensor.tensor.denoising.fit_paired`.
    max_shift : int | None
        Samples by which latencies may vary; None: an eighth of the window.
    random_state : int

    Attributes
    ----------
    network_ : PairedNetwork
        A `torch.nn.Module`.
    gain_ : float
        By how much held-out trials were predicted better than by zero, in noise
        variances per sample; 0 if nothing is shared, and then all becomes 0.

    See Also
    --------
    eegtensor.tensor.denoising.fit_paired : the method.
    eegtensor.features.Completer : with ``denoise="nonlocal"``, noise of sensors.
    """

    def __init__(
        self,
        hidden: int = 16,
        kernel: int = 9,
        max_shift: int | None = None,
        n_rounds: int = 2,
        n_networks: int = 2,
        max_epochs: int = 300,
        patience: int = 15,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.kernel = kernel
        self.max_shift = max_shift
        self.n_rounds = n_rounds
        self.n_networks = n_networks
        self.max_epochs = max_epochs
        self.patience = patience
        self.random_state = random_state

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Train the networks.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : array-like, shape (n_trials,) | None
            Classes or types of event. None: trials are all of one.
        subjects, sessions : array-like, shape (n_trials,) | None
            Trials are paired within them.

        Raises
        ------
        EEGTensorError
            If a class of a subject and session has one trial, or none has four.
        """
        X = check_signals(X)
        given = {"y": y, "subjects": subjects, "sessions": sessions}
        check_lengths(len(X), **given)
        keys = [np.asarray(v).astype(str) for v in given.values() if v is not None]
        names = [" of ".join(key) for key in zip(*keys, strict=True)] if keys else None
        options: dict[str, Any] = self.get_params(deep=False)
        self.network_ = fit_paired(X, names, **options)
        self.gain_ = float(self.network_.gain)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the shared part of each trial, with its own latency and amplitude.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        subjects, sessions : ignored

        Returns
        -------
        X : ndarray, same shape, float64

        Raises
        ------
        EEGTensorError
            If channels or samples differ from those of `fit`.
        """
        check_fitted(self, "network_")
        denoised: NDArray = apply_paired(self.network_, check_signals(X))
        return denoised
