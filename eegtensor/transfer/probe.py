"""A probe of frozen features: the generative or the discriminative one."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eegtensor._check import check_count, check_option, fail
from eegtensor.transfer._heads import FeatureClassifier, logits_of
from eegtensor.transfer.gda import GaussianDiscriminant
from eegtensor.transfer.naivebayes import SharedNaiveBayes

# In the order in which equal ones are preferred: on the synthetic people with two
# trials a class the discriminant is .06 better than naive Bayes.
CANDIDATES = ("gda", "naive-bayes", "logistic")


class LearningCurve(NamedTuple):
    """Balanced accuracy on trials left out, by the number of trials fitted.

    Attributes
    ----------
    sizes : ndarray of int, shape (n_sizes,)
    scores : dict of str to ndarray, each of shape (n_sizes,)
        Mean over folds, by candidate.
    crossover : int | None
        Smallest size from which on logistic regression is at least as good as
        naive Bayes; None where it is not at the largest, or one of both is missing.
    """

    sizes: NDArray[np.int64]
    scores: dict[str, NDArray]
    crossover: int | None


class ProbeChooser(FeatureClassifier):
    """Naive Bayes, a Gaussian discriminant or logistic regression, by validation.

    With few trials the generative ones win: their error falls with the logarithm of
    the number of features.

    Parameters
    ----------
    candidates : tuple of "gda" | "naive-bayes" | "logistic"
        Of those with the best score the first is taken.
    sizes : tuple of int | None
        Numbers of trials of the learning curve; 4 a class, doubled until all.
    n_folds : int
        Fewer where a class has fewer trials.
    random_state : int
        Of the folds.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    chosen_ : str
        The first candidate where a class has a single trial: nothing can be compared.
    scores_ : dict of str to float
        Balanced accuracies with all trials of a fold.
    curve_ : LearningCurve
    estimator_ : classifier
        The chosen one, fitted to all trials.

    References
    ----------
    C. Zheng et al., "Revisiting discriminative vs. generative classifiers: theory and
    implications", ICML 2023.
    """

    def __init__(
        self,
        candidates: tuple[str, ...] = CANDIDATES,
        sizes: tuple[int, ...] | None = None,
        n_folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.candidates = candidates
        self.sizes = sizes
        self.n_folds = n_folds
        self.random_state = random_state

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Compare the candidates, and fit the best one to all trials.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)

        Raises
        ------
        EEGTensorError
            If a candidate is not known, or there is one class.
        """
        if not self.candidates:
            fail("There is no candidate", fix=f"choose among {', '.join(CANDIDATES)}")
        for name in self.candidates:
            check_option("candidates", name, CANDIDATES)
        check_count("n_folds", self.n_folds, least=2)
        X, codes = self._checked(X, y)
        self.curve_ = self._curve(X, codes)
        best = {name: float(s[-1]) for name, s in self.curve_.scores.items()}
        self.scores_ = best
        # max takes the first of equals, and NaN, where nothing was compared, is none.
        self.chosen_ = max(
            self.candidates, key=lambda n: np.nan_to_num(best[n], nan=-1)
        )
        self.estimator_ = _make(self.chosen_).fit(X, self.classes_[codes])
        return self

    def _curve(self, X: NDArray, codes: NDArray) -> LearningCurve:
        n_folds = min(self.n_folds, int(np.bincount(codes).min()))
        names = list(self.candidates)
        if n_folds < 2:
            nothing = {name: np.full(1, np.nan) for name in names}
            return LearningCurve(np.array([len(X)]), nothing, None)
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=self.random_state)
        splits = list(folds.split(X, codes))
        most = min(len(train) for train, _ in splits)
        sizes = self._sizes(most)
        found = np.zeros((len(names), len(sizes), n_folds))
        for f, (train, test) in enumerate(splits):
            order = _interleaved(codes[train])
            for s, size in enumerate(sizes):
                # All trials of the fold at last, whose number may differ by one.
                part = train[order[:size]] if size < most else train
                for c, name in enumerate(names):
                    probe = _make(name).fit(X[part], codes[part])
                    found[c, s, f] = balanced_accuracy_score(
                        codes[test], probe.predict(X[test])
                    )
        scores = dict(zip(names, found.mean(axis=2), strict=True))
        return LearningCurve(sizes, scores, _crossover(sizes, scores))

    def _sizes(self, most: int) -> NDArray[np.int64]:
        if self.sizes is not None:
            asked = [check_count("sizes", s, least=2) for s in self.sizes]
        else:
            asked, n = [], 4 * len(self.classes_)
            while n < most:
                asked.append(n)
                n *= 2
        least = len(self.classes_)
        kept = {min(max(s, least), most) for s in asked} | {most}
        return np.array(sorted(kept), dtype=np.int64)

    def _logits(self, X: NDArray) -> NDArray:
        return logits_of(self.estimator_, X, self.classes_)


def _make(name: str) -> Any:
    if name == "naive-bayes":
        return SharedNaiveBayes()
    if name == "gda":
        return GaussianDiscriminant()
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _interleaved(codes: NDArray) -> NDArray:
    """Return an order in which every class comes in turn."""
    turn = np.zeros(len(codes), dtype=np.int64)
    for c in np.unique(codes):
        turn[codes == c] = np.arange(np.count_nonzero(codes == c))
    return np.lexsort((codes, turn))


def _crossover(sizes: NDArray, scores: dict[str, NDArray]) -> int | None:
    if not {"naive-bayes", "logistic"} <= scores.keys():
        return None
    behind = np.flatnonzero(scores["logistic"] < scores["naive-bayes"])
    first = behind[-1] + 1 if len(behind) else 0
    return int(sizes[first]) if first < len(sizes) else None
