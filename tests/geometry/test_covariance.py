"""Covariance estimators, with scikit-learn as referee."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.covariance
import torch

from eegtensor import EEGTensorError, geometry
from eegtensor.geometry.covariance import ESTIMATORS


@pytest.mark.parametrize(
    ("name", "peer"),
    [("oas", sklearn.covariance.oas), ("lwf", sklearn.covariance.ledoit_wolf)],
)
@pytest.mark.parametrize("n_times", [10, 300])
def test_shrinkage_equals_scikit_learn(
    rng: np.random.Generator, name: str, peer: object, n_times: int
) -> None:
    X = 1e-5 * rng.standard_normal((4, 12, n_times)) + 1e-4
    C = geometry.covariances(X, estimator=name)
    for trial, ours in zip(X, C, strict=True):
        np.testing.assert_allclose(ours, peer(trial.T)[0], rtol=1e-9, atol=1e-22)


def test_scm_and_constant_trials(rng: np.random.Generator) -> None:
    X = rng.standard_normal((2, 3, 50))
    C = geometry.covariances(X, estimator="scm")
    np.testing.assert_allclose(C[1], np.cov(X[1], bias=True))
    for name in ("oas", "lwf", "scm"):
        zero = geometry.covariances(np.ones((1, 3, 50)), estimator=name)
        np.testing.assert_array_equal(zero, 0)


def test_rank(rng: np.random.Generator) -> None:
    X = rng.standard_normal((1, 8, 200)) * 1e-6
    referenced = X - X.mean(axis=1, keepdims=True)
    C = np.concatenate(
        [geometry.covariances(x, estimator="scm") for x in (X, referenced, X[..., :5])]
    )
    assert geometry.rank(C).tolist() == [8, 7, 4]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_mask_of_samples_cuts_them_out(
    rng: np.random.Generator, estimator: str, device: str
) -> None:
    X = 1e-5 * rng.standard_normal((3, 6, 80))
    mask = rng.random((3, 80)) < 0.7
    X[np.broadcast_to(~mask[:, None], X.shape)] = np.nan
    C = geometry.covariances(X, estimator=estimator, mask=mask)
    for k in range(3):
        alone = geometry.covariances(X[k][:, mask[k]], estimator=estimator)
        np.testing.assert_allclose(C[k], alone, rtol=1e-10, atol=1e-22)
    tensor = torch.from_numpy(X).to(device)
    there = geometry.covariances(tensor, estimator=estimator, mask=mask)
    np.testing.assert_allclose(there.cpu(), C, rtol=1e-10, atol=1e-22)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_mask_of_channels_uses_what_pairs_have(
    rng: np.random.Generator, estimator: str
) -> None:
    X = rng.standard_normal((2, 5, 200))
    full = np.ones(X.shape, dtype=bool)
    np.testing.assert_allclose(
        geometry.covariances(X, estimator=estimator, mask=full),
        geometry.covariances(X, estimator=estimator),
        rtol=1e-9,
        atol=1e-12,
    )
    mask = rng.random(X.shape) < 0.6
    holes = np.where(mask, X, np.nan)
    C = geometry.covariances(holes, estimator=estimator, mask=mask)
    if estimator == "scm":
        centred = holes - np.nanmean(holes, axis=-1, keepdims=True)
        pairwise = np.nanmean(centred[:, :, None] * centred[:, None], axis=-1)
        np.testing.assert_allclose(C, pairwise, rtol=1e-10, atol=1e-12)
    else:
        assert (np.linalg.eigvalsh(C) > 0).all()


def test_pairwise_matrices_are_repaired(rng: np.random.Generator) -> None:
    """Few samples and many holes: what comes out of pairs alone is indefinite."""
    X = rng.standard_normal((4, 8, 12))
    mask = rng.random(X.shape) < 0.7
    C = geometry.covariances(X, estimator="scm", mask=mask)
    centred = np.where(mask, X, np.nan)
    centred = centred - np.nanmean(centred, axis=-1, keepdims=True)
    raw = np.nanmean(centred[:, :, None] * centred[:, None], axis=-1)
    assert np.linalg.eigvalsh(raw).min() < -0.01
    values, vectors = np.linalg.eigh(raw)
    nearest = (vectors * values.clip(0)[:, None]) @ np.swapaxes(vectors, 1, 2)
    np.testing.assert_allclose(C, nearest, atol=1e-10)


def test_regularised(rng: np.random.Generator) -> None:
    X = 1e-6 * rng.standard_normal((2, 10, 6))
    C = geometry.covariances(X, estimator="regularised", regularisation=0.1)
    scm = geometry.covariances(X, estimator="scm")
    mean = np.trace(scm, axis1=1, axis2=2)[:, None, None] / 10
    np.testing.assert_allclose(C, scm + 0.1 * mean * np.eye(10), rtol=1e-12)
    assert (geometry.rank(C) == 10).all()


def test_what_is_missing_is_said(rng: np.random.Generator) -> None:
    X = rng.standard_normal((3, 4, 20))
    X[1, 2, 5] = np.nan
    with pytest.raises(EEGTensorError, match="Trials 1 hold NaN"):
        geometry.covariances(X)
    mask = ~np.isnan(X)
    geometry.covariances(X, mask=mask)
    with pytest.raises(EEGTensorError, match="Trials 1 hold NaN"):
        geometry.covariances(X, mask=np.ones_like(mask))
    mask[2, 0, :10], mask[2, 3, 10:] = False, False
    with pytest.raises(EEGTensorError, match="Channels 0 and 3 of trial 2"):
        geometry.covariances(X, mask=mask)
    with pytest.raises(EEGTensorError, match="mask has shape"):
        geometry.covariances(X, mask=mask[0])
    with pytest.raises(EEGTensorError, match="estimator='mcd'"):
        geometry.covariances(X, estimator="mcd")


def test_many_trials_go_in_pieces(rng: np.random.Generator) -> None:
    """Pieces that fit the cache give what one trial alone gives, in any shape."""
    X = rng.standard_normal((3, 40, 8, 1000))
    mask = rng.random((3, 40, 1000)) < 0.9
    for estimator in ESTIMATORS:
        C = geometry.covariances(X, estimator=estimator)
        masked = geometry.covariances(X, estimator=estimator, mask=mask)
        assert C.shape == (3, 40, 8, 8)
        for i, j in ((0, 0), (1, 39), (2, 17)):
            alone = geometry.covariances(X[i, j], estimator=estimator)
            np.testing.assert_allclose(C[i, j], alone, rtol=1e-12, atol=1e-15)
            cut = geometry.covariances(X[i, j][:, mask[i, j]], estimator=estimator)
            np.testing.assert_allclose(masked[i, j], cut, rtol=1e-10, atol=1e-12)
    X[2, 5, 3, 7] = np.inf
    with pytest.raises(EEGTensorError, match="Trials 85 hold"):
        geometry.covariances(X)
    assert geometry.covariances(X[:, :0]).shape == (3, 0, 8, 8)


def test_dtypes(rng: np.random.Generator) -> None:
    """Arrays give float64; tensors keep their dtype but are summed in float64."""
    X = (1e-5 * rng.standard_normal((2, 4, 5000)) + 1e-2).astype(np.float32)
    C = geometry.covariances(X, estimator="scm")
    assert C.dtype == np.float64
    expected = np.stack([np.cov(x.astype(np.float64), bias=True) for x in X])
    np.testing.assert_allclose(C, expected, rtol=1e-9)
    tensor = geometry.covariances(torch.from_numpy(X), estimator="scm")
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor, expected, rtol=1e-6, atol=1e-17)
