"""A decoder that says of some trials that it cannot say."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if

from eegtensor._check import check_number, fail
from eegtensor.features._base import check_fitted, class_codes
from eegtensor.trust._people import domain_columns, fitted, held_out, part_of
from eegtensor.trust._wrapper import DecoderWrapper, can
from eegtensor.trust.scorers import evidence, make_scorer
from eegtensor.trust.scorers.base import cross_scores, standardiser


class RejectingClassifier(DecoderWrapper):
    """A decoder that rejects trials unlike those it was fitted to.

    The threshold comes from people held out in turn: a share `reject` of their trials
    scores below it. Scores are in standard deviations of those of the trials that the
    decoder and the scorer were fitted to, so that folds compare.

    Parameters
    ----------
    estimator : classifier
        Of this package (a pipeline, a network) or of scikit-learn.
    scorer : str
        A name in `eegtensor.trust.scorers.SCORERS`, with options as in "knn(k=3)". The
        default was best on source people of two sets, artefacts and unseen classes
        together (tests/benchmarks/accuracy_ood.py).
    reject : float
        Share of clean trials of new people that is rejected, in [0, 1).
    label : str | int | float | None
        What `predict` says of rejected trials. None: their class, as if nothing was
        rejected; see `accepts`.
    n_folds : int
        Groups of people held out in turn. The decoder is fitted so often and once
        more.

    Attributes
    ----------
    estimator_ : classifier
    scorer_ : Scorer
    threshold_ : float
    held_out_scores_ : ndarray, shape (n_held_out,)
        Of the trials that set the threshold.
    classes_ : ndarray, shape (n_classes,)

    Notes
    -----
    Works on arrays, as the last step of a `Pipeline` or around one. `score` counts
    rejected trials as wrong.
    """

    def __init__(
        self,
        estimator: Any,
        scorer: str = "knn(normalise=False)",
        reject: float = 0.05,
        label: str | float | None = "rejected",
        n_folds: int = 3,
    ) -> None:
        self.estimator = estimator
        self.scorer = scorer
        self.reject = reject
        self.label = label
        self.n_folds = n_folds

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Find the threshold on people held out, then fit to all.

        Parameters
        ----------
        X : ndarray, shape (n_trials, ...)
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None
            Without both trials are held out, and the threshold is that of people
            known already.

        Raises
        ------
        EEGTensorError
            If labels do not fit, or `label` is a class or of another type.
        """
        check_number("reject", self.reject, least=0.0)
        if self.reject >= 1:
            fail(f"reject={self.reject!r}", fix="choose a share in [0, 1)")
        make_scorer(self.scorer)
        X, columns = np.asarray(X), domain_columns(len(X), subjects, sessions)
        self.classes_, _ = class_codes(y, len(X), type(self).__name__, floats=True)
        labels = np.asarray(y)
        self._check_label()
        rows = []
        for model, train, test in held_out(
            self.estimator, X, labels, columns, self.n_folds
        ):
            scorer, scale = self._fit_scorer(
                model, X[train], labels[train], part_of(columns, train)
            )
            found = self._evidence(model, X[test], part_of(columns, test))
            rows.append((scorer.score_samples(found) - scale[0]) / scale[1])
        self.held_out_scores_ = np.concatenate(rows)
        self.threshold_ = -np.inf
        if self.reject:
            self.threshold_ = float(np.quantile(self.held_out_scores_, self.reject))
        self.estimator_ = fitted(clone(self.estimator), X, labels, columns)
        self.scorer_, self.scale_ = self._fit_scorer(
            self.estimator_, X, labels, columns
        )
        return self

    def _check_label(self) -> None:
        if self.label is None:
            return
        name = np.asarray(self.label)
        texts = self.classes_.dtype.kind in "UO"
        if texts != (name.dtype.kind == "U") or (self.classes_ == name).any():
            fail(
                f"label={self.label!r} beside classes {self.classes_.tolist()}",
                why="predict gives classes and this label in one array",
                fix="choose a label of the type of the classes that is none of them, "
                "or None and `accepts`",
            )

    def _fit_scorer(
        self, model: Any, X: NDArray, y: NDArray, columns: dict[str, NDArray]
    ) -> tuple[Any, tuple[float, float]]:
        found = self._evidence(model, X, columns)
        scorer = make_scorer(self.scorer).fit(found, y)
        # Gradients of single trials would be taken five times more.
        if "gradients" in scorer.needs:
            return scorer, standardiser(scorer.score_samples(found))
        return scorer, standardiser(cross_scores(scorer, found, y))

    def _evidence(self, model: Any, X: NDArray, columns: dict[str, Any]) -> Any:
        gradients = "gradients" in make_scorer(self.scorer).needs
        return evidence(model, X, gradients=gradients, **columns)

    def score_samples(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return how familiar each trial is, in standard deviations, (n_trials,)."""
        names = {"subjects": subjects, "sessions": sessions}
        check_fitted(self, "estimator_")
        found = self._evidence(self.estimator_, X, names)
        centre, scale = self.scale_
        scores: NDArray = (self.scorer_.score_samples(found) - centre) / scale
        return scores

    def accepts(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return which trials are not rejected, bool (n_trials,)."""
        scores = self.score_samples(X, subjects=subjects, sessions=sessions)
        return scores >= self.threshold_

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return classes, and `label` where a trial is rejected, (n_trials,)."""
        said = self._said("predict", X, subjects, sessions)
        if self.label is None:
            return said
        kept = self.accepts(X, subjects=subjects, sessions=sessions)
        return np.where(kept, said, self.label)

    @available_if(can("predict_proba"))
    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the decoder's probabilities, of rejected trials too."""
        return self._said("predict_proba", X, subjects, sessions)

    @available_if(can("decision_function"))
    def decision_function(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the decoder's decision values, of rejected trials too."""
        return self._said("decision_function", X, subjects, sessions)
