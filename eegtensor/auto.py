"""An ensemble of decoders, weighed by validation on source people only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin

from eegtensor import _builders as builders
from eegtensor._check import check_option, check_signals, fail, listing
from eegtensor._weighing import Weighing, folds_of, logits_among
from eegtensor.domains import domain_names
from eegtensor.features import Covariances, SpectralCovariances
from eegtensor.features._base import DomainEstimator, check_fitted, class_codes
from eegtensor.pipeline import Pipeline


class Candidate(NamedTuple):
    """What a decoder reads, and how it is put together.

    Attributes
    ----------
    front : "covariance" | "spectral" | "signals"
    build : callable
        ``build(align, unseen=...) -> Pipeline``, whose first step is the front's.
    """

    front: str
    build: Callable[..., Pipeline]


def _network(**methods: Any) -> Callable[..., Pipeline]:
    def build(align: str | None, unseen: str) -> Pipeline:
        return builders.tsmnet(None, unseen=unseen, **methods)

    return build


CANDIDATES: dict[str, Candidate] = {
    "mdm": Candidate("covariance", builders.mdm),
    "tangent-space": Candidate("covariance", builders.tangent(builders.logistic, None)),
    "tangent-space-lda": Candidate("covariance", builders.tangent(builders.lda, None)),
    "tangent-space-svm": Candidate("covariance", builders.tangent(builders.svm, None)),
    "spectral-mdm": Candidate("spectral", builders.mdm),
    "spectral-lda": Candidate("spectral", builders.tangent(builders.lda, None)),
    "spectral-svm": Candidate("spectral", builders.tangent(builders.svm, None)),
    "tsmnet": Candidate("signals", _network()),
    "tsmnet-f-sam": Candidate("signals", _network(perturbation="f-sam")),
    "tsmnet-swa": Candidate("signals", _network(averager="swa")),
}
# Networks take minutes where these take seconds.
QUICK = tuple(name for name, c in CANDIDATES.items() if c.front != "signals")


class AutoDecoder(ClassifierMixin, DomainEstimator):
    """The mean of the decoders that held-out source people do not speak against.

    Every candidate is trained on some source people, adapted to the unlabelled
    trials of the others if it aligns, and scored on them. Candidates that are
    worse than the best by more than two standard errors of the difference over
    people are left out; the others are trained on all sources, and their
    log-probabilities averaged, each at the temperature that fits the people held
    out. The best one alone is chosen by chance where people are few; the mean is
    not. Targets play no part in any of it.

    Parameters
    ----------
    candidates : tuple of str
        Among `CANDIDATES`; the default leaves the networks out.
    align : None | "riemann"
        Alignment of all candidates (networks bring their own).
    combine : "mean" | "best"
        The mean, or the best candidate alone.
    estimator, n_bands, bands
        Of the covariances, as in `Covariances`.
    n_spectral_bands : int
        Of `SpectralCovariances`.
    n_folds : int
        Groups of people that are held out in turn; with a single person
        sessions are, with a single session stratified trials.
    unseen : str
        As in `Recenter`.

    Attributes
    ----------
    scores_ : dict of str to float
        Mean balanced accuracy of every candidate over held-out people.
    choice_ : str
        The best of them.
    members_ : tuple of str
        What predictions are the mean of.
    decoders_ : dict of str to Pipeline
    classes_ : ndarray
    """

    def __init__(
        self,
        candidates: tuple[str, ...] = QUICK,
        align: str | None = None,
        combine: str = "mean",
        estimator: str = "oas",
        n_bands: int = 1,
        bands: str = "stack",
        n_spectral_bands: int = 8,
        n_folds: int = 5,
        unseen: str = "pooled",
    ) -> None:
        self.candidates = candidates
        self.align = align
        self.combine = combine
        self.estimator = estimator
        self.n_bands = n_bands
        self.bands = bands
        self.n_spectral_bands = n_spectral_bands
        self.n_folds = n_folds
        self.unseen = unseen

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Weigh the candidates and fit those that stay.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If a candidate is not known or y holds no two classes.
        """
        X = check_signals(X)
        unknown = sorted(set(self.candidates) - set(CANDIDATES))
        if unknown or not self.candidates:
            fail(
                f"Candidates {unknown or 'of auto'} are not known",
                fix="choose among " + listing(CANDIDATES, limit=20),
            )
        check_option("combine", self.combine, ("mean", "best"))
        self.classes_, codes = class_codes(y, len(X), "AutoDecoder")
        y = np.asarray(y)
        names = domain_names(len(X), subjects, sessions)
        domains = {
            "subjects": np.asarray([name.subject for name in names]),
            "sessions": np.asarray([name.session for name in names]),
        }
        self._fronts = {
            name: self._front(name).fit(X)
            for name in sorted({CANDIDATES[c].front for c in self.candidates})
        }
        inputs = self._inputs(X)
        folds = folds_of(self.n_folds, X, y, domains)
        people = [domains["subjects"], domains["sessions"]]
        owner = next((p for p in people if len(np.unique(p)) > 1), people[0])
        weigh = Weighing(codes, owner, folds)
        for name in self.candidates:
            x = inputs[CANDIDATES[name].front]
            weigh.add(name, [self._held_out(name, x, y, domains, f) for f in folds])
        self.scores_ = {name: float(s.mean()) for name, s in weigh.scores.items()}
        # Of equals the first named wins: max keeps it.
        self.choice_ = max(self.scores_, key=lambda name: self.scores_[name])
        best = self.combine == "best"
        self.members_ = (self.choice_,) if best else weigh.members(self.choice_)
        self.temperatures_ = {name: weigh.temperature(name) for name in self.members_}
        self.decoders_ = {
            name: self._build(name).fit(inputs[CANDIDATES[name].front], y, **domains)
            for name in self.members_
        }
        return self

    def _front(self, name: str) -> Any:
        if name == "covariance":
            return Covariances(self.estimator, self.n_bands, self.bands)
        if name == "spectral":
            return SpectralCovariances(self.n_spectral_bands)
        return _AsTheyAre()

    def _inputs(self, X: NDArray) -> dict[str, NDArray]:
        return {name: front.transform(X) for name, front in self._fronts.items()}

    def _build(self, name: str) -> Pipeline:
        front, build = CANDIDATES[name]
        whole = build(None if front == "signals" else self.align, unseen=self.unseen)
        # Matrices are made once for all candidates and folds.
        return whole if front == "signals" else Pipeline(whole.steps[1:])

    def _held_out(
        self,
        name: str,
        X: NDArray,
        y: NDArray,
        domains: dict[str, NDArray],
        fold: tuple[NDArray, NDArray],
    ) -> NDArray:
        """Return logits of the trials that a fold leaves out."""
        train, test = fold
        source = {key: value[train] for key, value in domains.items()}
        target = {key: value[test] for key, value in domains.items()}
        # As it will be used: adapted without labels to the people held out, or
        # alignment would look worse here than it is.
        decoder = self._build(name).fit(X[train], y[train], **source)
        if self.align is not None:
            decoder.adapt(X[test], **target)
        return logits_among(decoder, X[test], self.classes_, **target)

    @property
    def can_adapt(self) -> bool:
        """Whether the candidates align domains."""
        return self.align is not None

    def adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Adapt all decoders to an unlabelled batch; see `Pipeline.adapt`."""
        return self._adapted("adapt", X, subjects, sessions)

    def partial_adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Adapt all decoders trial by trial."""
        return self._adapted("partial_adapt", X, subjects, sessions)

    def _adapted(
        self,
        how: str,
        X: NDArray,
        subjects: ArrayLike | None,
        sessions: ArrayLike | None,
    ) -> Self:
        check_fitted(self, "decoders_")
        inputs = self._inputs(check_signals(X))
        for name, decoder in self.decoders_.items():
            x = inputs[CANDIDATES[name].front]
            getattr(decoder, how)(x, subjects=subjects, sessions=sessions)
        return self

    def predict_log_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return logarithms of class probabilities, shape (n_trials, n_classes)."""
        check_fitted(self, "decoders_")
        inputs = self._inputs(check_signals(X))
        total = np.zeros((len(X), len(self.classes_)))
        for name, decoder in self.decoders_.items():
            z = logits_among(
                decoder,
                inputs[CANDIDATES[name].front],
                self.classes_,
                subjects=subjects,
                sessions=sessions,
            )
            total += log_softmax(self.temperatures_[name] * z, axis=1)
        mean: NDArray = log_softmax(total / len(self.decoders_), axis=1)
        return mean

    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        log = self.predict_log_proba(X, subjects=subjects, sessions=sessions)
        p: NDArray = np.exp(log)
        return p

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return predicted classes, shape (n_trials,)."""
        log = self.predict_log_proba(X, subjects=subjects, sessions=sessions)
        return self.classes_[log.argmax(axis=1)]


class _AsTheyAre:
    """The front of decoders that read signals."""

    def fit(self, X: NDArray) -> Self:
        return self

    def transform(self, X: NDArray) -> NDArray:
        return X
