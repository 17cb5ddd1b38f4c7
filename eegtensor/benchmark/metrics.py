"""Scores of one session's predictions, each a pure function of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

CLASSIFICATION = ("balanced_accuracy", "accuracy", "roc_auc", "kappa", "ece")
REGRESSION = ("r2", "mae", "rmse", "pearson")
# Value of a decoder that guesses; balanced accuracy's depends on the classes.
CHANCE = {"roc_auc": 0.5, "kappa": 0.0, "itr": 0.0, "r2": 0.0, "pearson": 0.0}
LOWER_IS_BETTER = ("ece", "mae", "rmse")


def confusion(y_true: NDArray, y_pred: NDArray, n_classes: int) -> NDArray:
    """Return counts of shape (n_classes, n_classes): true class, predicted class.

    Parameters
    ----------
    y_true, y_pred : ndarray of int, shape (n_trials,)
        Codes of classes in [0, n_classes).
    n_classes : int
    """
    flat = np.bincount(y_true * n_classes + y_pred, minlength=n_classes**2)
    return flat.reshape(n_classes, n_classes)


def balanced_accuracy(counts: NDArray) -> float:
    """Return the mean recall over the classes that occur."""
    per_class = counts.sum(axis=1)
    there = per_class > 0
    if not there.any():
        return float("nan")
    return float(np.mean(np.diag(counts)[there] / per_class[there]))


def cohen_kappa(counts: NDArray) -> float:
    """Return Cohen's kappa; NaN where chance agreement is certain."""
    total = counts.sum()
    if total == 0:
        return float("nan")
    expected = counts.sum(axis=1) @ counts.sum(axis=0) / total**2
    # True and predicted are all of one class: 0 / 0.
    if expected >= 1.0:
        return float("nan")
    return float((np.trace(counts) / total - expected) / (1.0 - expected))


def roc_auc(y_true: NDArray, scores: NDArray, n_classes: int) -> float:
    """Return the area under the ROC curve; one class against the rest if several.

    Parameters
    ----------
    y_true : ndarray of int, shape (n_trials,)
    scores : ndarray, shape (n_trials,) or (n_trials, n_classes)
        One axis: the score of the second class of two.
    n_classes : int

    Returns
    -------
    float
        The mean over the classes that occur; NaN where only one occurs.
    """
    if n_classes == 2:
        positive = scores if scores.ndim == 1 else scores[:, 1]
        return _binary_auc(y_true == 1, positive)
    if scores.ndim == 1:
        return float("nan")
    areas = [_binary_auc(y_true == k, scores[:, k]) for k in np.unique(y_true)]
    return float(np.mean(areas)) if areas else float("nan")


def _binary_auc(positive: NDArray, scores: NDArray) -> float:
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative or not np.isfinite(scores).all():
        return float("nan")
    # Mann and Whitney's statistic; tied scores share their rank and count by half.
    ranks = rankdata(scores)[positive].sum()
    area = ranks - n_positive * (n_positive + 1) / 2
    return float(area / (n_positive * n_negative))


def expected_calibration_error(
    y_true: NDArray, probabilities: NDArray, n_bins: int = 10
) -> float:
    """Return the expected calibration error of the predicted class.

    The mean over trials of |accuracy - confidence| of equal-width bins of the
    highest probability, closed on the right [1]_.

    Parameters
    ----------
    y_true : ndarray of int, shape (n_trials,)
    probabilities : ndarray, shape (n_trials, n_classes)
    n_bins : int

    References
    ----------
    .. [1] Guo et al., On calibration of modern neural networks, ICML 2017, eq. 3.
    """
    if not len(y_true) or not np.isfinite(probabilities).all():
        return float("nan")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == y_true
    # Closed on the right, so that a confidence of 1 has a bin.
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gap = np.bincount(bins, weights=correct - confidence, minlength=n_bins)
    return float(np.abs(gap).sum() / len(y_true))


def information_transfer_rate(accuracy: float, n_classes: int, seconds: float) -> float:
    """Return Wolpaw's information transfer rate in bits per minute.

    Zero at and below chance, where the formula's symmetry would reward errors.

    Parameters
    ----------
    accuracy : float
    n_classes : int
    seconds : float
        Length of a trial.

    References
    ----------
    .. [1] Wolpaw et al., EEG-based communication: improved accuracy by response
       verification, IEEE Trans. Rehabil. Eng. 6, 1998.
    """
    if not np.isfinite(accuracy) or n_classes < 2 or seconds <= 0:
        return float("nan")
    if accuracy <= 1.0 / n_classes:
        return 0.0
    bits = np.log2(n_classes) + accuracy * np.log2(accuracy)
    if accuracy < 1.0:
        miss = 1.0 - accuracy
        bits += miss * np.log2(miss / (n_classes - 1))
    return float(bits * 60.0 / seconds)


def classification_scores(
    y_true: NDArray,
    y_pred: NDArray,
    probabilities: NDArray | None,
    decision: NDArray | None,
    n_classes: int,
) -> dict[str, float]:
    """Return the scores named in `CLASSIFICATION` for one session.

    Parameters
    ----------
    y_true, y_pred : ndarray of int, shape (n_trials,)
    probabilities : ndarray, shape (n_trials, n_classes) | None
    decision : ndarray | None
        Decision values, used for the ROC where there are no probabilities.
    n_classes : int
    """
    if not len(y_true):
        return dict.fromkeys(CLASSIFICATION, float("nan"))
    counts = confusion(y_true, y_pred, n_classes)
    ranking = probabilities if probabilities is not None else decision
    nan = float("nan")
    return {
        "balanced_accuracy": balanced_accuracy(counts),
        "accuracy": float(np.trace(counts) / counts.sum()),
        "roc_auc": nan if ranking is None else roc_auc(y_true, ranking, n_classes),
        "kappa": cohen_kappa(counts),
        "ece": nan
        if probabilities is None
        else expected_calibration_error(y_true, probabilities),
    }


def regression_scores(y_true: NDArray, y_pred: NDArray) -> dict[str, float]:
    """Return R2, mean absolute and root mean squared error and Pearson's r.

    R2 and r are NaN where the targets do not vary.
    """
    if not len(y_true):
        return dict.fromkeys(REGRESSION, float("nan"))
    residual = y_true - y_pred
    spread = float(np.sum((y_true - y_true.mean()) ** 2))
    spread_pred = float(np.sum((y_pred - y_pred.mean()) ** 2))
    together = float(np.sum((y_true - y_true.mean()) * (y_pred - y_pred.mean())))
    nan = float("nan")
    return {
        "r2": 1.0 - float(np.sum(residual**2)) / spread if spread > 0 else nan,
        "mae": float(np.mean(np.abs(residual))),
        "rmse": float(np.sqrt(np.mean(residual**2))),
        "pearson": together / np.sqrt(spread * spread_pred)
        if spread * spread_pred > 0
        else nan,
    }
