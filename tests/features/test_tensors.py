"""Tensor features: the laws of the specification, and what each model means."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from _planted import cp_tensor, match, noisy
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from eegtensor import EEGTensorError
from eegtensor.features import (
    CPFeatures,
    NonnegativeCPFeatures,
    TensorRingFeatures,
    TensorTrainFeatures,
    TuckerFeatures,
)

EXTRACTORS = [
    CPFeatures(3),
    NonnegativeCPFeatures(3),
    TuckerFeatures((3, 3, 2)),
    TensorTrainFeatures(4),
    TensorRingFeatures(2),
]
every = pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda e: type(e).__name__)


@pytest.fixture(scope="module")
def planted() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    factors = [rng.random((n, 3)) ** 2 for n in (60, 8, 7, 6)]
    X = np.maximum(noisy(cp_tensor(factors), 15.0, rng), 0.0)
    return {"X": X, "factors": factors, "y": (factors[0][:, 0] > 0.3).astype(int)}


@every
class TestLaws:
    def test_training_scores_are_what_transform_gives(self, extractor, planted) -> None:
        X = planted["X"]
        fitted = clone(extractor).fit(X)
        np.testing.assert_allclose(fitted.transform(X), fitted.train_scores_)
        again = clone(extractor).fit_transform(X)
        np.testing.assert_allclose(again, fitted.train_scores_)

    def test_each_trial_by_itself(self, extractor, planted) -> None:
        X = planted["X"]
        fitted = clone(extractor).fit(X[:40])
        whole = fitted.transform(X[40:])
        for i in (0, 7):
            one = fitted.transform(X[40 + i : 41 + i])
            np.testing.assert_allclose(one[0], whole[i], rtol=1e-8)

    def test_scores_are_least_squares(self, extractor, planted) -> None:
        X = planted["X"]
        fitted = clone(extractor).fit(X[:40])
        n = fitted.train_scores_.shape[1]
        zero = fitted.inverse_transform(np.zeros((1, n)))
        patterns = fitted.inverse_transform(np.eye(n)) - zero
        D = patterns.reshape(n, -1)
        target = (X[40:] - zero).reshape(20, -1)
        rest = target - fitted.transform(X[40:]) @ D
        slopes = rest @ D.T / (np.linalg.norm(D, axis=1) * np.abs(target).max())
        if isinstance(extractor, NonnegativeCPFeatures):
            # Karush, Kuhn, Tucker: no slope where a score is free, none up at zero.
            scores = fitted.transform(X[40:])
            assert (scores >= 0).all()
            np.testing.assert_allclose(slopes[scores > 0], 0.0, atol=1e-6)
            assert (slopes[scores == 0] < 1e-6).all()
        else:
            np.testing.assert_allclose(slopes, 0.0, atol=1e-6)

    def test_score_is_the_explained_variance(self, extractor, planted) -> None:
        X = planted["X"]
        fitted = clone(extractor).fit(X[:40])
        back = fitted.inverse_transform(fitted.transform(X[40:]))
        about = ((X[40:] - fitted.mean_) ** 2).sum()
        wanted = 1 - ((X[40:] - back) ** 2).sum() / about
        assert fitted.score(X[40:]) == pytest.approx(wanted)
        assert fitted.score(X[40:]) > 0.75

    def test_a_trial_with_holes(self, extractor, planted) -> None:
        # Least squares over the observed cells alone, row by row.
        X = planted["X"]
        fitted = clone(extractor).fit(X[:40])
        holes = np.random.default_rng(1).random(X[40:44].shape) < 0.3
        holes[1] = False
        found = fitted.transform(np.where(holes, np.nan, X[40:44]))
        np.testing.assert_allclose(found[1], fitted.transform(X[41:42])[0], rtol=1e-8)
        n = fitted.train_scores_.shape[1]
        zero = fitted.inverse_transform(np.zeros((1, n)))
        D = (fitted.inverse_transform(np.eye(n)) - zero).reshape(n, -1)
        for i in (0, 2, 3):
            seen = ~holes[i].ravel()
            target = (X[40 + i] - zero[0]).ravel()[seen]
            if isinstance(extractor, NonnegativeCPFeatures):
                from scipy.optimize import nnls

                wanted = nnls(D[:, seen].T, target)[0]
            else:
                wanted = np.linalg.lstsq(D[:, seen].T, target, rcond=None)[0]
            np.testing.assert_allclose(
                found[i], wanted, rtol=1e-5, atol=1e-5 * abs(wanted).max()
            )

    def test_missing_cells_in_training(self, extractor, planted) -> None:
        X = planted["X"]
        holes = np.random.default_rng(1).random(X.shape) < 0.1
        fitted = clone(extractor).fit(np.where(holes, np.nan, X))
        back = fitted.inverse_transform(fitted.train_scores_)
        rest = (back - X)[holes]
        assert (rest**2).sum() < 0.35 * ((X - X.mean(axis=0))[holes] ** 2).sum()

    def test_a_cell_that_no_training_trial_has(self, extractor, planted) -> None:
        # A mean is not known there, so that new trials' values say nothing.
        if not extractor.get_params().get("center", False):
            pytest.skip("nothing is taken off")
        X = planted["X"] + 10.0
        X[:40, 2, 3] = np.nan
        fitted = clone(extractor).fit(X[:40])
        hole = X[40:44].copy()
        hole[:, 2, 3] = np.nan
        np.testing.assert_array_equal(
            fitted.transform(X[40:44]), fitted.transform(hole)
        )
        assert fitted.score(X[40:44]) == fitted.score(hole)

    def test_one_trial_travels_names_and_frames(self, extractor, planted) -> None:
        X = planted["X"]
        fitted = clone(extractor).fit(X)
        one = fitted.transform(X[:1])
        assert one.shape == (1, fitted.train_scores_.shape[1])
        twin = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(twin.transform(X), fitted.transform(X))
        names = fitted.get_feature_names_out()
        assert len(names) == one.shape[1] and len(set(names)) == len(names)
        frame = clone(extractor).set_output(transform="pandas").fit(X).transform(X)
        assert list(frame.columns) == list(names)

    def test_units(self, extractor, planted) -> None:
        X = planted["X"]
        plain = clone(extractor).fit(X).train_scores_
        small = clone(extractor).fit(1e-6 * X).train_scores_
        np.testing.assert_allclose(
            1e6 * small, plain, rtol=1e-4, atol=1e-5 * abs(plain).max()
        )
        single = clone(extractor).fit(X.astype(np.float32))
        assert single.transform(X.astype(np.float32)).dtype == np.float32

    def test_the_same_seed_gives_the_same_bits(self, extractor, planted) -> None:
        one, two = (clone(extractor).fit(planted["X"]) for _ in range(2))
        np.testing.assert_array_equal(one.train_scores_, two.train_scores_)

    def test_tensors_and_masked_arrays(self, extractor, planted) -> None:
        X = planted["X"]
        fitted = clone(extractor).fit(X[:40])
        tensor = torch.from_numpy(X[40:]).requires_grad_()
        np.testing.assert_array_equal(
            fitted.transform(tensor), fitted.transform(X[40:])
        )
        mask = np.random.default_rng(1).random(X[40:].shape) < 0.1
        np.testing.assert_array_equal(
            fitted.transform(np.ma.MaskedArray(X[40:], mask)),
            fitted.transform(np.where(mask, np.nan, X[40:])),
        )

    def test_what_cannot_be_done_says_so(self, extractor, planted) -> None:
        X = planted["X"]
        fitted = clone(extractor).fit(X)
        with pytest.raises(EEGTensorError, match="fit saw"):
            fitted.transform(X[:, :5])
        with pytest.raises(EEGTensorError, match="Trials 2 hold nothing but NaN"):
            hole = X.copy()
            hole[2] = np.nan
            fitted.transform(hole)
        with pytest.raises(EEGTensorError, match="infinity"):
            hole[2] = np.inf
            clone(extractor).fit(hole)
        with pytest.raises(EEGTensorError, match="n_trials, d1, d2"):
            clone(extractor).fit(X[:, :, 0, 0])
        with pytest.raises(EEGTensorError, match="what transform returns"):
            fitted.inverse_transform(np.ones((2, 99)))


def test_cp_finds_the_planted_factors(planted) -> None:
    for extractor in (CPFeatures(3, center=False), NonnegativeCPFeatures(3)):
        extractor.fit(planted["X"])
        assert match(extractor.factors_, planted["factors"][1:]) > 0.98
        for U in extractor.factors_:
            np.testing.assert_allclose(np.linalg.norm(U, axis=0), 1.0)
        energy = np.linalg.norm(extractor.train_scores_, axis=0)
        assert (np.diff(energy) <= 1e-6 * energy[0]).all()


def test_tucker_by_energy_and_as_principal_components(planted) -> None:
    X = planted["X"]
    found = TuckerFeatures(None, energy=0.9).fit(X)
    assert found.score(X) > 0.8 and max(found.ranks_) <= 4
    # With all directions of every axis but one it is PCA along that axis.
    one = TuckerFeatures((2, 7, 6)).fit(X)
    M = np.moveaxis(X - X.mean(axis=0), 1, 0).reshape(8, -1)
    U = np.linalg.svd(M)[0][:, :2]
    np.testing.assert_allclose(np.linalg.svd(U.T @ one.factors_[0])[1], 1.0)


def test_trains_and_rings_have_uncorrelated_orthonormal_features(planted) -> None:
    for extractor in (TensorTrainFeatures(4), TensorRingFeatures(2)):
        scores = extractor.fit(planted["X"]).train_scores_
        D = extractor.patterns_.reshape(len(extractor.patterns_), -1)
        np.testing.assert_allclose(D @ D.T, np.eye(len(D)), atol=1e-10)
        energy = np.linalg.norm(scores, axis=0)
        assert (np.diff(energy) <= 1e-6 * energy[0]).all()


def test_in_a_search_and_a_pipeline(planted) -> None:
    pipe = make_pipeline(CPFeatures(2), LogisticRegression())
    search = GridSearchCV(pipe, {"cpfeatures__rank": [1, 3]}, cv=3)
    search.fit(planted["X"], planted["y"])
    assert search.best_score_ > 0.8


def test_ranks_that_do_not_fit(planted) -> None:
    with pytest.raises(EEGTensorError, match="trials of 3 axes"):
        TuckerFeatures((3, 3)).fit(planted["X"])
    with pytest.raises(EEGTensorError, match="links"):
        TensorRingFeatures((2, 2)).fit(planted["X"])
