"""Non-local low rank: closed forms, white noise, what repetition promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.signal import lfilter

from eegtensor import EEGTensorError
from eegtensor.tensor.denoising import (
    _patches,
    denoise_nonlocal,
    noise_level,
    shrink_singular,
)
from eegtensor.tensor.denoising._lowrank import low_rank


def responses(
    n: int = 40, jitter: float = 3.0, spread: float = 0.3, seed: int = 0
) -> np.ndarray:
    """Three components over six channels, each with its own latency and amplitude."""
    rng = np.random.default_rng(seed)
    t = np.arange(96)
    X = np.zeros((n, 6, 96))
    for centre, width in ((25, 4), (45, 6), (68, 10)):
        pattern = rng.standard_normal(6)
        at = t - centre - jitter * rng.standard_normal((n, 1))
        wave = np.exp(-0.5 * (at / width) ** 2)
        wave *= 1.0 + spread * rng.standard_normal((n, 1))
        X += pattern[:, None] * wave[:, None]
    return X


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def background(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Slow noise that channels share, of deviation 1."""
    white = rng.standard_normal((*shape[:-1], shape[-1] + 200))
    slow = lfilter([1.0], [1.0, -0.95], white)[..., 200:]
    mix = np.eye(shape[-2]) + 0.3 * rng.standard_normal((shape[-2], shape[-2]))
    slow = mix @ slow
    return slow / slow.std()


@pytest.mark.parametrize("flat", [0.0, 1e-3, 1e3])
def test_channels_without_noise_stand_aside(flat: float) -> None:
    rng = np.random.default_rng(4)
    X = responses(12) + 0.3 * rng.standard_normal((12, 6, 96))
    alone = denoise_nonlocal(X)
    beside = denoise_nonlocal(np.concatenate([X, np.full((12, 1, 96), flat)], axis=1))
    np.testing.assert_array_equal(beside.X[:, :6], alone.X)
    assert (beside.X[:, 6] == flat).all() and beside.sigma[6] == 0.0


