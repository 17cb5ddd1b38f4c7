"""Denoising by paired trials: templates found, nothing made of noise."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from scipy.signal import lfilter

from eegtensor import EEGTensorError
from eegtensor.tensor.denoising import apply_paired, denoise_paired, fit_paired
from eegtensor.tensor.denoising._mixture import nonnegative_pair
from eegtensor.tensor.denoising._network import Filter, PairedNetwork, scores
from eegtensor.tensor.denoising._noise import Whitening, unrepeated_noise
from eegtensor.tensor.denoising._pairs import align, halves, held_out, shifted

SHAPE = (4, 80)
QUICK = {"n_networks": 1, "n_rounds": 1, "hidden": 8, "patience": 10}


def responses(
    n: int, jitter: float, spread: float, seed: int, template: int = 0
) -> np.ndarray:
    """Two waves over four channels, of one latency and amplitude a trial."""
    patterns = np.random.default_rng(template).standard_normal((2, 4))
    rng = np.random.default_rng(100 + seed)
    at = np.arange(80) - jitter * rng.standard_normal((n, 1))
    waves = [
        np.exp(-0.5 * ((at - 30) / 6) ** 2) * np.cos(0.5 * (at - 30)),
        np.exp(-0.5 * ((at - 50) / 4) ** 2),
    ]
    X = sum(p[:, None] * w[:, None] for p, w in zip(patterns, waves, strict=True))
    return X * (1.0 + spread * rng.standard_normal((n, 1, 1)))


def background(n: int, rng: np.random.Generator) -> np.ndarray:
    """Slow noise that channels share, of deviation 1."""
    white = rng.standard_normal((n, 4, 280))
    slow = lfilter([1.0], [1.0, -0.9], white)[..., 200:]
    mix = np.array([[1, 0.5, 0, 0], [0, 1, 0.3, 0], [0.4, 0, 1, 0], [0, 0, 0.6, 1]])
    slow = mix @ slow
    return slow / slow.std()


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def scaled_average(X: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The Wiener filter of one waveform: the average, scaled to fit each trial."""
    mean = X.mean(axis=0)
    rest = (X - mean).reshape(len(X), -1)
    # Shrunk: 320 samples, fewer trials.
    S = rest.T @ rest / (len(X) - 1)
    S = 0.9 * S + 0.1 * np.trace(S) / len(S) * np.eye(len(S))
    weight = np.linalg.solve(S, mean.ravel())
    energy = weight @ mean.ravel()
    scale = (new.reshape(len(new), -1) @ weight) / energy
    return scale[:, None, None] * mean


class TestTruth:
    @pytest.mark.parametrize("slow", [False, True], ids=["white", "slow"])
    def test_new_trials_that_vary(self, slow: bool) -> None:
        rng = np.random.default_rng(0)
        S = responses(140, jitter=5.0, spread=0.3, seed=0)
        N = background(140, rng) if slow else rng.standard_normal(S.shape)
        X = S + (0.4 if slow else 0.8) * N
        network = fit_paired(X[:80], n_networks=1, hidden=8, patience=10)
        found = relative(apply_paired(network, X[80:]), S[80:])
        average = relative(X[:80].mean(axis=0) + 0 * S[80:], S[80:])
        wiener = relative(scaled_average(X[:80], X[80:]), S[80:])
        assert found < 0.75 * average
        assert found < 0.75 * wiener
        assert 0 < float(network.gain)

    def test_trials_that_do_not_vary(self) -> None:
        S = responses(60, 0.0, 0.0, 0)
        X = S + background(60, np.random.default_rng(1))
        found = denoise_paired(X, **QUICK)
        assert found.gain > 0
        assert relative(found.X, S) < 0.2 * relative(X, S)
        # Without labels, for each trial alone, nearly what the average of 60 has.
        assert relative(found.X, S) < 1.2 * relative(X.mean(axis=0) + 0 * S, S)

    @pytest.mark.parametrize("seed", range(3))
    def test_nothing_is_made_of_noise(self, seed: int) -> None:
        N = background(40, np.random.default_rng(seed))
        found = denoise_paired(N, random_state=seed, **QUICK)
        assert np.linalg.norm(found.X) < 0.05 * np.linalg.norm(N)

    def test_conditions_need_labels_in_the_fit_alone(self) -> None:
        rng = np.random.default_rng(0)
        y = np.resize(["deviant", "standard"], 160)
        S = np.where(
            (y == "deviant")[:, None, None],
            responses(160, 0.0, 0.1, 0, template=1),
            responses(160, 0.0, 0.1, 0, template=2),
        )
        X = S + 0.7 * background(160, rng)
        network = fit_paired(X[:100], y[:100], **QUICK)
        found = apply_paired(network, X[100:])
        assert relative(found, S[100:]) < 0.5
        own = [relative(found[y[100:] == c].mean(0), S[y == c].mean(0)) for c in set(y)]
        assert max(own) < 0.4


