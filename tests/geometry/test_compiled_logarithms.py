"""What the kernel does in one go equals the same step by step in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from eegtensor._check import EEGTensorError
from eegtensor.geometry import _batched_eigh, _cholesky, logm, normalization, spectral
from eegtensor.geometry._batched_eigh import use_kernel
from eegtensor.geometry._groups import Groups, look_up
from eegtensor.geometry.normalization import rectify_where_needed, whitened_log

DTYPES = (torch.float32, torch.float64)
B = 53


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_spectrum(values: Tensor) -> Tensor:
    U = torch.linalg.qr(random(B, len(values), len(values)))[0]
    X = (U * values) @ U.mT
    return 0.5 * (X + X.mT)


def cases(n: int) -> dict[str, tuple[Tensor, float]]:
    """Matrices, and how much of a relative error is amplified by the logarithm."""
    eye = torch.eye(n).double()
    spread = torch.linspace(0.5, 2, n).double()
    near = eye + with_spectrum(1e-4 * spread)
    mixed = torch.where((torch.arange(B) % 3 == 0)[:, None, None], near, 2.0 * eye)
    return {
        "plain": (with_spectrum(spread), 1.0),
        "cond 100": (with_spectrum(torch.logspace(-2, 0, n).double()), 30.0),
        "volts squared": (1e-12 * with_spectrum(spread), 1.0),
        "huge": (1e12 * with_spectrum(spread), 1.0),
        "twice the identity": ((2.0 * eye).expand(B, n, n), 1.0),
        "repeated": (with_spectrum((torch.arange(n) // 2 + 2.0).double()), 1.0),
        "near the identity": (near, 1.0),
        "some near the identity": (mixed, 1.0),
    }


def groups(codes: Tensor) -> Groups:
    return look_up(codes, int(codes.max()) + 1)[1]


def relative(found: Tensor, expected: Tensor) -> float:
    apart = torch.linalg.matrix_norm(found.double() - expected.double())
    return float((apart / torch.linalg.matrix_norm(expected.double())).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8, 20, 33, 64])
def test_logarithms_are_as_exact_as_step_by_step(n: int, dtype: torch.dtype) -> None:
    for name, (X, amplified) in cases(n).items():
        # The values in this dtype: what is lost before is not the logarithm's.
        X = X.to(dtype)
        with use_kernel(False):
            expected = logm(X.double())
            torchs = relative(logm(X), expected)
        found = logm(X)
        assert found.dtype == dtype and torch.equal(found, found.mT), name
        # In float64 what is expected has as much of an error itself.
        bound = 2.0 * (n + 8.0) * amplified * torch.finfo(dtype).eps
        assert relative(found, expected) <= max(3.0 * torchs, bound), name


def test_near_the_identity_digits_are_kept() -> None:
    E = 1e-9 * with_spectrum(torch.linspace(1, 2, 6).double())
    X = torch.eye(6).double() + E
    # log(I + E) = E - E^2 / 2 + ..., with E as I + E has it.
    error = logm(X) - (X - torch.eye(6) - E @ E / 2)
    assert error.abs().max() < 20 * 2.2e-16 * 2e-9


@pytest.mark.parametrize("dtype", DTYPES)
def test_rank_is_raised_to_the_same_floor(dtype: torch.dtype) -> None:
    s = torch.tensor([0, 0, 0, 1, 1, 2, 3]).double()
    U = torch.linalg.qr(random(7, 7))[0]
    X = ((U * s) @ U.mT).expand(B, 7, 7)
    X = (0.5 * (X + X.mT)).to(dtype)
    with use_kernel(False):
        expected = logm(X)
    # Zero eigenvalues are rounding, below the floor: a few percent of a log of -30.
    torch.testing.assert_close(logm(X), expected, rtol=0, atol=1e-3)
    low = torch.linalg.eigvalsh(logm(X).double())[:, :3]
    floor = 2.0 * 7**0.5 * torch.finfo(dtype).eps * 3.0
    assert (low.exp() / floor - 1.0).abs().max() < 0.02


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["in turn", "sorted", "random", "one", "all", "last"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 20, 33])
def test_whitened_logarithms_equal_torch(
    n: int, order: str, dtype: torch.dtype
) -> None:
    codes = torch.arange(B) % 5
    if order == "sorted":
        codes = codes.sort().values
    if order == "random":
        codes = torch.randint(5, (B,), generator=torch.Generator().manual_seed(1))
    if order == "last":
        codes = torch.arange(B) % 4 * (torch.arange(B) < 16)
    if order in ("one", "all"):
        codes = torch.arange(B) if order == "all" else torch.zeros(B).long()
    X = with_spectrum(torch.linspace(0.5, 2, n).double())
    # Not symmetric: a congruence by W is none by its transpose.
    W = torch.eye(n) + 0.3 * random(int(codes.max()) + 1, n, n) / n**0.5
    exact = W[codes] @ X @ W[codes].mT
    with use_kernel(False):
        expected = logm(exact)
    found = whitened_log(W.to(dtype), X.to(dtype), groups(codes))
    assert torch.equal(found, found.mT)
    assert relative(found, expected) < (10 * n + 30) * torch.finfo(dtype).eps


@pytest.mark.parametrize("threads", [1, 3])
def test_a_matrix_does_not_depend_on_its_company(threads: int) -> None:
    X = with_spectrum(torch.linspace(0.5, 2, 20).double()).repeat(6, 1, 1)
    W = torch.eye(20) + 0.02 * random(6, 20, 20)
    codes = torch.arange(len(X)) % 6
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        together = whitened_log(W, X, groups(codes))
    finally:
        torch.set_num_threads(before)
    turned = whitened_log(W, X.flip(0), groups(codes.flip(0)))
    few = whitened_log(W, X[40:59], groups(codes[40:59]))
    assert torch.equal(together, turned.flip(0))
    assert torch.equal(together[40:59], few)


def test_gradients_do_not_go_that_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("A gradient is wanted")

    X = with_spectrum(torch.linspace(0.5, 2, 6).double())
    W, codes = torch.eye(6).double()[None], torch.zeros(B).long()
    plain = whitened_log(W, X, groups(codes))
    monkeypatch.setattr(spectral, "_logarithm", refuse)
    for wanting in ((W.clone().requires_grad_(), X), (W, X.clone().requires_grad_())):
        found = whitened_log(*wanting, groups(codes))
        assert found.grad_fn is not None
        torch.testing.assert_close(found, plain)
    assert logm(X.clone().requires_grad_()).grad_fn is not None
    for call in (logm, lambda X: whitened_log(W, X, groups(codes))):
        with pytest.raises(AssertionError, match="gradient is wanted"):
            call(X)
        with torch.no_grad(), pytest.raises(AssertionError, match="is wanted"):
            call(X.clone().requires_grad_())


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_errors_are_those_of_torch(bad: float, kernel: bool) -> None:
    X = with_spectrum(torch.linspace(0.5, 2, 6).double())
    broken = X.clone()
    broken[7, 2, 1] = broken[7, 1, 2] = bad
    zero = X.clone()
    zero[7] = 0.0
    W, codes = torch.eye(6).double()[None], torch.zeros(B).long()
    with use_kernel(kernel):
        for call in (logm, lambda X: whitened_log(W, X, groups(codes))):
            # What is not finite in an infinite matrix depends on the congruence.
            with pytest.raises(EEGTensorError, match="hold NaN or infinity"):
                call(broken)
            for negative in (zero, -X):
                with pytest.raises(EEGTensorError, match="no positive eigenvalue"):
                    call(negative)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_harms_nobody(dtype: torch.dtype) -> None:
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    for n in (5, 7, 20):
        X = with_spectrum(torch.linspace(0.5, 2, n).double()).to(dtype).numpy()
        clean, broken = np.empty_like(X), np.empty_like(X)
        largest = np.empty(B, X.dtype)
        left, lefts = X[:3].copy(), np.arange(B) % 3
        assert kernel.logarithms(X, largest, clean, 1e-6, left, lefts)
        others = np.arange(B) % 4 != 0
        for value in (np.nan, np.inf):
            Y = X.copy()
            Y[~others] = value
            assert kernel.logarithms(Y, largest, broken, 1e-6, left, lefts)
            assert np.isnan(largest[~others]).all()
            assert np.array_equal(broken[others], clean[others])


def test_nothing_is_written_beyond_the_arrays() -> None:
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    for n in (1, 2, 3, 4, 5, 6, 9, 20):
        X = with_spectrum(torch.linspace(0.5, 2, n).double()).numpy()
        left, lefts = X[:2].copy(), np.arange(B) % 2
        out, largest = np.full((3 * B, n, n), 7.0), np.full(3 * B, 7.0)
        answers = np.full(3 * B, 7, np.uint8)
        inside = slice(B, 2 * B)
        assert kernel.logarithms(X, largest[inside], out[inside], 1e-9, left, lefts)
        kernel.are_definite(X, answers[inside].view(bool), 0.1 / n)
        assert answers[inside].all()
        for array in (out, largest, answers):
            assert (array[:B] == 7).all() and (array[2 * B :] == 7).all()
        assert (largest[inside] > 0).all()


def test_arrays_that_do_not_fit_are_refused() -> None:
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    X, largest, out = np.ones((4, 3, 3)), np.empty(4), np.empty((4, 3, 3))
    places = np.zeros(4, np.int64)
    for arrays in (
        (X, np.empty(3), out, 0.1),
        (X, largest, np.empty((4, 3, 3), np.float32), 0.1),
        (X, largest, out, 0.1, np.ones((1, 2, 2)), places),
        (X, largest, out, 0.1, X, places[:3]),
        (X, largest, out, 0.1, X, places.astype(np.int32)),
    ):
        with pytest.raises(EEGTensorError, match="does not fit"):
            kernel.logarithms(*arrays)
    for wrong in (places - 1, places + 4):
        with pytest.raises(EEGTensorError, match="of 4 matrices"):
            kernel.logarithms(X, largest, out, 0.1, X, wrong)
    with pytest.raises(EEGTensorError, match="does not fit"):
        kernel.are_definite(X, np.empty(3, bool), 0.1)


def test_where_the_kernel_gives_up_torch_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = pytest.importorskip("eegtensor.geometry._eigh_kernel")
    X = with_spectrum(torch.linspace(0.5, 2, 6).double())
    expected = logm(X)
    monkeypatch.setattr(kernel, "STEPS_PER_VALUE", 0)
    assert _batched_eigh.logarithm(X, 1e-15) is None
    torch.testing.assert_close(logm(X), expected)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", DTYPES)
def test_definite_is_what_the_eigenvalues_say(dtype: torch.dtype, unit: float) -> None:
    for n in (1, 2, 3, 5, 8, 20, 33):
        X = random(B, n, 2 * n + 1)
        X = unit * (X @ X.mT)
        X[::5] -= 0.3 * unit * torch.eye(n) * n
        X[3], X[4, n - 1, 0], X[9] = 0.0, torch.nan, torch.inf
        X = X.to(dtype)
        share = 0.1 / n
        trace = X.diagonal(dim1=-2, dim2=-1).sum(-1)
        shifted = X.double() - share * trace.double()[:, None, None] * torch.eye(n)
        finite = X.tril().isfinite().all(-1).all(-1)
        least = torch.linalg.eigvalsh(torch.where(finite[:, None, None], shifted, 0.0))
        expected = finite & (least[:, 0] > 0)
        assert 0 < expected.sum() < B
        for on in (True, False):
            with use_kernel(on):
                assert (_batched_eigh.definite(X, share) is not None) == on
                assert torch.equal(_cholesky.definite(X, share), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rectified_alike_with_and_without_the_kernel(dtype: torch.dtype) -> None:
    X = with_spectrum(torch.logspace(-6, 0, 8).double()).to(dtype)
    X[::2] = with_spectrum(torch.linspace(0.5, 2, 8).double()).to(dtype)[::2]
    found = rectify_where_needed(X, 1e-3)
    with use_kernel(False):
        expected = rectify_where_needed(X, 1e-3)
    assert torch.equal(found[::2], X[::2]) and not torch.equal(found[1], X[1])
    torch.testing.assert_close(found, expected)


def test_no_matrices_at_all() -> None:
    nothing = torch.empty(0, 5, 5, dtype=torch.float64)
    assert logm(nothing).shape == (0, 5, 5)
    W = torch.eye(5).double()[None]
    none = groups(torch.zeros(1).long())._replace(slot=torch.empty(0).long())
    assert whitened_log(W, nothing, none).shape == (0, 5, 5)
    assert normalization.rectify_where_needed(nothing, 1e-4).shape == (0, 5, 5)
