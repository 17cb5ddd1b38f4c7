"""HODA against linear discriminants; HOPLS against partial least squares."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.cross_decomposition import PLSRegression

from eegtensor import EEGTensorError
from eegtensor.features import HODA, HOPLS, TuckerFeatures
from eegtensor.tensor.hoda import hoda, trace_ratio
from eegtensor.tensor.hopls import hopls


@pytest.fixture
def classes(rng) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that differ along one weak direction of each axis."""
    y = np.repeat(["left", "right"], 60)
    u, v = (np.linalg.qr(rng.standard_normal((n, 1)))[0][:, 0] for n in (8, 10))
    strong = np.outer(rng.standard_normal(8), rng.standard_normal(10))
    X = rng.standard_normal((120, 8, 10))
    X += 3 * rng.standard_normal((120, 1, 1)) * strong
    X += np.where(y == "right", 1.5, -1.5)[:, None, None] * np.outer(u, v)
    return X, y


def test_it_finds_what_separates_and_not_what_is_strong(classes) -> None:
    X, y = classes
    train, test = np.arange(0, 120, 2), np.arange(1, 120, 2)
    found = HODA(1).fit(X[train], y[train])
    scores = found.transform(X[test])[:, 0]
    right = scores[y[test] == "right"].mean() > scores.mean()
    said = np.where((scores > scores.mean()) == right, "right", "left")
    assert (said == y[test]).mean() > 0.85
    blind = TuckerFeatures(1).fit(X[train]).transform(X[test])[:, 0]
    gap = [abs(s[y[test] == "right"].mean() - s[y[test] == "left"].mean()) / s.std()
           for s in (scores, blind)]  # fmt: skip
    assert gap[0] > 2 * gap[1]


def test_the_trace_ratio_is_the_optimum(rng) -> None:
    A, W = (rng.standard_normal((6, 6)) for _ in range(2))
    B, W = torch.from_numpy(A @ A.T), torch.from_numpy(W @ W.T + np.eye(6))
    U, ratio = trace_ratio(B, W, 2)
    torch.testing.assert_close(U.mT @ U, torch.eye(2).double())
    assert ratio == pytest.approx(float((U * (B @ U)).sum() / (U * (W @ U)).sum()))
    # At the optimum the leading eigenvalues of B - ratio W sum to zero.
    values = torch.linalg.eigvalsh(B - ratio * W)
    assert float(values[-2:].sum()) == pytest.approx(0.0, abs=1e-9)
    for seed in range(200):
        Q = torch.linalg.qr(
            torch.randn(6, 2, generator=torch.Generator().manual_seed(seed)).double()
        )[0]
        assert float((Q * (B @ Q)).sum() / (Q * (W @ Q)).sum()) <= ratio + 1e-12


def test_one_direction_of_one_axis_is_fishers(classes) -> None:
    X, y = classes
    codes = (y == "right").astype(int)
    model = hoda(X[:, :, :1], codes, (1, 1), ridge=0.0)
    Z = X[:, :, 0]
    means = np.stack([Z[codes == c].mean(axis=0) for c in (0, 1)])
    within = (Z - means[codes]).T @ (Z - means[codes])
    between = 60 * (means - Z.mean(axis=0)).T @ (means - Z.mean(axis=0))
    fisher = eigh(between, within)[1][:, -1]
    cosine = fisher @ model.factors[1][:, 0] / np.linalg.norm(fisher)
    assert abs(cosine) == pytest.approx(1.0, abs=1e-6)


def test_the_ratio_never_falls(classes) -> None:
    X, y = classes
    codes = (y == "right").astype(int)
    ratios = [hoda(X, codes, 3, max_iter=k, tol=0.0).ratio for k in (1, 2, 4, 8)]
    assert (np.diff(ratios) >= -1e-12).all()
    # More sweeps are worth it, and made when they are not forbidden.
    assert ratios[2] > 1.0001 * ratios[0]
    assert hoda(X, codes, 3).ratio > ratios[1]


def test_columns_come_by_falling_ratio(classes) -> None:
    X, y = classes
    codes = (y == "right").astype(int)
    core = hoda(X, codes, (4, 5)).core
    means = np.stack([core[codes == c].mean(axis=0) for c in (0, 1)])
    for other in (2, 1):
        between = (means[codes] ** 2).sum(axis=(0, other))
        within = ((core - means[codes]) ** 2).sum(axis=(0, other))
        assert (np.diff(between / within) < 0).all()


