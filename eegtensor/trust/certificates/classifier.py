"""A decoder whose predictions come with a radius."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from eegtensor._check import check_number, check_option, check_signals, fail
from eegtensor.features._base import check_fitted, class_codes
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.trust._people import domain_columns, fitted
from eegtensor.trust._wrapper import DecoderWrapper
from eegtensor.trust.certificates.dual import SPLITS, certify_dual, filled, halves
from eegtensor.trust.certificates.functional import NORMS, SmoothingNoise
from eegtensor.trust.certificates.record import Certificates
from eegtensor.trust.certificates.smoothing import Decide, Votes, certify
from eegtensor.trust.scorers.evidence import called


class SmoothedClassifier(DecoderWrapper):
    """The vote of a decoder on noisy copies of a trial, certified.

    The decoder is fitted to trials with noise, and adapts to trials with noise; when
    it is asked its statistics are fixed.

    Parameters
    ----------
    estimator : classifier
        On trials (n_trials, n_channels, n_times).
    sigma : float
        Of the noise, in standard deviations of each channel: .12, .25, .5 are usual.
    norm : "l2" | "l1" | "linf"
        Of the displacements certified against, see `SmoothingNoise`.
    k : float
        How far the noise is drawn towards zero; l2 with 0 is Gaussian.
    split : None | "samples" | "checkerboard"
        Dual smoothing: two decoders of half the values each, see `certify_dual`; with
        Gaussian noise alone.
    select, estimate : int
        Noisy copies that choose the class, and that bound its share of votes.
    alpha : float
        Chance that a trial's certificate is wrong, at most.
    random_state : int | None

    Attributes
    ----------
    estimator_ : classifier
        With `split` that of the first half.
    other_ : classifier | None
        That of the second half.
    scale_ : ndarray, shape (1, n_channels, 1)
        Standard deviations of the channels over the trials of `fit`: the unit of
        sigma and of radii.
    classes_ : ndarray, shape (n_classes,)
    """

    def __init__(
        self,
        estimator: Any,
        sigma: float = 0.25,
        norm: str = "l2",
        k: float = 0.0,
        split: str | None = None,
        select: int = 100,
        estimate: int = 10_000,
        alpha: float = 1e-3,
        random_state: int | None = 0,
    ) -> None:
        self.estimator = estimator
        self.sigma = sigma
        self.norm = norm
        self.k = k
        self.split = split
        self.select = select
        self.estimate = estimate
        self.alpha = alpha
        self.random_state = random_state

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Fit the decoder, or those of both halves, to trials with noise.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None
        """
        import torch

        check_number("sigma", self.sigma, above=0.0)
        check_option("norm", self.norm, NORMS)
        check_option("split", self.split, (None, *SPLITS))
        if self.split is not None and (self.norm != "l2" or self.k):
            fail(
                f"split={self.split!r} with norm={self.norm!r} and k={self.k!r}",
                why="The radius of two halves holds for Gaussian noise",
                fix="set norm='l2' and k=0",
            )
        Votes(self.select, self.estimate, self.alpha).checked()
        if getattr(self.estimator, "method", None) == "aaa":
            fail(
                "Smoothing of a decoder with method='aaa'",
                why="That defence bends scores against those who query them; the "
                "vote sees none, and no radius is defined for both",
                fix="smooth the decoder itself",
            )
        _refuse_batches(self.estimator)
        X = check_signals(X)
        self.classes_, _ = class_codes(y, len(X), type(self).__name__, floats=True)
        self.scale_ = channel_scale(torch.from_numpy(X)).numpy()
        if not (self.scale_ > 0).all():
            fail("A channel does not vary", fix="leave it out")
        self._noise(X[0].size).checked()
        self.masks_ = None
        if self.split is not None:
            self.masks_ = halves(X.shape[1], X.shape[2], self.split)
        columns = domain_columns(len(X), subjects, sessions)
        labels = np.asarray(y)
        first, *rest = [
            fitted(clone(self.estimator), part, labels, columns)
            for part in self._noisy(X)
        ]
        self.estimator_, self.other_ = first, rest[0] if rest else None
        return self

    def _noise(self, d: int) -> SmoothingNoise:
        return SmoothingNoise(self.norm, self.sigma, d, self.k)

    def _noisy(self, X: NDArray) -> list[NDArray]:
        """Return trials with noise, as each decoder sees them."""
        rng = np.random.default_rng(self.random_state)
        noise = self._noise(X[0].size)
        z = np.concatenate([noise.draw(1, rng) for _ in X]).reshape(X.shape)
        noisy = (X + self.scale_ * z).astype(X.dtype)
        if self.masks_ is None:
            return [noisy]
        return [filled(noisy, mask) for mask in self.masks_]

    def _moved(self, method: str, X: Any, subjects: Any, sessions: Any) -> Self:
        check_fitted(self, "estimator_")
        first, *rest = self._noisy(check_signals(X))
        super()._moved(method, first, subjects, sessions)
        if self.other_ is not None:
            kept, self.estimator_ = self.estimator_, self.other_
            super()._moved(method, rest[0], subjects, sessions)
            self.estimator_, self.other_ = kept, self.estimator_
        return self

    def certify(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Certificates:
        """Return classes and the radii within which nothing changes them.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times)
        subjects, sessions : array-like of str, shape (n_trials,) | None
        """
        return self._certified(X, subjects, sessions, self.estimate)

    def _certified(
        self, X: Any, subjects: Any, sessions: Any, estimate: int
    ) -> Certificates:
        check_fitted(self, "estimator_")
        X = check_signals(X)
        if X.shape[1] != self.scale_.shape[1]:
            fail(f"X has {X.shape[1]} channels, fit saw {self.scale_.shape[1]}")
        columns = domain_columns(len(X), subjects, sessions)
        votes = Votes(self.select, estimate, self.alpha)
        rng = np.random.default_rng(self.random_state)
        found = []
        for i in range(len(X)):
            own = {name: column[i] for name, column in columns.items()}
            rest: dict[str, Any] = {
                "scale": self.scale_,
                "n_classes": len(self.classes_),
                "votes": votes,
                "random_state": rng,
            }
            one, x = self._decide(self.estimator_, own), X[i : i + 1]
            if self.other_ is None:
                rest["noise"] = self._noise(X[0].size)
                found.append(certify(one, x, **rest))
            else:
                rest |= {"sigma": self.sigma, "split": self.split}
                two = self._decide(self.other_, own)
                found.append(certify_dual((one, two), x, **rest))
        return Certificates.joined(found, self.classes_)

    def _decide(self, decoder: Any, own: dict[str, Any]) -> Decide:
        def decide(noisy: NDArray) -> NDArray:
            names = {k: np.full(len(noisy), v) for k, v in own.items()}
            said = np.asarray(called(decoder, "predict", noisy, names))
            return np.searchsorted(self.classes_, said)

        return decide

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the class that most noisy copies vote for, (n_trials,)."""
        check_fitted(self, "estimator_")
        X = check_signals(X)
        columns = domain_columns(len(X), subjects, sessions)
        decoders = [d for d in (self.estimator_, self.other_) if d is not None]
        counts = np.zeros((len(X), len(self.classes_)))
        rng = np.random.default_rng(self.random_state)
        noise = self._noise(X[0].size)
        # All trials at once: each round adds one copy of each.
        for _ in range(self.select):
            z = noise.draw(len(X), rng).reshape(X.shape)
            noisy = (X + self.scale_ * z).astype(X.dtype)
            for k, decoder in enumerate(decoders):
                seen = noisy if self.masks_ is None else filled(noisy, self.masks_[k])
                said = np.asarray(called(decoder, "predict", seen, columns))
                counts[np.arange(len(X)), np.searchsorted(self.classes_, said)] += 1
        return self.classes_[counts.argmax(axis=1)]


def _refuse_batches(decoder: Any) -> None:
    params = decoder.get_params() if hasattr(decoder, "get_params") else {}
    waiting = [k for k, v in params.items() if k.endswith("unseen") and v == "adapt"]
    if waiting:
        fail(
            f"{waiting[0]}='adapt'",
            why="The decoder would adapt to the noisy copies: what it says of one "
            "would depend on those beside it, and nothing is certified",
            fix="set unseen='pooled' and call adapt first",
        )
