"""Delay embedding by Fourier transforms against the embedded tensors themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eegtensor import EEGTensorError
from eegtensor.tensor.completion import complete, mdt_tucker, multichannel_ssa
from eegtensor.tensor.completion._toeplitz import (
    Filter,
    block_toeplitz,
    cross_lags,
    diagonal_means,
)


def hankel(X: NDArray, windows: tuple[int, ...]) -> NDArray:
    """The circular embedding itself, shape (windows..., places...)."""
    out = np.empty((*windows, *X.shape))
    for delay in itertools.product(*map(range, windows)):
        out[delay] = np.roll(X, [-d for d in delay], axis=range(X.ndim))
    return out


def average(H: NDArray, windows: tuple[int, ...]) -> NDArray:
    n = len(windows)
    parts = [
        np.roll(H[delay], delay, axis=range(n))
        for delay in itertools.product(*map(range, windows))
    ]
    return np.mean(parts, axis=0)


def project(H: NDArray, factors: list[NDArray], skip: int = -1) -> NDArray:
    for n, U in enumerate(factors):
        if n != skip:
            H = np.moveaxis(np.tensordot(U @ U.T, H, (1, n)), 0, n)
    return H


def explicit(
    X: NDArray,
    seen: NDArray,
    windows: tuple[int, ...],
    ranks: list[int] | None,
    max_iter: int,
    tol: float = 0.0,
) -> tuple[NDArray, list[float], list[int]]:
    """Block descent on the embedded tensor; ranks rise as in the paper if None."""
    Z = np.where(seen, X, X[seen].mean())
    size = list(ranks) if ranks else [1] * len(windows)
    factors = [np.eye(w) for w in windows]
    costs: list[float] = []
    since = 0
    for turn in range(max_iter):
        H = hankel(Z, windows)
        cut = []
        for n, w in enumerate(windows):
            rest = np.moveaxis(project(H, factors, skip=n), n, 0).reshape(w, -1)
            U, s, _ = np.linalg.svd(rest, full_matrices=False)
            factors[n] = U[:, : size[n]]
            cut.append((s[size[n] :] ** 2).sum())
        model = project(H, factors)
        costs.append(((H - model) ** 2).sum() / np.prod(windows) / (X[seen] ** 2).sum())
        Z = np.where(seen, X, average(model, windows))
        since += 1
        if ranks or turn == max_iter - 1:
            continue
        if since >= 3 and costs[-2] - costs[-1] <= tol * costs[-1]:
            free = [
                c if r < w else -1 for c, r, w in zip(cut, size, windows, strict=True)
            ]
            size[int(np.argmax(free))] += 1
            since = 0
    return Z, costs, size


SHAPES = [((40,), (7,)), ((4, 30), (1, 6)), ((11, 12), (3, 4)), ((3, 9, 10), (1, 3, 4))]


@pytest.mark.parametrize(("shape", "windows"), SHAPES)
@pytest.mark.parametrize("rising", [False, True])
def test_equals_the_embedded_tensor(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    windows: tuple[int, ...],
    rising: bool,
) -> None:
    X = rng.standard_normal(shape).cumsum(axis=-1)
    seen = rng.random(shape) > 0.4
    ranks = None if rising else [min(2, w) for w in windows]
    # Not so many that every rank is full, which ends it.
    turns = 14 if rising else 25
    Z, costs, size = explicit(X, seen, windows, ranks, turns, tol=0.05)
    found = mdt_tucker(
        X,
        seen,
        windows,
        ranks=ranks,
        max_iter=turns,
        tol=0.05 if rising else 0.0,
        held_out=0.0,
        reflect=False,
    )
    assert len(found.history) == turns and list(found.ranks) == size
    assert len(found.changes) == (sum(size) - len(size) if rising else 0)
    np.testing.assert_allclose(found.values, Z, rtol=0, atol=1e-9 * np.abs(Z).max())
    np.testing.assert_allclose(found.history, costs, rtol=0, atol=1e-9)
    assert (found.values[seen] == X[seen]).all()
    for U, w, r in zip(found.factors, windows, found.ranks, strict=True):
        assert (U is None) == (w == 1)
        if U is not None:
            np.testing.assert_allclose(U.T @ U, np.eye(r), atol=1e-10)


def waves(n: int) -> NDArray:
    t = np.arange(n)
    return np.stack([np.sin(0.31 * t + p) + 0.5 * np.cos(0.83 * t) for p in range(3)])


def test_cost_never_rises_at_one_rank() -> None:
    X = waves(300) + 0.1 * np.random.default_rng(1).standard_normal((3, 300))
    seen = np.random.default_rng(2).random(X.shape) > 0.5
    found = mdt_tucker(X, seen, 24, held_out=0.0, max_iter=200)
    assert len(found.changes) > 3
    assert (np.diff(found.history) <= 1e-12).all()


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_unit_does_not_matter(unit: float) -> None:
    X, seen = waves(200), np.random.default_rng(0).random((3, 200)) > 0.5
    one, other = mdt_tucker(X, seen, 16), mdt_tucker(unit * X, seen, 16)
    assert one.ranks == other.ranks and np.isfinite(one.error)
    np.testing.assert_allclose(other.values / unit, one.values, atol=1e-8)
    one_, other_ = multichannel_ssa(X, seen), multichannel_ssa(unit * X, seen)
    np.testing.assert_allclose(other_.values / unit, one_.values, atol=1e-8)


def test_waves_come_back_and_ends_do_not_meet() -> None:
    X = waves(300)
    seen = np.random.default_rng(3).random(X.shape) > 0.4
    seen[:, :4] = False
    found = mdt_tucker(X, seen, 24, ranks=4, max_iter=400, tol=1e-9)
    inner = ~seen & (np.abs(np.arange(300) - 150) < 110)
    assert np.abs(found.values - X)[inner].max() < 0.2
    # A trend has ends that a circle would join.
    X, seen = np.linspace(-1, 1, 60)[None], np.ones((1, 60), bool)
    seen[:, :3] = False
    options = {"window": 8, "ranks": 2, "max_iter": 200}
    joined, apart = (mdt_tucker(X, seen, reflect=r, **options) for r in (False, True))
    off = [np.linalg.norm(found.values - X) for found in (joined, apart)]
    assert off[0] > 2 * off[1]


def test_arrays_of_every_kind(device: str) -> None:
    X, seen = waves(120), np.random.default_rng(0).random((3, 120)) > 0.3
    plain = mdt_tucker(X, seen, 8)
    nan = mdt_tucker(np.where(seen, X, np.nan), None, (1, 8))
    np.testing.assert_array_equal(plain.values, nan.values)
    tensor = torch.from_numpy(X).to(device, torch.float32)
    for call in (
        lambda m: mdt_tucker(tensor, m, 8),
        lambda m: multichannel_ssa(tensor, m),
    ):
        found = call(torch.from_numpy(seen).to(device)).values
        assert found.dtype == torch.float32 and found.device.type == device
        assert (found[torch.from_numpy(seen)] == tensor[torch.from_numpy(seen)]).all()


def block_hankel(X: NDArray, w: int) -> NDArray:
    """Rows are windows of all channels of all trials, shape (places, C w)."""
    at = (np.arange(X.shape[2])[:, None] + np.arange(w)) % X.shape[2]
    return X[:, :, at].transpose(0, 2, 1, 3).reshape(-1, X.shape[1] * w)


def unblock(H: NDArray, shape: tuple[int, ...], w: int) -> NDArray:
    parts = H.reshape(shape[0], shape[2], shape[1], w).transpose(0, 2, 1, 3)
    return np.mean([np.roll(parts[..., d], d, axis=2) for d in range(w)], axis=0)


@pytest.mark.parametrize(("n_times", "w"), [(37, 1), (50, 5), (700, 9), (9, 9)])
def test_lags_and_filter_are_the_block_hankel_matrix(
    rng: np.random.Generator, n_times: int, w: int
) -> None:
    X = rng.standard_normal((2, 3, n_times))
    H, tensor = block_hankel(X, w), torch.from_numpy(X)
    gram = block_toeplitz(cross_lags(tensor, w)).numpy()
    np.testing.assert_allclose(gram, H.T @ H, atol=1e-10)
    P = rng.standard_normal((3 * w, 3 * w))
    P += P.T
    found = Filter(diagonal_means(torch.from_numpy(P), 3))(tensor).numpy()
    np.testing.assert_allclose(found, unblock(H @ P, X.shape, w), atol=1e-11)


@pytest.mark.parametrize("shrink", [False, True])
def test_joint_form_equals_the_block_hankel_matrix(
    rng: np.random.Generator, shrink: bool
) -> None:
    X = rng.standard_normal((2, 3, 60)).cumsum(axis=2)
    seen = rng.random(X.shape) > 0.3
    w, rank = 4, 5
    count = seen.sum(axis=(0, 2))
    mean = ((X * seen).sum(axis=(0, 2)) / count)[:, None]
    scale = np.sqrt((((X - mean) * seen) ** 2).sum(axis=(0, 2)) / count)[:, None]
    pad = [(0, 0), (0, 0), (w - 1, w - 1)]
    known = np.pad(np.where(seen, (X - mean) / scale, 0.0), pad, mode="reflect")
    lost = ~np.pad(seen, pad, mode="reflect")
    z = known.copy()
    for _ in range(6):
        U, s, _ = np.linalg.svd(block_hankel(z, w).T, full_matrices=False)
        energy = s**2
        weights = 1 - energy[rank:].mean() / energy[:rank] if shrink else np.ones(rank)
        P = (U[:, :rank] * weights) @ U[:, :rank].T
        # The lost cells' equations, solved as they stand.
        unit = np.eye(lost.sum())
        columns = np.zeros((lost.sum(), *z.shape))
        columns[:, lost] = unit
        apply = [unblock(block_hankel(c, w) @ P, z.shape, w)[lost] for c in columns]
        right = unblock(block_hankel(known, w) @ P, z.shape, w)[lost]
        z[lost] = np.linalg.solve(unit - np.stack(apply, axis=1), right)
    expected = z[..., w - 1 : 1 - w] * scale + mean
    found = multichannel_ssa(
        X, seen, window=w, rank=rank, shrink=shrink, max_iter=6, n_steps=400, tol=0.0
    )
    size = np.abs(expected).max()
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-9 * size)
    assert found.response.shape == (2 * w - 1, 3, 3) and len(found.history) == 6
    if not shrink:
        assert (np.diff(found.history) <= 1e-12).all()


def echoes(rng: np.random.Generator, n_times: int = 1200) -> tuple[NDArray, NDArray]:
    """One rhythm that channels carry at different delays; runs lost in each."""
    noise = rng.standard_normal(n_times + 20)
    source = np.convolve(noise, np.sin(0.6 * np.arange(20)) * np.hanning(20), "same")
    X = np.stack([source[d : d + n_times] for d in (0, 2, 4, 6)])
    X += 0.02 * X.std() * rng.standard_normal(X.shape)
    seen = np.ones(X.shape, bool)
    for k, start in enumerate(range(50, n_times - 100, 80)):
        seen[k % 4, start : start + 60] = False
    return X, seen


def nrmse(X: NDArray, found: NDArray, seen: NDArray) -> float:
    return float(np.linalg.norm((found - X)[~seen]) / np.linalg.norm(X[~seen]))


def test_only_the_joint_form_restores_a_channel_from_others(
    rng: np.random.Generator,
) -> None:
    X, seen = echoes(rng)
    joint = multichannel_ssa(X, seen)
    alone = mdt_tucker(X, seen, 12)
    assert nrmse(X, joint.values, seen) < 0.15 < 0.8 < nrmse(X, alone.values, seen)
    assert 0 < joint.error < 0.2


def test_the_router_takes_it_for_trials(rng: np.random.Generator) -> None:
    X, seen = echoes(rng)
    X, seen = (a.reshape(4, 3, 400).swapaxes(0, 1) for a in (X, seen))
    found = complete(1e-5 * X, seen, method="mdt")
    assert nrmse(1e-5 * X, found.X, seen) < 0.3
    assert (found.X[seen] == 1e-5 * X[seen]).all() and (found.std[~seen] > 0).all()
    assert found.table[0].method.startswith("mdt")
    again = complete(1e-5 * X, seen, method="mdt")
    np.testing.assert_array_equal(found.X, again.X)


def test_mistakes_are_named() -> None:
    X = waves(50)
    with pytest.raises(EEGTensorError, match=r"window=\(1, 60\) for an array"):
        mdt_tucker(X, None, 60)
    with pytest.raises(EEGTensorError, match="for an array of shape"):
        mdt_tucker(X, None, (1, 1, 4))
    with pytest.raises(EEGTensorError, match="for 2 modes"):
        mdt_tucker(X, None, 8, ranks=[1, 2, 3])
    with pytest.raises(EEGTensorError, match="longer than the 50 samples"):
        multichannel_ssa(X, window=51)
    X[1] = np.nan
    with pytest.raises(EEGTensorError, match="Channels 1 hold no data"):
        multichannel_ssa(X)
    whole = mdt_tucker(waves(50), None, 8)
    np.testing.assert_array_equal(whole.values, waves(50))