def test_the_ratio_is_that_of_the_scatters(rng) -> None:
    # Classes of unlike sizes, with a ridge; along the axis updated last.
    codes = np.repeat([0, 1, 2], [30, 20, 7])
    X = rng.standard_normal((57, 6, 7)) + rng.standard_normal((3, 6, 7))[codes]
    model = hoda(X, codes, (2, 3), ridge=0.3)
    Y = np.einsum("kij,ia->kja", X - X.mean(axis=0), model.factors[1])
    means = np.stack([Y[codes == c].mean(axis=0) for c in range(3)])
    between = np.einsum("kja,kla->jl", means[codes], means[codes])
    within = np.einsum("kja,kla->jl", Y - means[codes], Y - means[codes])
    within += 0.3 * np.trace(within) / 7 * np.eye(7)
    U = model.factors[2]
    wanted = np.trace(U.T @ between @ U) / np.trace(U.T @ within @ U)
    assert model.ratio == pytest.approx(wanted, rel=1e-9)


def test_axes_keep_the_directions_asked_for(classes) -> None:
    X, y = classes
    codes = (y == "right").astype(int)
    factors = hoda(X, codes, (4, 1)).factors
    assert [U.shape for U in factors[1:]] == [(8, 4), (10, 1)]
    np.testing.assert_array_equal(
        hoda(X, codes, np.int64(2)).core, hoda(X, codes, 2).core
    )
    nothing = hoda(np.zeros_like(X), codes, 2)
    assert nothing.ratio == 0.0


def test_fit_is_the_relative_error_with_and_without_a_mean(classes) -> None:
    X, y = classes
    for center in (True, False):
        found = HODA(3, n_selected=4, center=center).fit(X + 2.0, y)
        back = found.inverse_transform(found.train_scores_) - found.mean_
        about = X + 2.0 - found.mean_
        error = np.linalg.norm(back - about) / np.linalg.norm(about)
        assert found.fit_ == pytest.approx(1 - error)


def test_selected_cells_are_the_best_ones(classes) -> None:
    X, y = classes
    few, every = HODA(3, n_selected=2).fit(X, y), HODA(3).fit(X, y)
    np.testing.assert_allclose(few.train_scores_, every.train_scores_[:, :2])
    scores = every.train_scores_
    means = np.stack([scores[y == c].mean(axis=0) for c in every.classes_])
    fisher = means.std(axis=0) / (scores - means[(y == "right").astype(int)]).std(
        axis=0
    )
    assert (np.diff(fisher) <= 1e-9).all()


def test_with_whole_blocks_it_is_partial_least_squares(rng) -> None:
    X = rng.standard_normal((50, 4, 4))
    y = X[:, 0, 1] - 2 * X[:, 3, 2] + 0.3 * rng.standard_normal(50)
    theirs = PLSRegression(3, scale=False).fit(X.reshape(50, -1), y)
    ours = HOPLS(3, ranks=4).fit(X, y)
    for Z in (X, rng.standard_normal((10, 4, 4))):
        wanted = theirs.predict(Z.reshape(len(Z), -1)).ravel()
        np.testing.assert_allclose(ours.predict(Z), wanted, atol=1e-8)
    scores = ours.train_scores_
    np.testing.assert_allclose(scores.T @ scores, np.eye(3), atol=1e-10)


def test_hopls_weights_give_the_latent_vectors_of_low_rank_blocks(rng) -> None:
    X, Y = rng.standard_normal((40, 6, 7)), rng.standard_normal((40, 2))
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    model = hopls(X, Y, 4, 2)
    np.testing.assert_allclose(np.linalg.norm(model.scores, axis=0), 1.0)
    found = np.einsum("kij,rij->kr", X, model.weights)
    np.testing.assert_allclose(found, model.scores, atol=1e-12)
    assert all(np.linalg.matrix_rank(P) == 2 for P in model.patterns)
    # Each block takes its part of the target off: what is left is not seen again.
    rest = Y.copy()
    for t, q in zip(model.scores.T, model.loadings, strict=True):
        np.testing.assert_allclose(q, t @ rest, atol=1e-12)
        rest -= np.outer(t, q)
    estimator = HOPLS(4, ranks=2).fit(X, Y[:, 0])
    said = estimator.predict(X)
    single = hopls(X, Y[:, :1], 4, 2)
    np.testing.assert_allclose(said, (single.scores @ single.loadings)[:, 0])
    left = np.linalg.norm(X - np.einsum("kr,rij->kij", single.scores, single.patterns))
    assert estimator.fit_ == pytest.approx(1 - left / np.linalg.norm(X))


