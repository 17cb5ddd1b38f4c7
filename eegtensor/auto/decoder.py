"""An ensemble of decoders, weighed by validation on source people only."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin

from eegtensor._check import check_option, check_signals, fail, listing
from eegtensor.auto.candidates import CANDIDATES, DEFAULT, SIGNALS
from eegtensor.auto.fronts import Inputs, MatrixFront
from eegtensor.auto.refining import Refinement
from eegtensor.auto.stacking import HeldOut, folds_of, logits_among, mixed
from eegtensor.domains import domain_names
from eegtensor.features import (
    AugmentedCovariances,
    Covariances,
    SpectralCovariances,
)
from eegtensor.features._base import DomainEstimator, check_fitted, class_codes
from eegtensor.pipeline import Pipeline

# Delayed copies of channels make matrices no larger than this.
_LARGEST = 64
# A decoder of less weight than this changes nothing that is worth its time.
_LEAST = 0.02


class AutoDecoder(ClassifierMixin, DomainEstimator):
    """Decoders weighed by held-out source people, refined on each new person.

    Every candidate is trained on some source people, adapted to the unlabelled
    trials of the others if it aligns, and its logits of their trials are kept.
    From these come a temperature for each candidate and non-negative weights of
    all of them (stacking, by log-loss, every class of every person alike).

    With an alignment, `adapt` also lets experts learn the new person: ridge
    regressions on that person's own tangent vectors of what the weighed decoders
    say of the unlabelled trials, in rounds, no trial learning from itself. How
    much experts count, in how many rounds, is learned from the source people too,
    each treated as if new; where they do not help there by more than chance, there
    are none. Targets play no part in any of this.

    Parameters
    ----------
    candidates : tuple of str
        Among `CANDIDATES`; `QUICK` leaves out the networks, which take minutes
        where the others take seconds. Those of augmented covariances take part
        with at most 32 channels.
    align : None | "riemann"
        Alignment of all candidates (networks bring their own).
    combine : "stack" | "best"
        All candidates by their weights, or the best one alone, unrefined.
    refine : bool
        Whether experts may learn the new person, from tangent vectors of every kind
        of matrix that a candidate reads.
    estimator, n_bands, bands
        Of the covariances, as in `Covariances`.
    n_spectral_bands : int
        Of `SpectralCovariances`.
    n_folds : int
        Groups of people that are held out in turn; with a single person
        sessions are, with a single session stratified trials.
    unseen : str
        As in `Recenter`.
    random_state : int | None
        Of the networks.

    Attributes
    ----------
    scores_ : dict of str to float
        Mean balanced accuracy of every candidate over held-out people.
    score_ : float
        The same of the weighed and refined decoders together; their few weights
        were learned on these people.
    choice_ : str
        The best candidate.
    weights_ : dict of str to float
        Of the members, those of any weight.
    temperatures_ : dict of str to float
    rounds_ : ndarray, shape (n_rounds, 1 + n_experts)
        Weights of the decoders and of each expert, by round.
    decoders_ : dict of str to Pipeline
    classes_ : ndarray

    References
    ----------
    Stacking: D. H. Wolpert, Neural Networks, 1992; with non-negative weights
    L. Breiman, Machine Learning, 1996. Kernel ridge regressions in rounds of
    leave-one-out predictions as a stacked form of self-training are this package's.
    """

    def __init__(
        self,
        candidates: tuple[str, ...] = DEFAULT,
        align: str | None = None,
        combine: str = "stack",
        refine: bool = True,
        estimator: str = "oas",
        n_bands: int = 1,
        bands: str = "stack",
        n_spectral_bands: int = 8,
        n_folds: int = 5,
        unseen: str = "pooled",
        random_state: int | None = 0,
    ) -> None:
        self.candidates = candidates
        self.align = align
        self.combine = combine
        self.refine = refine
        self.estimator = estimator
        self.n_bands = n_bands
        self.bands = bands
        self.n_spectral_bands = n_spectral_bands
        self.n_folds = n_folds
        self.unseen = unseen
        self.random_state = random_state

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
        candidates = self._candidates(X.shape[1])
        check_option("combine", self.combine, ("stack", "best"))
        check_option("align", self.align, (None, "riemann"))
        self.classes_, codes = class_codes(y, len(X), "AutoDecoder")
        y = np.asarray(y)
        domains = _labels(len(X), subjects, sessions)
        self._fronts = {
            name: MatrixFront(self._maker(name), self.align, self.unseen)
            for name in sorted({CANDIDATES[c].front for c in candidates} - {SIGNALS})
        }
        inputs = Inputs({k: f.fit(X, domains) for k, f in self._fronts.items()})
        inputs[SIGNALS] = X
        folds = folds_of(self.n_folds, X, y, domains)
        people = [domains["subjects"], domains["sessions"]]
        owner = next((p for p in people if len(np.unique(p)) > 1), people[0])
        # Trials of folds that would lack a class are never held out.
        test = np.sort(np.concatenate([test for _, test in folds]))
        held = HeldOut(codes[test], owner[test])
        columns = []
        self.scores_, temperatures = {}, []
        for name in candidates:
            z = self._held_out(name, inputs, y, domains, folds)[test]
            temperatures.append(held.temperature(z))
            self.scores_[name] = float(held.accuracy(z).mean())
            columns.append(log_softmax(temperatures[-1] * z, axis=1))
        # Of equals the first named wins: max keeps it.
        self.choice_ = max(self.scores_, key=lambda name: self.scores_[name])
        weights = self._weights(held, np.stack(columns))
        log_p = mixed(weights, np.stack(columns))
        self._refinement = Refinement(len(self.classes_))
        # Experts read the candidates' matrices; networks have none to share.
        if self.refine and self.combine == "stack" and self.align and self._fronts:
            features = [inputs.vectors(name)[test] for name in self._fronts]
            log_p = self._refinement.fit(features, held, log_p)
        self.rounds_ = self._refinement.rounds
        self.score_ = float(held.accuracy(log_p).mean())
        member = dict(
            zip(candidates, zip(weights, temperatures, strict=True), strict=True)
        )
        self.weights_ = {name: float(w) for name, (w, _) in member.items() if w > 0}
        self.temperatures_ = {name: member[name][1] for name in self.weights_}
        self.decoders_ = {
            name: self._build(name).fit(self._read(name, inputs), y, **domains)
            for name in self.weights_
        }
        return self

    def _candidates(self, n_channels: int) -> tuple[str, ...]:
        unknown = sorted(set(self.candidates) - set(CANDIDATES))
        if unknown or not self.candidates:
            fail(
                f"Candidates {unknown or 'of auto'} are not known",
                fix="choose among " + listing(CANDIDATES, limit=20),
            )
        if 2 * n_channels <= _LARGEST:
            return tuple(self.candidates)
        # Not one delayed copy fits: the same matrices as without.
        kept = [c for c in self.candidates if CANDIDATES[c].front != "augmented"]
        return tuple(kept) or fail(
            f"{n_channels} channels are too many for augmented covariances",
            fix=f"choose other candidates, or at most {_LARGEST // 2} channels",
        )

    def _weights(self, held: HeldOut, columns: NDArray) -> NDArray:
        """Return the weight of every candidate, of the least ones zero."""
        if self.combine == "best":
            return np.asarray([float(n == self.choice_) for n in self.scores_])
        weights = held.weigh(columns, np.full(len(columns), 1.0 / len(columns)))
        stay = weights >= _LEAST * weights.sum()
        again = held.weigh(columns[stay], weights[stay])
        weights = np.zeros(len(columns))
        weights[stay] = again
        return weights

    def _maker(self, front: str) -> Any:
        if front == "covariance":
            return Covariances(self.estimator, self.n_bands, self.bands)
        if front == "augmented":
            return AugmentedCovariances(estimator=self.estimator, max_size=_LARGEST)
        return SpectralCovariances(self.n_spectral_bands)

    def _build(self, name: str) -> Pipeline:
        front, build = CANDIDATES[name]
        if front == SIGNALS:
            return build(None, unseen=self.unseen, random_state=self.random_state)
        steps = build(self.align, unseen=self.unseen).steps
        # What the front has done already is left out: of recentred matrices the
        # tangent vectors too.
        done = 1 if self.align is None else 2 + self._reads_vectors(name)
        return Pipeline(steps[done:])

    def _reads_vectors(self, name: str) -> bool:
        front, build = CANDIDATES[name]
        if front == SIGNALS or self.align is None:
            return False
        return any(key == "tangent" for key, _ in build(self.align).steps)

    def _read(self, name: str, inputs: Inputs) -> NDArray:
        """Return what a candidate reads."""
        front = CANDIDATES[name].front
        return inputs.vectors(front) if self._reads_vectors(name) else inputs[front]

    def _held_out(
        self,
        name: str,
        inputs: Inputs,
        y: NDArray,
        domains: dict[str, NDArray],
        folds: list[tuple[NDArray, NDArray]],
    ) -> NDArray:
        """Return logits of the trials that folds leave out; NaN of the others."""
        X = self._read(name, inputs)
        z = np.full((len(X), len(self.classes_)), np.nan)
        for train, test in folds:
            source = {key: value[train] for key, value in domains.items()}
            target = {key: value[test] for key, value in domains.items()}
            decoder = self._build(name).fit(X[train], y[train], **source)
            # As it will be used: adapted without labels to the people held out
            # (matrices are already), or alignment would look worse than it is.
            if self.align is not None and CANDIDATES[name].front == SIGNALS:
                decoder.adapt(X[test], **target)
            z[test] = logits_among(decoder, X[test], self.classes_, **target)
        return z

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
        """Adapt all decoders to an unlabelled batch, and let experts learn it.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        subjects, sessions : array-like of str, shape (n_trials,) | None
            Experts learn a person from all sessions given so far, where these hold
            four trials a class; a session given again replaces what it held.
        """
        return self._adapted(X, subjects, sessions, trialwise=False)

    def partial_adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Adapt all decoders trial by trial; experts learn nothing from it."""
        return self._adapted(X, subjects, sessions, trialwise=True)

    def _adapted(
        self,
        X: NDArray,
        subjects: ArrayLike | None,
        sessions: ArrayLike | None,
        *,
        trialwise: bool,
    ) -> Self:
        check_fitted(self, "decoders_")
        X = check_signals(X)
        given: dict[str, Any] = {"subjects": subjects, "sessions": sessions}
        inputs = Inputs(
            {k: f.adapt(X, given, trialwise=trialwise) for k, f in self._fronts.items()}
        )
        inputs[SIGNALS] = X
        for name, decoder in self.decoders_.items():
            if CANDIDATES[name].front == SIGNALS and self.can_adapt:
                how = decoder.partial_adapt if trialwise else decoder.adapt
                how(X, **given)
        if not trialwise and len(self.rounds_):
            log_p = self._weighed(inputs, given)
            features = [inputs.vectors(name) for name in self._fronts]
            self._refinement.learn(features, log_p, **_labels(len(X), **given))
        return self

    def _weighed(self, inputs: Inputs, given: dict[str, Any]) -> NDArray:
        """Return what the decoders say together, before any refinement."""
        columns = []
        for name, decoder in self.decoders_.items():
            x = self._read(name, inputs)
            z = logits_among(decoder, x, self.classes_, **given)
            columns.append(log_softmax(self.temperatures_[name] * z, axis=1))
        return mixed(np.asarray(list(self.weights_.values())), np.stack(columns))

    def predict_log_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return logarithms of class probabilities, shape (n_trials, n_classes)."""
        check_fitted(self, "decoders_")
        X = check_signals(X)
        given: dict[str, Any] = {"subjects": subjects, "sessions": sessions}
        inputs = Inputs({k: f.transform(X, given) for k, f in self._fronts.items()})
        inputs[SIGNALS] = X
        log_p = self._weighed(inputs, given)
        if not len(self.rounds_):
            return log_p
        named = subjects is not None or sessions is not None
        whose = _labels(len(X), subjects, sessions)["subjects"] if named else None
        features = [inputs.vectors(name) for name in self._fronts]
        return self._refinement.refine(features, log_p, whose)

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


def _labels(
    n_trials: int, subjects: ArrayLike | None, sessions: ArrayLike | None
) -> dict[str, NDArray]:
    names = domain_names(n_trials, subjects, sessions)
    return {
        "subjects": np.asarray([name.subject for name in names]),
        "sessions": np.asarray([name.session for name in names]),
    }
