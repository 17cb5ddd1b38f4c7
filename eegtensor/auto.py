"""Choosing a decoder by validation on source people only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.utils.metaestimators import available_if

from eegtensor import _builders as builders
from eegtensor._check import fail
from eegtensor.domains import domain_names
from eegtensor.features._base import (
    DomainEstimator,
    check_fitted,
    check_matrices,
    class_codes,
)
from eegtensor.pipeline import Pipeline

CANDIDATES: dict[str, Callable[..., Pipeline]] = {
    "mdm": builders.mdm,
    "tangent-space": builders.tangent(builders.logistic, None),
    "tangent-space-lda": builders.tangent(builders.lda, None),
    "tangent-space-svm": builders.tangent(builders.svm, None),
}


def _chosen_can(method: str) -> Callable[[AutoDecoder], bool]:
    def check(self: AutoDecoder) -> bool:
        return hasattr(self, "decoder_") and hasattr(self.decoder_, method)

    return check


class AutoDecoder(ClassifierMixin, DomainEstimator):
    """The decoder of covariance matrices that does best on held-out source people.

    Every candidate is trained on some source people, adapted to the unlabelled
    trials of the others if it aligns, and scored on them; the best one is
    trained on all. Targets play no part in the choice.

    Parameters
    ----------
    candidates : tuple of str
        Among mdm, tangent-space, tangent-space-lda, tangent-space-svm.
    align : None | "riemann"
        Alignment of all candidates.
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
    decoder_ : Pipeline
    classes_ : ndarray
    """

    def __init__(
        self,
        candidates: tuple[str, ...] = tuple(CANDIDATES),
        align: str | None = None,
        n_folds: int = 5,
        unseen: str = "pooled",
    ) -> None:
        self.candidates = candidates
        self.align = align
        self.n_folds = n_folds
        self.unseen = unseen

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> AutoDecoder:
        """Choose among the candidates and fit the best.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n, n)
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If a candidate is not known or y holds no two classes.
        """
        X = check_matrices(X, ndim=(3, 4))
        unknown = sorted(set(self.candidates) - set(CANDIDATES))
        if unknown or not self.candidates:
            fail(
                f"Candidates {unknown or 'of auto'} are not known",
                fix="choose among " + ", ".join(CANDIDATES),
            )
        self.classes_, _ = class_codes(y, len(X), "AutoDecoder")
        y = np.asarray(y)
        names = domain_names(len(X), subjects, sessions)
        domains = {
            "subjects": np.asarray([name.subject for name in names]),
            "sessions": np.asarray([name.session for name in names]),
        }
        folds = self._folds(X, y, domains)
        self.scores_ = {
            name: float(np.mean([self._score(name, X, y, domains, f) for f in folds]))
            for name in self.candidates
        }
        # Of equals the first named wins: max keeps it.
        self.choice_ = max(self.scores_, key=lambda name: self.scores_[name])
        self.decoder_ = self._build(self.choice_).fit(X, y, **domains)
        return self

    def _build(self, name: str) -> Pipeline:
        # The candidates begin with covariances, which X already are.
        return Pipeline(CANDIDATES[name](self.align, unseen=self.unseen).steps[1:])

    def _folds(
        self, X: NDArray, y: NDArray, domains: dict[str, NDArray]
    ) -> list[tuple[NDArray, NDArray]]:
        for groups in (domains["subjects"], domains["sessions"]):
            n_groups = len(np.unique(groups))
            # People before sessions: the choice is for people never seen.
            if n_groups > 1:
                folds = GroupKFold(min(self.n_folds, n_groups)).split(X, y, groups)
                whole = [(a, b) for a, b in folds if len(np.unique(y[a])) > 1]
                # None where people are the classes (patients, controls).
                if whole:
                    return whole
        smallest = int(np.unique(y, return_counts=True)[1].min())
        if smallest < 2:
            fail("A class has one trial", fix="give more labelled trials")
        return list(StratifiedKFold(min(self.n_folds, smallest)).split(X, y))

    def _score(
        self,
        name: str,
        X: NDArray,
        y: NDArray,
        domains: dict[str, NDArray],
        fold: tuple[NDArray, NDArray],
    ) -> float:
        train, test = fold
        source = {key: value[train] for key, value in domains.items()}
        target = {key: value[test] for key, value in domains.items()}
        # As it will be used: adapted without labels to the people held out, or
        # alignment would look worse here than it is.
        decoder = self._build(name).fit(X[train], y[train], **source)
        if self.align is not None:
            decoder.adapt(X[test], **target)
        said = decoder.predict(X[test], **target)
        return float(balanced_accuracy_score(y[test], said))

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
    ) -> AutoDecoder:
        """Adapt the chosen decoder to an unlabelled batch; see `Pipeline.adapt`."""
        check_fitted(self, "decoder_")
        self.decoder_.adapt(X, subjects=subjects, sessions=sessions)
        return self

    def partial_adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> AutoDecoder:
        """Adapt the chosen decoder trial by trial."""
        check_fitted(self, "decoder_")
        self.decoder_.partial_adapt(X, subjects=subjects, sessions=sessions)
        return self

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return predicted classes, shape (n_trials,)."""
        check_fitted(self, "decoder_")
        return self.decoder_.predict(X, subjects=subjects, sessions=sessions)

    @available_if(_chosen_can("predict_proba"))
    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the chosen decoder's probabilities, if it gives any."""
        return self.decoder_.predict_proba(X, subjects=subjects, sessions=sessions)

    @available_if(_chosen_can("decision_function"))
    def decision_function(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the chosen decoder's decision values, if it gives any."""
        return self.decoder_.decision_function(X, subjects=subjects, sessions=sessions)