class TestClosedForm:
    @pytest.mark.parametrize("weight", [0.3, 2.0])
    @pytest.mark.parametrize("eps", [0.0, 0.1])
    def test_singular_values_are_a_minimum(self, weight: float, eps: float) -> None:
        s = np.linspace(0.1, 6.0, 40)
        found = shrink_singular(s, weight, eps)
        for value, x in zip(s, found, strict=True):

            def cost(x, value=value):
                return 0.5 * (value - x) ** 2 + weight * np.log(x + eps)

            if (value + eps) ** 2 < 4 * weight:
                # Nothing stops the descent on its way to zero.
                grid = np.linspace(1e-6, value, 200)
                assert x == 0.0
                assert (np.diff(cost(grid)) > 0).all()
            elif x > 0.0:
                near = minimize(
                    lambda v: cost(v[0]), [value], bounds=[(1e-9, None)], tol=1e-14
                )
                assert x == pytest.approx(near.x[0], abs=2e-3)
                assert cost(x) <= near.fun + 1e-9

    def test_matrix_is_a_minimum_of_the_weighted_nuclear_norm(self) -> None:
        rng = np.random.default_rng(0)
        Y = rng.standard_normal((4, 3)) + 2.0 * np.outer([1, 2, 0, 1], [1, -1, 2])
        U, s, Vt = np.linalg.svd(Y, full_matrices=False)
        C = 0.2 * s[-1] ** 2
        kept = shrink_singular(s, C)
        X = (U * kept) @ Vt
        weights = C / kept

        def cost(v):
            now = v.reshape(4, 3)
            values = np.linalg.svd(now, compute_uv=False)
            return 0.5 * ((Y - now) ** 2).sum() + weights @ values

        found = minimize(cost, Y.ravel(), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(found.x.reshape(4, 3), X, atol=1e-4)

    @pytest.mark.parametrize("shape", [(7, 5, 12), (7, 12, 5)])
    def test_groups_at_once_are_groups_one_by_one(self, shape) -> None:
        rng = np.random.default_rng(1)
        G = rng.standard_normal(shape)
        G += 6.0 * rng.standard_normal(shape[:-1])[..., None] * rng.random(shape[-1])
        d, n = shape[1:]
        found, ranks = low_rank(
            torch.tensor(G), torch.tensor(0.9, dtype=torch.float64), 1.1
        )
        for g, x, rank in zip(G, found.numpy(), ranks.numpy(), strict=True):
            mean = g.mean(axis=1, keepdims=True)
            U, s, Vt = np.linalg.svd(g - mean, full_matrices=False)
            edge = 1.1 * 0.9 * (np.sqrt(d) + np.sqrt(n - 1))
            kept = shrink_singular(s, edge**2 / 4)
            np.testing.assert_allclose(x, mean + (U * kept) @ Vt, atol=1e-10)
            assert rank == (kept > 0).sum()
        assert ranks.max() > 0


class TestNoise:
    def test_level_of_known_noise(self) -> None:
        # Alpha and slow waves of unit power at 250 Hz, and noise of a third to three.
        rng = np.random.default_rng(0)
        t = np.arange(2000) / 250.0
        phase = 2 * np.pi * rng.random((5, 1))
        signal = np.sin(2 * np.pi * 10 * t + phase) + 3 * np.sin(2 * np.pi * 2 * t)
        level = np.array([0.3, 0.5, 1.0, 2.0, 3.0])
        X = 1e-6 * (signal + level[:, None] * rng.standard_normal(signal.shape))
        np.testing.assert_allclose(noise_level(X), 1e-6 * level, rtol=0.1)
        folded = X.reshape(5, 8, 250).swapaxes(0, 1)
        np.testing.assert_allclose(noise_level(folded), 1e-6 * level, rtol=0.1)

    def test_spikes_are_not_noise(self) -> None:
        X = np.random.default_rng(0).standard_normal((1, 4, 1000))
        X[..., ::50] += 100.0
        np.testing.assert_allclose(noise_level(X), 1.0, rtol=0.2)

    def test_eigen_channels_keep_white_noise_white(self) -> None:
        # Without shrinkage nothing is left but the projection on eigen-channels.
        rng = np.random.default_rng(0)
        N = rng.standard_normal((50, 6, 96))
        found = denoise_nonlocal(N, sigma=1.0, rank=2, strength=0.0, n_iter=1).X
        flat = N.swapaxes(0, 1).reshape(6, -1)
        A = np.linalg.eigh(flat @ flat.T)[1][:, -2:]
        np.testing.assert_allclose(found, (A @ A.T) @ N, atol=1e-10)
        np.testing.assert_allclose(noise_level(A.T @ N), 1.0, rtol=0.05)
        assert (found**2).mean() == pytest.approx(2 / 6, rel=0.1)

    def test_noise_alone_is_taken_away(self) -> None:
        N = np.random.default_rng(0).standard_normal((40, 6, 96))
        assert np.linalg.norm(denoise_nonlocal(N).X) < 0.25 * np.linalg.norm(N)


class TestDenoising:
    def test_equal_trials_gain_what_their_average_gains(self) -> None:
        S = np.repeat(responses(1), 30, axis=0)
        rng = np.random.default_rng(1)
        X = S + 0.5 * rng.standard_normal(S.shape)
        found = denoise_nonlocal(X, sigma=0.5, n_similar=30, window=0, n_iter=1).X
        assert ((found - S) ** 2).mean() < 1.05 * 0.25 / 30

    @pytest.mark.parametrize(("level", "wanted"), [(0.3, 0.2), (1.0, 0.45)])
    def test_trials_that_vary(self, level: float, wanted: float) -> None:
        S = responses()
        X = S + level * np.random.default_rng(1).standard_normal(S.shape)
        found = denoise_nonlocal(X)
        assert relative(found.X, S) < wanted
        assert relative(found.X, S) < 0.8 * relative(X.mean(axis=0) + 0 * S, S)
        np.testing.assert_allclose(found.sigma, level, rtol=0.1)
        assert len(found.ranks) == 3
        assert found.ranks[-1] < 6
        assert found.group_rank > 0

    def test_rounds_help(self) -> None:
        S = responses()
        X = S + 0.7 * np.random.default_rng(1).standard_normal(S.shape)
        errors = [relative(denoise_nonlocal(X, n_iter=k).X, S) for k in (1, 3)]
        assert errors[1] < 0.95 * errors[0]

    def test_background_is_noise_where_trials_repeat(self) -> None:
        S = responses(60)
        X = S + 0.7 * background(S.shape, np.random.default_rng(1))
        found = denoise_nonlocal(X, noise="unrepeated")
        average = relative(X.mean(axis=0) + 0 * S, S)
        assert relative(found.X, S) < 0.95 * average
        assert relative(denoise_nonlocal(X).X, S) > 2 * average
        np.testing.assert_allclose(found.sigma, (X - S).std(axis=(0, 2)), rtol=0.2)

    def test_a_continuous_recording(self, monkeypatch) -> None:
        S = np.concatenate(responses(30), axis=-1)[:, :2805]
        X = S + 0.5 * np.random.default_rng(1).standard_normal(S.shape)
        found = denoise_nonlocal(X).X
        assert relative(found, S) < 0.5 * relative(X, S)
        # In many parts, none of which holds all that is alike.
        monkeypatch.setattr(_patches, "CHUNK", 1 << 16)
        parts = denoise_nonlocal(X).X
        assert relative(parts, S) < 0.6 * relative(X, S)

    def test_no_noise_nothing_taken(self) -> None:
        X = 1e-6 * responses(12)
        np.testing.assert_array_equal(denoise_nonlocal(X, sigma=0.0).X, X)
        found = denoise_nonlocal(X, sigma=1e-18).X
        np.testing.assert_allclose(found, X, atol=1e-9 * np.abs(X).max())
        some = denoise_nonlocal(X, sigma=[0, 0, 0, 0, 1e-7, 1e-7]).X
        np.testing.assert_array_equal(some[:, :4], X[:, :4])
        assert not np.array_equal(some[:, 4:], X[:, 4:])

    @pytest.mark.parametrize("noise", ["white", "unrepeated"])
    def test_units_do_not_matter(self, noise: str) -> None:
        S = responses(16)
        X = S + 0.5 * np.random.default_rng(1).standard_normal(S.shape)
        volts = denoise_nonlocal(X, noise=noise)
        micro = denoise_nonlocal(1e-6 * X, noise=noise)
        scale = 1e-6 * np.abs(volts.X).max()
        np.testing.assert_allclose(micro.X, 1e-6 * volts.X, atol=1e-8 * scale)
        np.testing.assert_allclose(micro.sigma, 1e-6 * volts.sigma)

    def test_tensors_on_any_device(self, device: str) -> None:
        X = responses(10) + 0.3 * np.random.default_rng(0).standard_normal((10, 6, 96))
        found = denoise_nonlocal(torch.tensor(X, device=device, dtype=torch.float32))
        assert found.X.device.type == device
        assert found.X.dtype == torch.float64
        want = denoise_nonlocal(X.astype(np.float32)).X
        np.testing.assert_allclose(found.X.cpu(), want, atol=1e-6)

    @pytest.mark.parametrize(
        ("X", "options", "message"),
        [
            (np.zeros((3, 2, 8)), {}, "patch=16"),
            (np.zeros((3, 2, 32)), {"patch": 4, "step": 5}, "step"),
            (np.zeros((2, 32)), {"noise": "unrepeated"}, "two trials"),
            (np.zeros((1, 2, 32)), {"noise": "unrepeated"}, "two trials"),
            (np.ones((3, 2, 32)), {"noise": "unrepeated"}, "identical"),
            (np.full((3, 2, 32), np.nan), {}, "NaN"),
            (np.zeros((3, 2, 32)), {"sigma": [1.0, 2.0, 3.0]}, "sigma"),
            (np.zeros((3, 2, 32)), {"sigma": -1.0}, "sigma"),
            (np.zeros((3, 2, 32)), {"feedback": 1.0}, "feedback"),
            (np.zeros((3, 2, 32)), {"window": 2.5}, "window=2.5"),
            (np.zeros((3, 2, 32)), {"strength": np.nan}, "strength"),
            (np.zeros((3, 2, 32)), {"noise": "pink"}, "noise='pink'"),
            (np.zeros(32), {}, "shape"),
            (np.ones((3, 2, 32)) * 1j, {}, "complex"),
            (np.ones((3, 2, 32), object), {}, "object"),
            (np.full((3, 2, 32), 1e200), {}, "another unit"),
            (np.full((3, 2, 32), 1e-200), {"noise": "unrepeated"}, "another unit"),
        ],
    )
    def test_mistakes(self, X, options, message) -> None:
        with pytest.raises(EEGTensorError, match=message):
            denoise_nonlocal(X, **options)
