"""Non-local low rank over time and frequency: the frame, planted groups, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from eegtensor import EEGTensorError
from eegtensor.tensor.denoising import (
    _patches,
    denoise_nonlocal,
    noise_level,
    noise_spectrum,
)
from eegtensor.tensor.denoising._lapped import analyse, synthesise

TF = {"domain": "time-frequency"}


def oscillations(n_times: int, n_channels: int = 8, seed: int = 0) -> np.ndarray:
    """Two rhythms that come and go, each with its pattern; deviation 1."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_times)
    X = np.zeros((n_channels, n_times))
    for frequency in (0.08, 0.16):
        pattern = rng.standard_normal(n_channels)
        for centre in rng.integers(0, n_times, n_times // 80):
            envelope = np.exp(-0.5 * ((t - centre) / 20.0) ** 2)
            phase = 2 * np.pi * (frequency * t + rng.random())
            X += pattern[:, None] * envelope * np.cos(phase)
    return X / X.std()


def coloured(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Slow noise, each channel its own."""
    white = rng.standard_normal((*shape[:-1], shape[-1] + 100))
    return np.sqrt(1 - 0.81) * lfilter([1.0], [1.0, -0.9], white)[..., 100:]


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


class TestFrame:
    @pytest.mark.parametrize("n_times", [5, 96, 129])
    @pytest.mark.parametrize(("n_bins", "hop"), [(8, 8), (16, 8), (16, 4), (9, 6)])
    def test_exact_and_tight(self, n_times: int, n_bins: int, hop: int) -> None:
        X = torch.randn(3, 2, n_times, dtype=torch.float64)
        C = analyse(X, n_bins, hop)
        back = synthesise(C, hop, n_times)
        np.testing.assert_allclose(back, X, atol=1e-13)
        energy = C.abs().square().sum() / X.square().sum()
        assert float(energy) == pytest.approx(2 * n_bins / hop, rel=1e-12)

    def test_coefficients_are_the_windowed_transform(self) -> None:
        # The sum by its definition, window by window.
        x = np.random.default_rng(0).standard_normal(50)
        M, hop = 4, 2
        found = analyse(torch.tensor(x), M, hop).numpy()
        n = np.arange(2 * M)
        window = np.sin(np.pi * (n + 0.5) / (2 * M))
        padded = np.concatenate([np.zeros(2 * M - hop), x, np.zeros(2 * M)])
        for frame in (0, 3, found.shape[1] - 1):
            part = window * padded[frame * hop : frame * hop + 2 * M]
            for m in range(M):
                angle = np.pi * (n + 0.5 + M / 2) * (m + 0.5) / M
                want = np.sqrt(2 / M) * (part * np.exp(-1j * angle)).sum()
                assert found[m, frame] == pytest.approx(want, abs=1e-12)

    def test_real_parts_are_an_orthonormal_basis(self) -> None:
        # Time-domain alias cancellation: white noise stays white in each part.
        eye = torch.eye(64, dtype=torch.float64)
        C = analyse(eye, 8, 8).flatten(1)
        for part in (C.real, C.imag):
            np.testing.assert_allclose(
                (part @ part.T)[8:-8, 8:-8], eye[8:-8, 8:-8], atol=1e-12
            )

    def test_nearest_signal(self) -> None:
        # Coefficients that no signal has: least squares by a dense solver.
        rng = np.random.default_rng(1)
        C = rng.standard_normal((4, 15)) + 1j * rng.standard_normal((4, 15))
        n = 24
        dense = analyse(torch.eye(n, dtype=torch.float64), 4, 2).flatten(1).numpy().T
        assert dense.shape == (C.size, n)
        real = np.concatenate([dense.real, dense.imag])
        goal = np.concatenate([C.real.ravel(), C.imag.ravel()])
        want = np.linalg.lstsq(real, goal, rcond=None)[0]
        found = synthesise(torch.tensor(C), 2, n)
        np.testing.assert_allclose(found, want, atol=1e-12)


class TestGroups:
    def planted(self, n: int = 40, rows: int = 12, seed: int = 0):
        rng = np.random.default_rng(seed)
        u = rng.standard_normal(rows) + 1j * rng.standard_normal(rows)
        v = (1 + 0.3 * rng.random(n)) * np.exp(2j * np.pi * rng.random(n))
        N = rng.standard_normal((rows, n)) + 1j * rng.standard_normal((rows, n))
        return np.outer(u, v), N

    def denoised(
        self, Y: np.ndarray, sigma: float, n_similar: int = 40
    ) -> tuple[np.ndarray, float]:
        form = _patches.Form(1, 1, 0, n_similar)
        columns = torch.tensor(Y)
        search = _patches.over_time(Y.shape[1], 1, form, columns)
        level = torch.tensor(sigma, dtype=torch.float64)
        found, rank = _patches.denoise_groups(
            columns, search, level, 0.9, same_time=False
        )
        return found.numpy(), rank

    def test_a_planted_group_of_any_phases_comes_back(self) -> None:
        S, N = self.planted()
        exact, rank = self.denoised(S, 0.0)
        np.testing.assert_allclose(exact, S, atol=1e-12)
        found, rank = self.denoised(S + 0.2 * N, 0.2)
        # What the best matrix of rank 1 has, by a complex decomposition.
        U, s, Vt = np.linalg.svd(S + 0.2 * N, full_matrices=False)
        best = relative(s[0] * np.outer(U[:, 0], Vt[0]), S)
        assert relative(found, S) < 1.5 * best < 0.6 * relative(S + 0.2 * N, S)
        # One phase for all: their mean, and one component for their amplitudes.
        assert rank <= 2

    def test_phases_of_the_input_do_not_matter(self) -> None:
        S, N = self.planted()
        Y = S + 0.5 * N
        turn = np.exp(2j * np.pi * np.random.default_rng(2).random(Y.shape[1]))
        plain, turned = (self.denoised(Z, 0.5, 15)[0] for Z in (Y, Y * turn))
        np.testing.assert_allclose(turned, plain * turn, atol=1e-10)

    def test_noise_alone_is_taken_away(self) -> None:
        N = np.random.default_rng(0).standard_normal((6, 2000))
        found = denoise_nonlocal(N, sigma=1.0, **TF)
        assert np.linalg.norm(found.X) < 0.3 * np.linalg.norm(N)


class TestDenoising:
    def test_rhythms_of_a_recording(self, monkeypatch) -> None:
        S = oscillations(1600)
        X = S + np.random.default_rng(1).standard_normal(S.shape)
        waveforms = relative(denoise_nonlocal(X, sigma=1.0).X, S)
        found = denoise_nonlocal(X, sigma=1.0, **TF)
        assert relative(found.X, S) < 0.95 * waveforms < 0.3 * relative(X, S)
        assert found.ranks[-1] == 2
        # In parts, none of which holds all that is alike.
        monkeypatch.setattr(_patches, "CHUNK", 1 << 14)
        parts = denoise_nonlocal(X, sigma=1.0, **TF).X
        assert not np.array_equal(parts, found.X)
        assert relative(parts, S) < 1.1 * relative(found.X, S)

    def test_trials(self) -> None:
        S = oscillations(1200).reshape(8, 10, 120).swapaxes(0, 1)
        X = S + np.random.default_rng(1).standard_normal(S.shape)
        found = denoise_nonlocal(X, **TF)
        assert relative(found.X, S) < 0.45 * relative(X, S)
        np.testing.assert_allclose(found.sigma, 1.0, rtol=0.1)

    def test_rounds_help(self) -> None:
        S = oscillations(1200)
        X = S + np.random.default_rng(1).standard_normal(S.shape)
        errors = [relative(denoise_nonlocal(X, n_iter=k, **TF).X, S) for k in (1, 3)]
        assert errors[1] < 0.97 * errors[0]

    def test_noise_that_is_not_white(self) -> None:
        S = oscillations(1200)
        X = S + coloured(S.shape, np.random.default_rng(1))
        found = denoise_nonlocal(X, noise="unshared", **TF)
        assert found.sigma.shape == (8, 16)
        assert relative(found.X, S) < 0.5 * relative(X, S)
        assert relative(found.X, S) < 0.6 * relative(denoise_nonlocal(X, **TF).X, S)
        # Nearly as good as if the spectrum were known.
        angle = np.pi * np.arange(0.5, 16) / 16
        known = np.sqrt(0.19) / abs(1 - 0.9 * np.exp(-1j * angle))
        known = denoise_nonlocal(X, sigma=np.tile(known, (8, 1)), **TF).X
        assert relative(found.X, S) < 1.35 * relative(known, S)

    def test_background_is_noise_where_trials_repeat(self) -> None:
        rng = np.random.default_rng(0)
        wave = np.exp(-0.5 * ((np.arange(96) - 45) / 6) ** 2)
        amplitude = 1.0 + 0.3 * rng.standard_normal((20, 1, 1))
        S = amplitude * rng.standard_normal((6, 1)) * wave
        X = S + coloured(S.shape, rng)
        found = denoise_nonlocal(X, noise="unrepeated", **TF).X
        assert relative(found, S) < relative(X.mean(axis=0) + 0 * S, S)
        assert relative(found, S) < 0.5 * relative(denoise_nonlocal(X, **TF).X, S)

    @pytest.mark.parametrize("shape", [(6, 400), (5, 6, 100)])
    def test_no_noise_nothing_taken(self, shape: tuple[int, ...]) -> None:
        X = 1e-6 * np.random.default_rng(0).standard_normal(shape)
        np.testing.assert_array_equal(denoise_nonlocal(X, sigma=0.0, **TF).X, X)
        found = denoise_nonlocal(X, sigma=1e-18, **TF).X
        np.testing.assert_allclose(found, X, atol=1e-9 * np.abs(X).max())
        some = denoise_nonlocal(X, sigma=[0, 0, 0, 0, 1e-6, 1e-6], **TF).X
        np.testing.assert_array_equal(some[..., :4, :], X[..., :4, :])
        assert not np.array_equal(some[..., 4:, :], X[..., 4:, :])

    @pytest.mark.parametrize("domain", ["time", "time-frequency"])
    def test_what_is_equal_in_many_places(self, domain: str) -> None:
        # More equal patches than a group has: each must still be in one.
        rng = np.random.default_rng(0)
        X = rng.standard_normal((8, 1200))
        X[:, 300:900] = 0.0
        found = denoise_nonlocal(X, sigma=1.0, domain=domain).X
        assert np.abs(found[:, 400:800]).max() < 0.3
        assert np.linalg.norm(found) < 0.5 * np.linalg.norm(X)
        trials = rng.standard_normal((1, 6, 48)).repeat(60, axis=0)
        found = denoise_nonlocal(trials, sigma=1.0, domain=domain, window=0).X
        np.testing.assert_allclose(found, found[:1] + 0 * found, atol=1e-9)

    def test_noise_of_one_band_leaves_the_others(self) -> None:
        X = oscillations(1000)
        sigma = np.zeros((8, 16))
        sigma[:, 12:] = 0.5
        taken = X - denoise_nonlocal(X, sigma=sigma, **TF).X
        spectrum = np.abs(np.fft.rfft(taken)) ** 2
        assert spectrum[:, : 500 * 9 // 16].sum() < 0.15 * spectrum.sum()

    @pytest.mark.parametrize("noise", ["white", "unshared", "unrepeated"])
    def test_units_do_not_matter(self, noise: str) -> None:
        S = oscillations(800).reshape(8, 8, 100).swapaxes(0, 1)
        X = S + 0.5 * np.random.default_rng(1).standard_normal(S.shape)
        volts = denoise_nonlocal(X, noise=noise, **TF)
        micro = denoise_nonlocal(1e-6 * X, noise=noise, **TF)
        scale = 1e-6 * np.abs(volts.X).max()
        np.testing.assert_allclose(micro.X, 1e-6 * volts.X, atol=1e-8 * scale)
        np.testing.assert_allclose(micro.sigma, 1e-6 * volts.sigma)

    def test_tensors_on_any_device(self, device: str) -> None:
        X = oscillations(400) + 0.3 * np.random.default_rng(0).standard_normal((8, 400))
        options = {"noise": "unshared", "patch": 16, **TF}
        found = denoise_nonlocal(
            torch.tensor(X, device=device, dtype=torch.float32), **options
        )
        assert found.X.device.type == device
        assert found.X.dtype == torch.float64
        want = denoise_nonlocal(X.astype(np.float32), **options).X
        np.testing.assert_allclose(found.X.cpu(), want, atol=1e-6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"domain": "wavelet"}, "domain='wavelet'"),
            ({"domain": "time", "noise": "unshared"}, "spectrum"),
            ({"patch": 15}, "patch=15"),
            ({"patch": 64}, "patch=64"),
            ({"patch": 16, "step": 3}, "step=3"),
            ({"patch": 16, "step": 16}, "step=16"),
            ({"sigma": np.ones((2, 15))}, "sigma"),
            ({"noise": "unshared"}, "3 channels"),
            ({"noise": "unshared", "sigma": 1.0}, "no sigma"),
        ],
    )
    def test_mistakes(self, options: dict, message: str) -> None:
        X = np.random.default_rng(0).standard_normal((2, 40))
        with pytest.raises(EEGTensorError, match=message):
            denoise_nonlocal(X, **{**TF, **options})


class TestUnshared:
    def test_spectrum_of_known_noise(self) -> None:
        rng = np.random.default_rng(0)
        shared = rng.standard_normal((12, 3)) @ coloured((3, 8000), rng)
        level = np.linspace(0.3, 1.2, 12)
        noise = level[:, None] * coloured((12, 8000), rng)
        C = analyse(torch.tensor(noise), 16, 8)
        want = 1e-6 * (0.5 * C.abs().square().mean(dim=-1)).sqrt().numpy()
        found = noise_spectrum(1e-6 * (3.0 * shared + noise))
        np.testing.assert_allclose(found, want, rtol=0.2)
        np.testing.assert_allclose((found / want).mean(), 1.0, rtol=0.03)
        # Of white noise alone it is what the highest frequencies tell.
        white = rng.standard_normal((12, 8000))
        both = noise_spectrum(white).mean(axis=1)
        np.testing.assert_allclose(both, noise_level(white), rtol=0.05)

    def test_trials_are_a_recording_in_parts(self) -> None:
        rng = np.random.default_rng(0)
        X = rng.standard_normal((6, 2)) @ rng.standard_normal((2, 4000))
        X = X + 0.5 * rng.standard_normal(X.shape)
        trials = X.reshape(6, 20, 200).swapaxes(0, 1)
        np.testing.assert_allclose(noise_spectrum(trials), noise_spectrum(X), rtol=0.05)

    def test_silent_channels(self) -> None:
        rng = np.random.default_rng(0)
        X = rng.standard_normal((5, 800))
        X[2] = 0.0
        found = noise_spectrum(X)
        assert (found[2] == 0.0).all() and (found[[0, 1, 3, 4]] > 0.5).all()
        assert not noise_spectrum(0.0 * X).any()

    def test_few_samples_are_allowed_for(self) -> None:
        # Regressions on eleven channels leave too little of 24 coefficients.
        rng = np.random.default_rng(0)
        power = [
            (noise_spectrum(rng.standard_normal((12, 192))) ** 2).mean()
            for _ in range(5)
        ]
        assert 0.8 < np.mean(power) < 1.1