class TestConduct:
    X = 2.0 * responses(24, 2.0, 0.2, 0) + background(24, np.random.default_rng(0))

    def test_same_seed_same_result_in_any_order_and_unit(self) -> None:
        found = denoise_paired(self.X, **QUICK)
        again = denoise_paired(self.X.copy(), **QUICK)
        np.testing.assert_array_equal(found.X, again.X)
        order = np.random.default_rng(1).permutation(24)
        moved = denoise_paired(self.X[order], **QUICK)
        top = np.abs(found.X).max()
        np.testing.assert_allclose(moved.X, found.X[order], atol=1e-8 * top)
        micro = denoise_paired(self.X * 2.0**-20, **QUICK)
        np.testing.assert_allclose(micro.X * 2.0**20, found.X, atol=1e-8 * top)
        other = denoise_paired(self.X, random_state=1, **QUICK)
        assert not np.array_equal(other.X, found.X)

    def test_each_trial_by_itself(self) -> None:
        network = fit_paired(self.X, **QUICK)
        whole = apply_paired(network, self.X)
        assert np.abs(whole).max() > 0
        one = apply_paired(network, self.X[3:4])
        np.testing.assert_allclose(one[0], whole[3], atol=1e-9 * np.abs(whole).max())

    def test_labels_of_any_kind(self) -> None:
        y = np.repeat([3, 5], 12)
        options = QUICK | {"max_epochs": 3}
        want = denoise_paired(self.X, y, **options).X
        for labels in (y.astype(str), y.tolist(), torch.tensor(y)):
            found = denoise_paired(self.X, labels, **options).X
            np.testing.assert_array_equal(found, want)

    def test_network_travels_and_is_exported(self, device: str) -> None:
        X = torch.tensor(self.X, device=device)
        network = fit_paired(X, **QUICK, max_epochs=5)
        network.trust.fill_(1.0)
        want = apply_paired(network, X)
        assert want.device.type == device
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            torch.testing.assert_close(apply_paired(twin, X), want)
        exported = torch.export.export(network, (X,)).module()
        torch.testing.assert_close(exported(X), want)

    @pytest.mark.parametrize(
        ("X", "y", "options", "message"),
        [
            (X, [0] * 23 + [1], {}, "fewer than two trials"),
            (X[:3], None, {}, "No condition has four"),
            (X[:1], None, {}, "fewer than two trials"),
            (X, [0, 1], {}, "y has 2 entries"),
            (np.ones_like(X), None, {}, "identical"),
            (np.full_like(X, np.nan), None, {}, "NaN"),
            (X, None, {"kernel": 8}, "kernel=8 is even"),
            (X, None, {"max_shift": 80}, "max_shift"),
            (X, None, {"patience": 0}, "patience=0"),
            (X[0], None, {}, "shape"),
        ],
    )
    def test_mistakes(self, X, y, options, message) -> None:
        with pytest.raises(EEGTensorError, match=message):
            fit_paired(X, y, **options)

    def test_another_window(self) -> None:
        network = fit_paired(self.X, **QUICK, max_epochs=1)
        with pytest.raises(EEGTensorError, match="the fit saw"):
            apply_paired(network, self.X[..., :40])