def test_hopls_of_classes(classes) -> None:
    X, y = classes
    train, test = np.arange(0, 120, 2), np.arange(1, 120, 2)
    found = HOPLS(2, ranks=1).fit(X[train], y[train])
    assert (found.predict(X[test]) == y[test]).mean() > 0.85
    scores = found.train_scores_
    assert scores.shape == (60, 2)


def test_low_rank_blocks_beat_plain_partial_least_squares(rng) -> None:
    # Many cells, few trials, a target that follows one product of two directions.
    u, v = rng.standard_normal(20), rng.standard_normal(25)
    w = np.outer(u, v) / np.linalg.norm(np.outer(u, v))
    X = rng.standard_normal((160, 20, 25))
    y = np.einsum("kij,ij->k", X, w) + 0.1 * rng.standard_normal(160)
    train, test = slice(0, 80), slice(80, None)

    def r2(said: np.ndarray) -> float:
        return (
            1 - ((said - y[test]) ** 2).sum() / ((y[test] - y[train].mean()) ** 2).sum()
        )

    flat = X.reshape(160, -1)
    plain = max(
        r2(
            PLSRegression(k, scale=False)
            .fit(flat[train], y[train])
            .predict(flat[test])
            .ravel()
        )
        for k in (1, 2, 3)
    )
    ours = r2(HOPLS(3, ranks=1).fit(X[train], y[train]).predict(X[test]))
    assert ours > plain + 0.1


def test_a_trial_with_holes_and_a_copy(classes) -> None:
    X, y = classes
    hole = X[:3].copy()
    hole[0, :2], hole[2, 3, 4] = np.nan, np.nan
    seen = ~np.isnan(hole)
    for extractor in (HODA(2), HOPLS(2, ranks=2)):
        fitted = extractor.fit(X, y)
        found = fitted.transform(hole)
        np.testing.assert_allclose(found[1], fitted.transform(X[:3])[1], rtol=1e-10)
        n = found.shape[1]
        D = (fitted.inverse_transform(np.eye(n)) - fitted.mean_).reshape(n, -1)
        for i in (0, 2):
            cells, about = seen[i].ravel(), (hole[i] - fitted.mean_).ravel()
            wanted = np.linalg.lstsq(D[:, cells].T, about[cells], rcond=None)[0]
            if isinstance(extractor, HOPLS):
                about[~cells] = (wanted @ D)[~cells]
                wanted = fitted.weights_.reshape(n, -1) @ about
            np.testing.assert_allclose(found[i], wanted, rtol=1e-6, atol=1e-8)
        twin = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(twin.transform(X), fitted.transform(X))


def test_what_cannot_be_done_says_so(classes) -> None:
    X, y = classes
    with pytest.raises(EEGTensorError, match="needs class labels"):
        HODA(2).fit(X)
    with pytest.raises(EEGTensorError, match="classes or numbers"):
        HOPLS(2).fit(X)
    hole = X.copy()
    hole[0, 0, 0] = np.nan
    for extractor in (HODA(2), HOPLS(2)):
        with pytest.raises(EEGTensorError, match="restore them first"):
            extractor.fit(hole, y)
    with pytest.raises(EEGTensorError, match="negative numbers"):
        hoda(X, (y == "right").astype(int) - 1, 2)
    with pytest.raises(EEGTensorError, match="have 0, 120 trials"):
        hoda(X, np.ones(120, int), 2)
    with pytest.raises(EEGTensorError, match="n_selected"):
        HODA(2, n_selected=0).fit(X, y)
    with pytest.raises(EEGTensorError, match="No cell of X varies"):
        HOPLS(2).fit(np.ones((4, 3, 3)), np.array([0.0, 1.0, 0.0, 1.0]))
