"""Scores of new slices: each by itself, signs, components without data, options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tensor._slices import Group, project
from eegtensor.tensor.parafac2 import PARAFAC2, parafac2, parafac2_project


@pytest.fixture(scope="module")
def slices() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    B = np.linalg.cholesky(0.7 * np.eye(2) + 0.3).T
    C = rng.standard_normal((7, 2))
    found = []
    for a in rng.uniform(0.3, 2.0, (6, 2)):
        P = np.linalg.qr(rng.standard_normal((15, 2)))[0]
        found.append((P @ B * a) @ C.T + 0.05 * rng.standard_normal((15, 7)))
    return found


@pytest.fixture(scope="module")
def model(slices: list[np.ndarray]) -> PARAFAC2:
    return parafac2(slices, 2, n_init=2)


def test_a_slice_that_settles_late_leaves_the_others_alone(slices, model, rng) -> None:
    noise = [rng.standard_normal((15, 7)) for _ in range(20)]
    # The tolerance is coarse: going on would move the scores that have settled.
    noisy = [X + 0.3 * rng.standard_normal(X.shape) for X in slices]
    together = parafac2_project(model, noisy + noise, tol=1e-5)
    for k, X in enumerate(noisy):
        lone = parafac2_project(model, [X], tol=1e-5)
        np.testing.assert_allclose(lone.A[0], together.A[k], rtol=1e-9)


@pytest.mark.parametrize("missing", [False, True])
def test_a_slice_upside_down_has_turned_projections(slices, model, missing) -> None:
    rng = np.random.default_rng(0)
    given = [X.copy() for X in slices]
    for X in given:
        X[rng.random(X.shape) < 0.1 * missing] = np.nan
    up, down = (parafac2_project(model, [s * X for X in given]) for s in (1.0, -1.0))
    np.testing.assert_allclose(down.A, up.A, rtol=1e-4)
    for X, P, a, fit in zip(given, down.projections, down.A, down.fits, strict=True):
        left = (-X - (P @ model.B * a) @ model.C.T)[~np.isnan(X)]
        error = np.linalg.norm(left) / np.linalg.norm(X[~np.isnan(X)])
        assert error == pytest.approx(1 - fit, rel=1e-6)
        assert error < 0.3


def test_components_that_depend_on_each_other_have_no_third_direction(rng) -> None:
    X = torch.from_numpy(rng.standard_normal((200, 9, 5)))
    N = torch.from_numpy(rng.standard_normal((1, 200, 3, 5)))
    N[:, :, 2] = N[:, :, 0] - N[:, :, 1]
    group = Group(X.mT @ X, X.square().sum(dim=(1, 2)))
    Y, _ = project(group, N, N.new_empty(1, 0))
    U, _, Vh = torch.linalg.svd(X @ N[0].mT, full_matrices=False)
    expected = (U[..., :2] @ Vh[:, :2]).mT @ X
    torch.testing.assert_close(Y[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 2.5},
        {"n_init": 1.5},
        {"n_init": 0},
        {"max_iter": -1},
        {"max_iter": "a"},
        {"tol": "a"},
        {"tol": float("nan")},
        {"ridge": -1.0},
        {"random_state": -1},
        {"random_state": "a"},
        {"mask": 3},
    ],
    ids=str,
)
def test_options_are_named(slices, model, options) -> None:
    name = next(iter(options))
    with pytest.raises(EEGTensorError, match=name):
        parafac2(slices, **{"rank": 2, **options})
    if name in ("tol", "max_iter", "mask"):
        with pytest.raises(EEGTensorError, match=name):
            parafac2_project(model, slices, **options)


def test_scores_need_a_model_and_a_step(slices, model) -> None:
    with pytest.raises(EEGTensorError, match="model is str"):
        parafac2_project("model", slices)
    with pytest.raises(EEGTensorError, match="max_iter=0"):
        parafac2_project(model, slices, max_iter=0)
