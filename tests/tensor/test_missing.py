"""Memory of every decomposition, and imputation as its definition says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from _peak import Peak

import eegtensor.tensor as T
from eegtensor import features
from eegtensor.features import _tensors
from eegtensor.tensor import _missing, kernels
from eegtensor.tensor._missing import impute
from eegtensor.tensor.ard import ard_cp
from eegtensor.tensor.blockterm import block_term
from eegtensor.tensor.cmtf import cmtf
from eegtensor.tensor.coupled import coupled_cp
from eegtensor.tensor.hoda import hoda
from eegtensor.tensor.hopls import hopls
from eegtensor.tensor.shared import shared_tucker
from eegtensor.tensor.tucker import Tucker

SHAPE = (20, 14, 12, 30)
JOINT: dict[str, Any] = {
    "coupled_cp": lambda X: coupled_cp([X[:9], X[9:]], 3, max_iter=2, n_init=2),
    "shared_tucker": lambda X: shared_tucker([X[:9], X[9:]], 3, max_iter=2),
    "cmtf": lambda X: cmtf(X, X[:, 0, :5, 0].nan_to_num(), 3, max_iter=2, n_init=2),
    "ard_cp": lambda X: ard_cp(X, 5, max_iter=2),
    "block_term": lambda X: block_term(X.view(20, 168, 30), 2, 2, max_iter=2, n_init=2),
}
DECOMPOSITIONS: dict[str, Any] = {
    "cp": lambda X: T.cp(X, 6, max_iter=2, n_init=1),
    "nonnegative_cp": lambda X: T.nonnegative_cp(X, 6, max_iter=2, tol=0.1),
    "tucker": lambda X: T.tucker(X, 6, max_iter=2, tol=0.1),
    "tensor_train": lambda X: T.tensor_train(X, 6, max_iter=5),
    "tensor_ring": lambda X: T.tensor_ring(X, 3, max_iter=2, tol=0.1),
    "hoda": lambda X: hoda(X, torch.arange(20) % 2, 3, max_iter=2),
    "hopls": lambda X: hopls(X, torch.arange(20.0)[:, None], 2, 3),
    **JOINT,
}


FEATURES: dict[str, Any] = {
    "cp": lambda: features.CPFeatures(3, n_init=1, max_iter=2),
    "nonnegative": lambda: features.NonnegativeCPFeatures(3, n_init=1, max_iter=1),
    "tucker": lambda: features.TuckerFeatures(3, max_iter=2),
    "train": lambda: features.TensorTrainFeatures(3, max_iter=5),
    "ring": lambda: features.TensorRingFeatures(2, max_iter=2),
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_three_times_the_input_is_enough(name: str, missing, rng, monkeypatch) -> None:
    if missing and name in ("hoda", "hopls"):
        pytest.skip("these take no missing cells")
    X = torch.from_numpy(rng.random(SHAPE))
    if missing:
        X[torch.from_numpy(rng.random(SHAPE) < 0.3)] = torch.nan
    # What large tensors bound by parts, this small one has to bound as well.
    monkeypatch.setattr(kernels, "_PIECE", 20_000)
    monkeypatch.setattr(_missing, "_FEW_CELLS", 0)
    before = X.clone()
    with Peak(X) as peak:
        DECOMPOSITIONS[name](X)
    assert peak.bytes < 3 * X.nbytes
    torch.testing.assert_close(X, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", FEATURES)
def test_three_times_the_trials_is_enough_for_features(
    name: str, rng, monkeypatch
) -> None:
    X = rng.random(SHAPE)
    X[rng.random(SHAPE) < 0.3] = np.nan
    monkeypatch.setattr(kernels, "_PIECE", 20_000)
    monkeypatch.setattr(_missing, "_FEW_CELLS", 0)
    monkeypatch.setattr(_tensors, "_CELLS", 10_000)
    before, extractor = X.copy(), FEATURES[name]()
    with Peak(torch.from_numpy(X)) as peak:
        extractor.fit(X)
    # Copies that NumPy makes count as soon as torch has them.
    assert X.nbytes < peak.bytes < 3 * X.nbytes
    np.testing.assert_array_equal(X, before)
    # Missing cells of the working copy were zero again for the training scores.
    np.testing.assert_allclose(
        extractor.train_scores_, extractor.transform(X), rtol=1e-9, atol=1e-12
    )


def test_a_mask_leaves_the_array_as_it_was(rng) -> None:
    X = rng.random((5, 6, 7))
    mask, before = rng.random(X.shape) > 0.3, X.copy()
    for model in (T.cp, T.tucker, T.tensor_train, T.tensor_ring, T.nonnegative_cp):
        model(X, 2, mask=mask)
        np.testing.assert_array_equal(X, before)


def test_missing_cells_take_the_values_of_the_model(rng) -> None:
    # Plain turns with a model that can be written down: the mean of each row.
    X = torch.from_numpy(rng.standard_normal((19, 6)))
    observed = torch.from_numpy(rng.random(X.shape) > 0.3)
    seen: list[torch.Tensor] = []

    def model(Z: torch.Tensor, before: Tucker | None) -> Tucker:
        seen.append(Z.clone())
        ones = torch.ones(6, 1, dtype=Z.dtype)
        return Tucker(Z.mean(dim=1, keepdim=True), (None, ones), 0.0, 0)

    def rows(m: Tucker, part: slice) -> Tucker:
        return m._replace(core=m.core[part])

    zeros = X.where(observed, torch.tensor(0.0).double())
    found = impute(zeros.clone(), observed, model, max_iter=200, tol=1e-12, rows=rows)
    count = observed.sum(dim=1)
    wanted = (X * observed).sum(dim=1) / count.clamp_min(1)
    # The fit settles to 1e-12, its argument to the root of that.
    kept = count > 0
    torch.testing.assert_close(found.core[kept, 0], wanted[kept], rtol=0, atol=1e-5)
    for Z in seen:
        torch.testing.assert_close(Z[observed], X[observed], rtol=0, atol=0)
    # The start: means of observed cells over the first mode.
    means = (X * observed).sum(dim=0) / observed.sum(dim=0)
    torch.testing.assert_close(seen[0][~observed], means.expand_as(X)[~observed])
    first = seen[0].mean(dim=1, keepdim=True).expand_as(X)
    torch.testing.assert_close(seen[1][~observed], first[~observed])
    # Observed cells alone count, before the others agree with the model too.
    once = impute(zeros, observed, model, max_iter=1, tol=0.0, rows=rows)
    rest = (X - once.core) * observed
    assert once.fit == pytest.approx(1 - float(rest.norm() / (X * observed).norm()))
    error = ((X - wanted[:, None]) * observed).norm() / (X * observed).norm()
    assert found.fit == pytest.approx(1 - float(error))
