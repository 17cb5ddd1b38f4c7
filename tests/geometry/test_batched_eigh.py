"""The compiled kernel and LAPACK: one accuracy, whatever the matrices."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import geoopt
import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from eegtensor._check import EEGTensorError
from eegtensor.geometry import _batched_eigh as module
from eegtensor.geometry._batched_eigh import (
    definite,
    eigh,
    eigvalsh,
    kernel_available,
    use_kernel,
)

DTYPES = (torch.float32, torch.float64)


def test_the_kernel_is_there() -> None:
    # The environment of the tests has numba: without it half of this file says nothing.
    assert kernel_available()


@pytest.fixture(params=[True, False], ids=["kernel", "lapack"])
def either(request: pytest.FixtureRequest) -> Iterator[bool]:
    with use_kernel(request.param):
        yield request.param


def rotations(b: int, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(b, n, n, generator=generator).double())[0]


def with_spectrum(values: Tensor, b: int = 37) -> Tensor:
    U = rotations(b, len(values))
    X = (U * values) @ U.mT
    return 0.5 * (X + X.mT)


def cases(n: int) -> dict[str, Tensor]:
    eye = torch.eye(n).double()
    return {
        "random": with_spectrum(torch.linspace(-1, 1, n).double()),
        "identity": eye.expand(37, n, n),
        "diagonal": torch.diag(torch.linspace(3, 1, n).double()).expand(37, n, n),
        "deficient": with_spectrum((torch.arange(n) >= n - n // 3 - 1).double()),
        "cond 1e12": with_spectrum(torch.logspace(-12, 0, n).double()),
        "repeated": with_spectrum((torch.arange(n) // 2 + 1.0).double()),
        "volts squared": with_spectrum(torch.logspace(-13, -10, n).double()),
        "huge": with_spectrum(torch.logspace(10, 12, n).double()),
        "zero": torch.zeros(37, n, n).double(),
    }


def errors(X: Tensor, values: Tensor, vectors: Tensor) -> tuple[float, float]:
    """Residual and loss of orthogonality, in machine epsilons of the norm."""
    wide, s, U = X.double(), values.double(), vectors.double()
    size = torch.linalg.matrix_norm(wide, 2).clamp_min(torch.finfo(X.dtype).tiny)
    residual = ((U * s[..., None, :]) @ U.mT - wide).abs().amax(dim=(-1, -2)) / size
    turn = (U.mT @ U - torch.eye(U.shape[-1]).double()).abs().max()
    eps = torch.finfo(X.dtype).eps
    return float(residual.max()) / eps, float(turn) / eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 20, 32, 33, 64])
def test_as_accurate_as_lapack(n: int, dtype: torch.dtype, either: bool) -> None:
    for name, X in cases(n).items():
        X = X.to(dtype)
        values, vectors = eigh(X)
        assert (values.diff(dim=-1) >= 0).all(), name
        ours, theirs = errors(X, values, vectors), errors(X, *torch.linalg.eigh(X))
        for mine, peer in zip(ours, theirs, strict=True):
            # The bound that LAPACK's own method has; it is often well below it.
            assert mine <= max(3.0 * peer, n + 8.0), (name, ours, theirs)
        exact = torch.linalg.eigvalsh(X.double())
        size = exact.abs().amax(dim=-1, keepdim=True).clamp_min(1e-300)
        bound = (4.0 + n) * torch.finfo(dtype).eps
        for found in (values, eigvalsh(X)):
            assert ((found.double() - exact).abs() / size).max() <= bound, name


@pytest.mark.parametrize("batch", [(), (0,), (1,), (5,), (17,), (2, 3), (70,)])
def test_any_leading_axes(batch: tuple[int, ...], either: bool) -> None:
    X = torch.randn(*batch, 6, 6, dtype=torch.float64)
    X = X + X.mT
    values, vectors = eigh(X)
    assert values.shape == (*batch, 6) and vectors.shape == (*batch, 6, 6)
    torch.testing.assert_close((vectors * values[..., None, :]) @ vectors.mT, X)
    torch.testing.assert_close(eigvalsh(X), values)


def test_the_lower_triangle_is_read_whatever_the_memory(either: bool) -> None:
    X = torch.randn(40, 9, 9, dtype=torch.float64)
    expected = torch.linalg.eigvalsh(X)
    torch.testing.assert_close(eigh(X)[0], expected)
    turned = torch.randn(9, 9, 40, dtype=torch.float64).permute(2, 0, 1)
    assert not turned.is_contiguous()
    torch.testing.assert_close(eigh(turned)[0], torch.linalg.eigvalsh(turned))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_matrix_does_not_depend_on_its_company(dtype: torch.dtype) -> None:
    X = with_spectrum(torch.linspace(0.1, 2, 12).double(), b=50).to(dtype)
    together = eigh(X)
    again = eigh(X.flip(0))
    for part, other in zip(together, again, strict=True):
        assert torch.equal(part, other.flip(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_nothing(dtype: torch.dtype, either: bool) -> None:
    X = with_spectrum(torch.linspace(0.1, 2, 20).double(), b=301).to(dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = eigh(X)
        torch.set_num_threads(3)
        many = eigh(X)
    finally:
        torch.set_num_threads(before)
    assert module._pool is not None
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_nan_and_harms_nobody(bad: float, either: bool) -> None:
    X = with_spectrum(torch.linspace(0.1, 2, 7).double(), b=20)
    expected = torch.linalg.eigvalsh(X)
    X[3, 2, 1] = X[3, 1, 2] = bad
    values = eigh(X)[0]
    assert values[3].isnan().all()
    others = torch.arange(20) != 3
    torch.testing.assert_close(values[others], expected[others])


def test_what_is_not_finite_writes_nowhere_else() -> None:
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    for dtype in (np.float32, np.float64):
        X = np.full((20, 9, 9), np.nan, dtype)
        X[::2] = np.inf
        values = np.full((60, 9), 7.0, dtype)
        vectors = np.full((60, 9, 9), 7.0, dtype)
        assert kernel.decompose(X, values[20:40], vectors[20:40])
        assert np.isnan(values[20:40]).all()
        for array in (values, vectors):
            assert (array[:20] == 7.0).all() and (array[40:] == 7.0).all()


def test_the_kernel_refuses_arrays_that_do_not_fit() -> None:
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    X = np.ones((4, 3, 3))
    for values, vectors in (
        (np.empty((3, 3)), np.empty((4, 3, 3))),
        (np.empty((4, 3)), np.empty((3, 3, 3))),
        (np.empty((4, 3), np.float32), None),
        (np.empty((3, 4)).T, None),
    ):
        with pytest.raises(EEGTensorError, match="does not fit"):
            kernel.decompose(X, values, vectors)


def test_where_the_kernel_gives_up_lapack_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    X = with_spectrum(torch.linspace(0.1, 2, 9).double())
    expected = eigh(X)[0]
    monkeypatch.setattr(kernel, "STEPS_PER_VALUE", 0)
    assert not kernel.decompose(X.numpy(), np.empty((37, 9)), None)
    torch.testing.assert_close(eigh(X)[0], expected)
    diagonal = torch.diag_embed(torch.rand(37, 9).double())
    assert kernel.decompose(diagonal.numpy(), np.empty((37, 9)), None)


def test_each_dtype_is_cached_in_a_file_of_its_own() -> None:
    # Two processes that wrote one file could leave code there that crashes.
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    names = set()
    for dtype in DTYPES:
        eigh(torch.eye(8, dtype=dtype).expand(8, 8, 8))
        assert definite(torch.eye(8, dtype=dtype).expand(8, 8, 8), 0.01) is not None
        for function in (kernel._decompose, kernel._find_definite):
            driver = kernel._compiled(
                function, torch.zeros(0, dtype=dtype).numpy().dtype
            )
            names.add(driver.py_func.__qualname__)
            assert len(driver.signatures) == 1
    assert len(names) == 4


def test_tensors_of_every_kind(either: bool) -> None:
    X = with_spectrum(torch.linspace(0.1, 2, 8).double())
    values, _ = eigh(X)
    with torch.inference_mode():
        assert torch.equal(eigh(X.clone())[0], values)
    learned = torch.nn.Parameter(X)
    on_manifold = geoopt.ManifoldParameter(X, geoopt.SymmetricPositiveDefinite())
    for tensor in (learned, on_manifold):
        for found in eigh(tensor):
            assert type(found) is Tensor and not found.requires_grad
    lone = eigh(on_manifold[0])[0]
    assert type(lone) is Tensor and not lone.requires_grad
    several = torch.func.vmap(lambda x: eigh(x)[0])(X)
    torch.testing.assert_close(several, values)
    with FakeTensorMode() as mode:
        found = eigh(mode.from_tensor(X))
        assert [tuple(t.shape) for t in found] == [(37, 8), (37, 8, 8)]


def test_traced_code_calls_torch() -> None:
    class Values(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return eigvalsh(x)

    X = with_spectrum(torch.linspace(0.1, 2, 8).double())
    exported = torch.export.export(Values(), (X,))
    torch.testing.assert_close(exported.module()(X), eigvalsh(X))


def test_helping_threads_leave_the_number_of_threads(either: bool) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        eigh(torch.eye(20).expand(400, 20, 20))
        assert torch.get_num_threads() == 3
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [3]
        # LAPACK on a helping thread must not start threads in its turn.
        asked = module._helpers(2).submit(torch.get_num_threads)
        assert asked.result() == 1
    finally:
        torch.set_num_threads(before)


def test_a_fork_has_threads_of_its_own() -> None:
    code = """
