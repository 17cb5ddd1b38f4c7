"""PARAFAC2 and block-term features, and the choice of a rank."""

from __future__ import annotations

import numpy as np
import pytest
from _planted import cp_tensor, noisy

from eegtensor import EEGTensorError
from eegtensor.features import BlockTermFeatures, PARAFAC2Features, select_rank


@pytest.fixture
def shifted(rng) -> tuple[np.ndarray, np.ndarray]:
    """Two sources whose courses begin at another time in every trial."""
    t = np.arange(60)
    maps = rng.standard_normal((6, 2))
    sizes = rng.uniform(0.5, 2.0, (50, 2))
    X = np.zeros((50, 6, 60))
    for k in range(50):
        start = rng.integers(0, 20)
        one = np.exp(-(((t - 15 - start) / 4.0) ** 2))
        two = np.sin(0.5 * (t - start)) * np.exp(-(((t - 25 - start) / 8.0) ** 2))
        courses = np.stack([one / np.linalg.norm(one), two / np.linalg.norm(two)])
        X[k] = (maps * sizes[k]) @ courses
    return noisy(X, 20.0, rng), sizes


def test_sizes_of_components_that_are_shifted(shifted) -> None:
    X, sizes = shifted
    fitted = PARAFAC2Features(2).fit(X[:40])
    found = fitted.transform(X[40:])
    match = np.abs(np.corrcoef(found.T, sizes[40:].T)[:2, 2:]).max(axis=0)
    assert (match > 0.95).all()
    assert fitted.score(X[40:]) > 0.95
    np.testing.assert_allclose(fitted.transform(X[:40]), fitted.train_scores_)
    np.testing.assert_allclose(fitted.transform(X[41:42])[0], found[1], rtol=1e-6)
    # The courses that go with them rebuild the trials.
    rebuilt = np.einsum("kr,krt,cr->kct", found, fitted.courses(X[40:]), fitted.maps_)
    assert np.linalg.norm(rebuilt - X[40:]) < 0.2 * np.linalg.norm(X[40:])
    courses = fitted.courses(X[40:])
    inner = np.einsum("krt,kst->krs", courses, courses)
    np.testing.assert_allclose(inner - fitted.cosines_, 0.0, atol=1e-6)
    # Sizes of components do not say when a trial has them.
    assert not hasattr(fitted, "inverse_transform")


def test_a_trial_with_holes(shifted) -> None:
    X, _ = shifted
    fitted = PARAFAC2Features(2).fit(X[:40])
    hole = X[40:].copy()
    hole[0, :, 5:10] = np.nan
    whole, found = fitted.transform(X[40:]), fitted.transform(hole)
    np.testing.assert_allclose(found[1:], whole[1:], rtol=1e-6)
    assert np.abs(found[0] - whole[0]).max() < 0.2 * np.abs(whole).max()


def test_block_terms_are_maps_of_two_patterns(rng) -> None:
    maps = np.stack(
        [rng.standard_normal((7, 2)) @ rng.standard_normal((2, 9)) for _ in range(2)]
    )
    scores = rng.standard_normal((40, 2))
    X = noisy(np.einsum("kr,rij->kij", scores, maps), 20.0, rng)
    fitted = BlockTermFeatures(2, 2, center=False).fit(X)
    flat = maps.reshape(2, -1) / np.linalg.norm(maps, axis=(1, 2))[:, None]
    cosines = np.abs(fitted.patterns_.reshape(2, -1) @ flat.T)
    assert (cosines.max(axis=1) > 0.98).all()
    for pattern in fitted.patterns_:
        assert np.linalg.svd(pattern)[1][2] < 1e-10
    np.testing.assert_allclose(fitted.transform(X), fitted.train_scores_)
    back = fitted.inverse_transform(fitted.train_scores_)
    assert np.linalg.norm(back - X) < 0.15 * np.linalg.norm(X)


def test_slices_have_two_axes(rng) -> None:
    X = rng.standard_normal((5, 3, 4, 6))
    for extractor in (PARAFAC2Features(2), BlockTermFeatures(2)):
        with pytest.raises(EEGTensorError, match="3 axes"):
            extractor.fit(X)


def test_the_planted_rank_is_chosen(rng) -> None:
    X = cp_tensor([rng.standard_normal((n, 3)) for n in (40, 8, 9)])
    X = noisy(X, 15.0, rng) + 5.0
    found = select_rank(X, (1, 2, 3, 4), n_folds=3, n_splits=2)
    assert found.rank == 3
    assert found.choices["split-half"] == 3
    assert found.table.index.tolist() == [1, 2, 3, 4]
    assert found.table["fit"].is_monotonic_increasing
    power = cp_tensor([rng.random((n, 2)) ** 2 for n in (40, 8, 9)])
    power = np.maximum(noisy(power, 15.0, rng), 0.0)
    parts = select_rank(
        power, (1, 2, 3), model="nonnegative-cp", n_folds=2, n_splits=1, ard=False
    )
    assert parts.rank == 2
    with pytest.raises(EEGTensorError, match="model='pca'"):
        select_rank(X, model="pca")