class TestParts:
    def test_whitened_noise_is_white(self) -> None:
        N = background(400, np.random.default_rng(0))
        white = unrepeated_noise(torch.tensor(N), torch.arange(400) % 2)
        Z = white.forward(torch.tensor(N)).numpy()
        np.testing.assert_allclose(
            np.einsum("ict,idt->cd", Z, Z) / (400 * 80), np.eye(4), atol=0.05
        )
        lags = np.einsum("ict,ics->ts", Z, Z) / (400 * 4)
        np.testing.assert_allclose(lags, np.eye(80), atol=0.2)
        np.testing.assert_allclose(white.back(torch.tensor(Z)), N, atol=1e-9)

    def test_noise_is_what_differs_within_conditions(self) -> None:
        N = torch.tensor(background(400, np.random.default_rng(0)))
        codes = torch.arange(400) % 2
        shared = torch.tensor(responses(2, 5.0, 1.0, 0))[codes]
        with_signal, without = (unrepeated_noise(x, codes) for x in (N + shared, N))
        torch.testing.assert_close(with_signal.space, without.space)
        torch.testing.assert_close(with_signal.time, without.time)

    def test_what_is_known_of_each_trial_is_no_noise(self) -> None:
        rng = np.random.default_rng(5)
        codes = torch.zeros(200, dtype=torch.int64)
        N = torch.tensor(rng.standard_normal((200, 3, 20)))
        own = torch.tensor(5 * rng.standard_normal((200, 3, 1))) * torch.ones(20)
        without = unrepeated_noise(N, codes)
        known = unrepeated_noise(N + own, codes, own)
        torch.testing.assert_close(known, without)
        unknown = unrepeated_noise(N + own, codes)
        assert unknown.space_back.norm() > 2 * without.space_back.norm()

    def test_shifts_are_found(self) -> None:
        rng = np.random.default_rng(0)
        template = torch.tensor(responses(1, 0.0, 0.0, 0))
        lags = torch.tensor(rng.integers(-6, 7, 30))
        F = shifted(template.expand(30, -1, -1), -lags)
        found = align(F, torch.zeros(30, dtype=torch.int64), 10)
        offset = found - lags
        assert (offset == offset[0]).all()
        assert abs(float(found.double().mean())) <= 0.5
        codes = torch.arange(30) % 3
        assert not align(torch.zeros_like(F), codes, 10).any()

    def test_halves_and_held_out(self) -> None:
        rng = np.random.default_rng(0)
        codes = np.repeat([0, 1, 2, 3], [2, 3, 4, 41])
        for _ in range(20):
            counts = np.bincount(2 * codes + halves(codes, rng)).reshape(4, 2)
            assert (abs(np.diff(counts)) <= 1).all()
            out = np.bincount(codes, weights=held_out(codes, 0.25, rng))
            np.testing.assert_array_equal(out, [0, 0, 2, 10])

    def test_amplitude_is_free_of_the_noise_that_the_filter_saw(self) -> None:
        filt = Filter(4, 6, 5, (1, 2)).double()
        filt.start(torch.Generator().manual_seed(0))
        torch.nn.init.normal_(
            filt.leave.weight, std=0.3, generator=torch.Generator().manual_seed(1)
        )
        eye4, eye = torch.eye(4).double(), torch.eye(20).double()
        random = torch.Generator().manual_seed(2)
        signs = torch.randint(0, 2, (2000, 4, 20), generator=random)
        network = PairedNetwork(
            [filt],
            torch.ones(1).double(),
            2.0 * signs.double() - 1.0,
            torch.randn(2, 4, 20, generator=random, dtype=torch.float64),
            Whitening(eye4, eye4, eye, eye),
        )
        network.mix.copy_(torch.tensor([0.7, 0.4]))
        Z = torch.randn(2, 4, 20, generator=random, dtype=torch.float64)
        with torch.no_grad():
            F = network.mixed(Z)
            owed = network.divergence(Z, network.mixed)
            found, error = scores(Z, F, owed)
        jacobian = torch.func.jacrev(lambda z: network.mixed(z[None])[0])
        trace = torch.stack(
            [jacobian(z).reshape(80, 80).diagonal().sum() for z in Z]
        ).detach()
        torch.testing.assert_close(owed, trace, rtol=0.05, atol=0.2)
        energy = F.square().sum(dim=(1, 2))
        wanted = ((Z * F).sum(dim=(1, 2)) - trace) / energy
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.02)
        torch.testing.assert_close(error, 1.0 / energy)

    def test_averages_are_weighted_by_their_likelihood(self) -> None:
        rng = np.random.default_rng(0)
        M = rng.standard_normal((3, 2, 5))
        Z = M[0] + rng.standard_normal((4, 2, 5))
        share = np.array([0.5, 0.3, 0.2])
        eye2, eye5 = torch.eye(2).double(), torch.eye(5).double()
        network = PairedNetwork(
            [Filter(2, 1, 1, (1,)).double()],
            torch.ones(1).double(),
            torch.ones(1, 2, 5).double(),
            torch.tensor(M),
            Whitening(eye2, eye2, eye5, eye5),
        )
        network.log_share.copy_(torch.tensor(share).log())
        density = share * np.exp(-0.5 * ((Z[:, None] - M) ** 2).sum(axis=(2, 3)))
        density /= density.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(
            network.recalled(torch.tensor(Z)), np.einsum("ik,kct->ict", density, M)
        )

    @pytest.mark.parametrize(
        "target", [(1.0, 2.0), (-1.0, 2.0), (3.0, 0.1), (1.0, 0.0)]
    )
    def test_weights_of_the_mixture(self, target) -> None:
        gram = np.array([[2.0, 1.2], [1.2, 1.5]])
        root = np.linalg.cholesky(gram).T
        want = nnls(root, np.linalg.solve(root.T, target))[0]
        found = nonnegative_pair([2.0, 1.2, 1.5], list(target))
        np.testing.assert_allclose(found, want, atol=1e-12)

    def test_filter_follows_gain_and_starts_at_zero(self) -> None:
        filt = Filter(3, 5, 5, (1, 2))
        filt.start(torch.Generator().manual_seed(0))
        Z = torch.randn(2, 3, 30)
        assert not filt(Z).any()
        torch.nn.init.ones_(filt.leave.weight)
        torch.testing.assert_close(filt(4.0 * Z), 4.0 * filt(Z))
