"""Scores against scikit-learn's and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from eegtensor.benchmark.metrics import (
    balanced_accuracy,
    classification_scores,
    cohen_kappa,
    confusion,
    expected_calibration_error,
    information_transfer_rate,
    regression_scores,
    roc_auc,
)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_scores_equal_scikit_learns(rng, n_classes):
    y_true = rng.integers(0, n_classes, 200)
    logits = rng.standard_normal((200, n_classes)) + 0.5 * np.eye(n_classes)[y_true]
    p = softmax(logits.round(1), axis=1)
    y_pred = p.argmax(axis=1)
    ours = classification_scores(y_true, y_pred, p, None, n_classes)
    ranking = p[:, 1] if n_classes == 2 else p
    auc = sk.roc_auc_score(y_true, ranking, multi_class="ovr", average="macro")
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y_true, y_pred))
    assert ours["kappa"] == pytest.approx(sk.cohen_kappa_score(y_true, y_pred))
    assert ours["roc_auc"] == pytest.approx(auc)
    assert ours["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(y_true, y_pred)
    )
    if n_classes == 2:
        decision = logits[:, 1] - logits[:, 0]
        ours = classification_scores(y_true, y_pred, None, decision, 2)
        assert ours["roc_auc"] == pytest.approx(sk.roc_auc_score(y_true, decision))
        assert np.isnan(ours["ece"])


def test_balanced_accuracy_counts_present_classes_only():
    counts = confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1]), 3)
    assert balanced_accuracy(counts) == pytest.approx((2 / 3 + 1) / 2)


def test_one_class_has_no_auc_and_no_kappa():
    one = np.zeros(4, dtype=int)
    assert np.isnan(roc_auc(one, np.arange(4.0), 2))
    assert np.isnan(cohen_kappa(confusion(one, one, 2)))


def test_calibration_error_by_hand():
    # Confidences .95 .85 .65 .65 in three bins: gaps .05, .85, |1 - 1.3|, over 4.
    confidence = np.array([0.95, 0.85, 0.65, 0.65])
    p = np.column_stack([confidence, 1 - confidence])
    y_true = np.array([0, 1, 0, 1])
    expected = (0.05 + 0.85 + abs(1 - 1.3)) / 4
    assert expected_calibration_error(y_true, p) == pytest.approx(expected)


def test_calibration_error_of_calibrated_and_certain():
    p = np.tile([0.7, 0.3], (10, 1))
    right = np.array([0] * 7 + [1] * 3)
    assert expected_calibration_error(right, p) == pytest.approx(0.0, abs=1e-12)
    certain = np.tile([1.0, 0.0], (10, 1))
    assert expected_calibration_error(right, certain) == pytest.approx(0.3)


def test_information_transfer_rate_by_hand():
    # Four classes at 90 %: 2 + .9 log2 .9 + .1 log2(.1 / 3) = 1.37251 bits.
    bits = 2 + 0.9 * np.log2(0.9) + 0.1 * np.log2(0.1 / 3)
    assert bits == pytest.approx(1.3725, abs=1e-4)
    assert information_transfer_rate(0.9, 4, 2.0) == pytest.approx(bits * 30)
    assert information_transfer_rate(1.0, 2, 1.0) == pytest.approx(60.0)
    assert information_transfer_rate(0.5, 2, 1.0) == 0.0
    assert information_transfer_rate(0.2, 4, 1.0) == 0.0


def test_regression_scores_equal_scikit_learns(rng):
    y_true = rng.standard_normal(50)
    y_pred = y_true + rng.standard_normal(50)
    ours = regression_scores(y_true, y_pred)
    assert ours["r2"] == pytest.approx(sk.r2_score(y_true, y_pred))
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(y_true, y_pred))
    assert ours["rmse"] == pytest.approx(sk.root_mean_squared_error(y_true, y_pred))
    assert ours["pearson"] == pytest.approx(np.corrcoef(y_true, y_pred)[0, 1])
    assert np.isnan(regression_scores(np.ones(3), y_pred[:3])["r2"])
