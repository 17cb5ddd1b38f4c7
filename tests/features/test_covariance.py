"""Covariances, filter banks and tangent vectors; pyriemann as referee."""

from __future__ import annotations

import numpy as np
import pytest
from pyriemann.estimation import Covariances as PyriemannCovariances
from pyriemann.tangentspace import TangentSpace as PyriemannTangentSpace

from eegtensor import EEGTensorError, geometry
from eegtensor.features import Covariances, TangentSpace


@pytest.fixture
def signals(rng: np.random.Generator) -> np.ndarray:
    mix = np.eye(6) + 0.3 * rng.standard_normal((6, 6))
    return (1e-5 * mix @ rng.standard_normal((30, 6, 100))).astype(np.float32)


@pytest.mark.parametrize("estimator", ["oas", "lwf", "scm"])
def test_equals_pyriemann(signals: np.ndarray, estimator: str) -> None:
    peer = PyriemannCovariances("scm" if estimator == "scm" else estimator)
    ours = Covariances(estimator).fit_transform(signals)
    theirs = peer.fit_transform(signals.astype(float))
    if estimator == "scm":  # pyriemann's scm divides without centring
        theirs = np.array([np.cov(x, bias=True) for x in signals.astype(float)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-18)


def test_banks(signals: np.ndarray) -> None:
    stacked = Covariances("lwf").fit_transform(signals)
    separate = Covariances("lwf", 2, "separate").fit_transform(signals)
    blocks = Covariances("lwf", 2, "blocks").fit_transform(signals)
    assert stacked.shape == blocks.shape == (30, 6, 6)
    assert separate.shape == (30, 2, 3, 3)
    low = Covariances("lwf").fit_transform(signals[:, :3])
    np.testing.assert_array_equal(separate[:, 0], low)
    np.testing.assert_array_equal(blocks[:, :3, :3], low)
    np.testing.assert_array_equal(blocks[:, :3, 3:], 0)
    np.testing.assert_array_equal(blocks[:, 3:, 3:], separate[:, 1])
    # A block-diagonal matrix and its blocks are the same point: same logarithm.
    wide = TangentSpace(reference="identity").fit_transform(blocks)
    split = TangentSpace(reference="identity").fit_transform(separate)
    np.testing.assert_allclose((wide**2).sum(1), (split**2).sum(1))
    with pytest.raises(EEGTensorError, match="6 channels cannot be 4 bands"):
        Covariances(n_bands=4, bands="separate").fit_transform(signals)


def test_a_read_only_map_is_read(signals: np.ndarray, tmp_path) -> None:
    np.save(tmp_path / "x.npy", signals)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        Covariances().fit_transform(mapped), Covariances().fit_transform(signals)
    )


def test_bad_trials_are_named(signals: np.ndarray) -> None:
    broken = signals.copy()
    broken[7, 2, 3] = np.nan
    with pytest.raises(EEGTensorError, match=r"trials 7; channels 2"):
        Covariances().fit_transform(broken)
    flat = signals.copy()
    flat[4] = 1e-6
    with pytest.raises(EEGTensorError, match=r"rank 0 of 6; trials 4.*flat"):
        Covariances().fit_transform(flat)
    with pytest.raises(EEGTensorError, match="estimator='mcd'"):
        Covariances("mcd").fit(signals)
    with pytest.raises(EEGTensorError, match="not numbers"):
        Covariances().fit_transform(np.array([["a", "b"]], dtype=object))


def test_tangent_space_equals_pyriemann(signals: np.ndarray) -> None:
    C = Covariances().fit_transform(signals)
    w = np.linspace(1, 2, 30)
    for weight in (None, w):
        ours = TangentSpace().fit(C[:20], sample_weight=_part(weight)).transform(C)
        peer = PyriemannTangentSpace().fit(C[:20], sample_weight=_part(weight))
        np.testing.assert_allclose(ours, peer.transform(C), atol=1e-6)


def _part(weight):
    return None if weight is None else weight[:20]


def test_log_euclidean_tangents(signals: np.ndarray) -> None:
    C = Covariances().fit_transform(signals)
    v = TangentSpace("log-euclidean").fit_transform(C)
    np.testing.assert_allclose(v.mean(0), 0, atol=1e-9)
    logs = geometry.upper_vector(geometry.logm(C))
    np.testing.assert_allclose(v, logs - logs.mean(0), atol=1e-9)


def test_tangent_space_refuses_other_matrices(signals: np.ndarray) -> None:
    C = Covariances().fit_transform(signals)
    fitted = TangentSpace().fit(C)
    with pytest.raises(EEGTensorError, match="was fitted to"):
        fitted.transform(C[:, :4, :4])
    with pytest.raises(EEGTensorError, match="put Covariances"):
        fitted.transform(signals)


def test_a_constant_trial_is_named_whatever_its_offset() -> None:
    """0.1 less the mean of fifty 0.1 is 1e-17, which shrinkage made definite."""
    X = np.random.default_rng(0).standard_normal((3, 4, 50))
    X[1] = 0.1
    for model in (Covariances(), Covariances(n_bands=2, bands="separate")):
        with pytest.raises(EEGTensorError, match="rank 0"):
            model.fit_transform(X)
    # An offset far above the signal is no reason to refuse it.
    Covariances().fit_transform(X[[0, 2]] * 1e-6 + 0.1)


def test_bad_shapes_and_dtypes_in_fit() -> None:
    with pytest.raises(EEGTensorError, match="shape"):
        Covariances().fit(np.zeros(5))
    assert Covariances().fit(np.zeros((5, 30))).n_features_in_ == 1


def test_signals_do_not_pass_for_matrices() -> None:
    """As many samples as channels look square."""
    X = np.random.default_rng(0).standard_normal((6, 8, 8))
    with pytest.raises(EEGTensorError, match="not symmetric"):
        TangentSpace().fit(X)
    C = Covariances().fit_transform(X)
    with pytest.raises(EEGTensorError, match="negative variances"):
        TangentSpace().fit(-C)
    with pytest.raises(EEGTensorError, match="dtype"):
        TangentSpace().fit(C.astype(str))


def test_a_cell_without_weight_is_left_out() -> None:
    """A person whose trials weigh nothing has no mean, and needs none."""
    C = Covariances().fit_transform(
        np.random.default_rng(0).standard_normal((40, 4, 50))
    )
    people = np.repeat(["a", "b"], 20)
    weighted = TangentSpace().fit(
        C, subjects=people, sample_weight=(people == "a").astype(float)
    )
    np.testing.assert_allclose(
        weighted.reference_, TangentSpace().fit(C[:20]).reference_, rtol=1e-6
    )