import os, torch
from eegtensor.geometry._batched_eigh import eigh
torch.set_num_threads(2)
X = torch.randn(400, 20, 20).double(); X = X + X.mT
first = eigh(X)[0]
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(eigh(X)[0], first) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == 0


def test_the_environment_switches_the_kernel_off() -> None:
    code = """
from eegtensor.geometry._batched_eigh import kernel_available
assert not kernel_available()
"""
    environment = {**os.environ, "EEGTENSOR_KERNEL": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_nothing_is_written_beyond_the_arrays() -> None:
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    rng = np.random.default_rng(0)
    guard = 64
    for n in (1, 2, 3, 5, 8, 13, 20, 33):
        for total in (1, 4, 9, 16, 17, 33):
            A = rng.standard_normal((total, n, n))
            A = A + A.transpose(0, 2, 1)
            values = np.full(total * n + 2 * guard, 7.0)
            vectors = np.full(total * n * n + 2 * guard, 7.0)
            inside = values[guard:-guard].reshape(total, n)
            assert kernel.decompose(
                A, inside, vectors[guard:-guard].reshape(total, n, n)
            )
            for array in (values, vectors):
                assert (array[:guard] == 7.0).all() and (array[-guard:] == 7.0).all()
            np.testing.assert_allclose(inside, np.linalg.eigvalsh(A), atol=1e-12)
