"""NumPy in, NumPy out; tensors in, tensors out; nothing is written to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from _spd import spd

from eegtensor import geometry

ONE_MATRIX = {
    "logm": geometry.logm,
    "expm": geometry.expm,
    "sqrtm": geometry.sqrtm,
    "inv_sqrtm": geometry.inv_sqrtm,
    "powm": lambda X: geometry.powm(X, 0.3),
    "rectify": lambda X: geometry.rectify(X, 0.1),
    "symmetrize": geometry.symmetrize,
    "upper_vector": geometry.upper_vector,
    "distance": lambda X: geometry.distance(X, X[:1]),
    "geodesic": lambda X: geometry.geodesic(X, X[:1], 0.4),
    "exp_map": lambda X: geometry.exp_map(X, X),
    "log_map": lambda X: geometry.log_map(X, X[:1]),
    "transport": lambda X: geometry.transport(X, X[:1], X),
    "inner": lambda X: geometry.inner(X, X, X),
    "norm": lambda X: geometry.norm(X, X),
}


@pytest.mark.parametrize("name", ONE_MATRIX)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_kind_and_dtype_are_kept(
    rng: np.random.Generator, name: str, dtype: type
) -> None:
    X = spd(rng, 4, 5).astype(dtype)
    before = X.copy()
    out = ONE_MATRIX[name](X)
    assert isinstance(out, np.ndarray) and out.dtype == dtype
    leaf = torch.from_numpy(X).requires_grad_()
    tensor = ONE_MATRIX[name](leaf)
    assert tensor.requires_grad and tensor.dtype == leaf.dtype
    np.testing.assert_allclose(tensor.detach().numpy(), out, rtol=2e-4, atol=1e-6)
    np.testing.assert_array_equal(X, before)


def test_read_only_memory_maps(rng: np.random.Generator, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", spd(rng, 6, 4))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    copy = np.array(X)
    for view, same in ((X, copy), (X[::-1], copy[::-1]), (X[1::2], copy[1::2])):
        np.testing.assert_array_equal(geometry.logm(view), geometry.logm(same))
        np.testing.assert_array_equal(
            geometry.frechet_mean(view), geometry.frechet_mean(same)
        )
    np.save(tmp_path / "x.npy", rng.standard_normal((3, 4, 50)).astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        geometry.covariances(x), geometry.covariances(np.array(x))
    )


def test_arrays_join_tensors(rng: np.random.Generator, device: str) -> None:
    X = spd(rng, 3, 4)
    out = geometry.distance(torch.from_numpy(X[0]).to(device), X)
    assert out.device.type == device
    np.testing.assert_allclose(out.cpu(), geometry.distance(X[0], X), atol=1e-12)


def test_byte_order_and_integers(rng: np.random.Generator) -> None:
    X = spd(rng, 3, 4)
    np.testing.assert_array_equal(geometry.logm(X.astype(">f8")), geometry.logm(X))
    whole = np.array([[2, 1], [1, 3]])
    np.testing.assert_array_equal(
        geometry.logm(whole), geometry.logm(whole.astype(float))
    )


def test_public_names() -> None:
    for name in geometry.__all__:
        assert getattr(geometry, name).__doc__
    with pytest.raises(AttributeError, match=r"eegtensor\.geometry"):
        geometry.riemann  # noqa: B018


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_complex_numbers_are_refused_with_a_way_out(kind) -> None:
    from eegtensor import EEGTensorError
    from eegtensor.tensor import cp
    from eegtensor.tensor.completion import complete

    X = kind(np.ones((4, 5)) + 1j)
    for function in (complete, lambda X: cp(X, 2)):
        with pytest.raises(EEGTensorError, match=r"magnitude.*imaginary"):
            function(X)


def test_masked_cells_are_not_read(rng: np.random.Generator) -> None:
    from eegtensor.tensor import tucker

    X = rng.standard_normal((6, 5, 4))
    lost = rng.random(X.shape) < 0.2
    masked = np.ma.masked_array(np.where(lost, 1e9, X), lost)
    want = tucker(np.where(lost, np.nan, X), 2)
    np.testing.assert_array_equal(tucker(masked, 2).core, want.core)
    whole = np.ma.masked_array(X, False)
    np.testing.assert_array_equal(tucker(whole, 2).core, tucker(X, 2).core)
