"""Audits: what is planted is found, noise is not, and each probe loses one thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.trust.explain import (
    audit_shortcuts,
    diff_roar,
    mask_units,
    null_mass,
    probe,
    smooth_grad,
)
from eegtensor.trust.explain.probes import PROBES, flat_amplitudes, random_phases
from eegtensor.trust.explain.shortcuts import stump_accuracy

# Shortcuts


def test_a_planted_shortcut_is_found_among_64_by_500():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 64, 500)), np.arange(200) % 3
    X[y == 2, 17, 250] = 4.0
    X[y == 0, 40, 3] += 2.5
    audit = audit_shortcuts(1e-6 * X, y)
    assert {(s.channel, s.sample) for s in audit.shortcuts} == {(17, 250), (40, 3)}
    assert audit.shortcuts[0].accuracy >= audit.shortcuts[1].accuracy
    assert audit.p_value < 1e-4 and audit.accuracy.shape == (64, 500)


def test_stumps_are_scikit_learns():
    rng = np.random.default_rng(0)
    F, y = rng.standard_normal((90, 12)).round(1), np.arange(90) % 3
    F[y == 1, 3] += 1.0
    folds = [(np.arange(30, 90), np.arange(30)), (np.arange(60), np.arange(60, 90))]
    got = stump_accuracy(F, y, folds, 3)
    for j in (3,):
        right = 0
        for train, test in folds:
            best = 0
            for t in np.unique(F[train, j]):
                low = F[train, j] <= t
                n = sum(
                    np.bincount(y[train][side], minlength=3).max()
                    for side in (low, ~low)
                )
                best = max(best, n)
            tree = DecisionTreeClassifier(max_depth=1)
            tree.fit(F[train][:, [j]], y[train])
            right += (tree.predict(F[test][:, [j]]) == y[test]).sum()
        assert abs(got[j] - right / 60) < 0.1
    # In two classes of equal size the tree's purity picks the same threshold.
    y = (F[:, 3] + 0.3 * rng.standard_normal(90) > 0.5).astype(int)
    got = stump_accuracy(F, y, folds, 2)
    assert got[3] > 0.75 and got[3] == got.max()


def test_no_threshold_lies_between_equal_values():
    """Three zeros and four ones at 0, five ones at 1: always "one" is 9 of 12."""
    F = np.repeat([0.0, 1.0], [7, 5])[:, None]
    y = np.repeat([0, 1], [3, 9])
    whole = [(np.arange(12), np.arange(12))]
    assert stump_accuracy(F, y, whole, 2)[0] == pytest.approx(9 / 12)
    assert stump_accuracy(0 * F, y, whole, 2)[0] == pytest.approx(9 / 12)


@pytest.mark.slow
def test_false_alarms_on_white_noise():
    """Family-wise, 64 x 500 positions: under 5 %, by 20 data sets and by the tail."""
    alarms, right = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((60, 64, 500)).astype("f4"), np.arange(60) % 2
        audit = audit_shortcuts(X, y)
        alarms += bool(audit.shortcuts)
        right.append(audit.accuracy.ravel())
    assert alarms <= 1, alarms
    # Accuracies spread wider than coins', by as much as permuted labels say.
    spread = np.concatenate(right).std()
    assert spread == pytest.approx(audit.spread, rel=0.03)
    assert spread > 1.15 * np.sqrt(0.25 / 60)
    # Past five of those: the share of 640 000 positions past four is a tail's.
    share = (np.concatenate(right) - 0.5 > 4 * spread).mean()
    assert share < 3e-4, share


def test_few_positions_of_noise_raise_no_alarm():
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((100, 4, 100)), np.arange(100) % 2
        audit = audit_shortcuts(X, y)
        alarms += bool(audit.shortcuts)
        assert abs(audit.accuracy.mean() - 0.5) < 0.03
    assert alarms == 0


def test_people_left_out_and_constants():
    """An offset of one person that goes with the class is no shortcut of others."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((120, 3, 20)), np.arange(120) % 2
    people = np.repeat(["a", "b", "c", "d"], 30)
    X[:, 1, 5] += 3 * np.where(people < "c", 2 * y - 1, 1 - 2 * y)
    assert not audit_shortcuts(X, y, groups=people, n_folds=2).shortcuts
    X[:, 2] = 0.0
    X[:, 0, 7] += 4 * y
    found = audit_shortcuts(X, y, groups=people).shortcuts
    assert [(s.channel, s.sample) for s in found] == [(0, 7)]
    with pytest.raises(EEGTensorError, match="5 folds"):
        audit_shortcuts(X[:6], y[:6])


# DiffROAR


def spots(n, seed, k=2):
    """Class by the sign of channel 1 in samples 20 to 29."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, 3, 40)), np.arange(n) % k
    X[:, 1, 20:30] += 0.9 * (2 * y - 1)[:, None]
    A = np.zeros_like(X)
    A[:, 1, 20:30] = 1.0
    return X, y, A


def linear():
    return make_pipeline(
        FunctionTransformer(lambda X: X.reshape(len(X), -1)),
        LogisticRegression(C=0.1),
    )


def test_oracle_random_and_negated_attributions():
    X, y, A = spots(120, 0)
    Z, t, B = spots(200, 1)
    options = {"levels": (10, 30, 50, 70), "block": 5}
    oracle = diff_roar(linear(), X, y, A, Z, t, B, **options)
    assert oracle.mean > 0.25 and (oracle.difference > 0.1).all(), oracle
    np.testing.assert_allclose(oracle.difference, oracle.top - oracle.bottom)
    away = diff_roar(linear(), X, y, 1 - A, Z, t, 1 - B, **options)
    assert away.mean < -0.25, away
    rng = np.random.default_rng(2)
    noise = [
        diff_roar(
            linear(),
            X,
            y,
            rng.random(X.shape),
            Z,
            t,
            rng.random(Z.shape),
            **options,
        ).mean
        for _ in range(8)
    ]
    assert abs(np.mean(noise)) < 2 * np.std(noise) / np.sqrt(8) + 0.02, noise


def test_masks_keep_what_they_say():
    rng = np.random.default_rng(0)
    X, A = rng.standard_normal((2, 5, 3, 23))
    options = {"block": 5, "fill": 7.0, "rng": rng}
    for keep in ("top", "bottom"):
        kept = mask_units(X, A, 40, keep=keep, **options) != 7.0
        U = np.stack(
            [np.abs(A[..., i : i + 5]).sum(-1) for i in range(0, 23, 5)], axis=-1
        )
        whole = np.stack([kept[..., i] for i in range(0, 23, 5)], axis=-1)
        assert (whole.reshape(5, -1).sum(axis=1) == 6).all()
        for u, w in zip(U, whole, strict=True):
            best = (
                u[w].min() > u[~w].max() if keep == "top" else u[w].max() < u[~w].min()
            )
            assert best
    one, two = (
        mask_units(X, np.ones_like(A), 50, keep=k, **options) for k in ("top", "bottom")
    )
    assert np.abs(one - two).max() > 0
    with pytest.raises(EEGTensorError, match="levels"):
        diff_roar(linear(), X, np.arange(5) % 2, A, X, np.arange(5) % 2, A, levels=(0,))
    with pytest.raises(EEGTensorError, match="A has shape"):
        diff_roar(linear(), X, np.arange(5) % 2, A[:3], X, np.arange(5) % 2, A)


def test_mass_in_the_null_half():
    A = np.ones((2, 3, 10))
    null = np.zeros((2, 10), bool)
    null[0, :5] = True
    A[0, :, :5] = -3.0
    np.testing.assert_allclose(null_mass(A, null), [0.75, 0.0])


# Probes


def erp_trials(n, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, 3, 100)), np.arange(n) % 2
    # Without a mean, as of high-passed signals: the mean has no phase to turn.
    t = (np.arange(100) - 50) / 6
    X[:, 1] += 1.2 * (2 * y - 1)[:, None] * t * np.exp(-0.5 * t**2)
    return X, y


def power_trials(n, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, 3, 100)), np.arange(n) % 2
    phase = rng.uniform(0, 2 * np.pi, n)[:, None]
    X[:, 1] += 0.6 * y[:, None] * np.sin(2 * np.pi * 0.1 * np.arange(100) + phase)
    return X, y


def spectrum(X):
    return np.log(np.abs(np.fft.rfft(X, axis=-1)) ** 2 + 1e-12).reshape(len(X), -1)


def test_random_phases_leave_spectra_and_kill_waveforms():
    X, y = power_trials(200, 0)
    power = make_pipeline(FunctionTransformer(spectrum), LogisticRegression(C=0.01))
    power.fit(X, y)
    found = probe(power, *power_trials(400, 1))
    assert found["plain"] > 0.75
    assert abs(found["random phases"] - found["plain"]) <= 0.01, found
    assert found["flat amplitudes"] < 0.6, found
    waves = linear().fit(*erp_trials(200, 0))
    found = probe(waves, *erp_trials(400, 1))
    assert found["plain"] > 0.8
    assert abs(found["random phases"] - 0.5) < 0.05, found
    assert abs(found["shuffled patches"] - 0.5) < 0.1, found
    assert abs(found["permuted channels"] - 0.5) < 0.5 * (found["plain"] - 0.5), found
    assert found["flat amplitudes"] > 0.6, found


@pytest.mark.parametrize("n_times", [100, 101])
def test_each_probe_keeps_what_it_says(n_times):
    rng = np.random.default_rng(0)
    X = 1e-6 * rng.standard_normal((4, 3, n_times)) + 1e-6
    P = random_phases(X, rng)
    S, T = np.fft.rfft(X, axis=-1), np.fft.rfft(P, axis=-1)
    np.testing.assert_allclose(np.abs(T), np.abs(S), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(
        T[:, 0] * T[:, 1].conj(), S[:, 0] * S[:, 1].conj(), rtol=1e-7, atol=1e-16
    )
    assert np.abs(P - X).max() > 1e-7
    W = flat_amplitudes(X, rng)
    V = np.fft.rfft(W, axis=-1)[..., 1:-1]
    np.testing.assert_allclose(np.angle(V), np.angle(S[..., 1:-1]), atol=1e-6)
    size = np.abs(V)
    np.testing.assert_allclose(size / size.mean(axis=-1, keepdims=True), 1, rtol=1e-6)
    np.testing.assert_allclose(W.std(axis=-1), X.std(axis=-1))
    for name in ("shuffled patches", "permuted channels"):
        np.testing.assert_allclose(
            np.sort(PROBES[name](X, rng), axis=None), np.sort(X, axis=None)
        )


def test_smooth_gradients():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(60, 2)).double()
    x, y = torch.randn(4, 3, 20).double(), torch.tensor([0, 1, 1, 0])
    size = x.std(dim=(0, 2), keepdim=True, correction=0)
    plain = net[1].weight[y].view(4, 3, 20) * size
    torch.testing.assert_close(smooth_grad(net, x, y), plain.detach())
    deep = nn.Sequential(nn.Flatten(), nn.Linear(60, 30), nn.Tanh(), nn.Linear(30, 2))
    deep = deep.double()
    with torch.no_grad():
        micro = nn.Sequential(*[m for m in deep])
    one = smooth_grad(deep, x, y, scale=0.3)
    assert torch.equal(one, smooth_grad(deep, x, y, scale=0.3))
    assert not torch.allclose(one, smooth_grad(deep, x, y, scale=0.0))
    scaled = nn.Sequential(nn.Flatten(), nn.Linear(60, 30), nn.Tanh(), nn.Linear(30, 2))
    scaled = scaled.double()
    scaled.load_state_dict(micro.state_dict())
    with torch.no_grad():
        scaled[1].weight *= 1e6
    torch.testing.assert_close(smooth_grad(scaled, 1e-6 * x, y, scale=0.3), one)


def test_refusals():
    X, y = erp_trials(10, 0)
    with pytest.raises(EEGTensorError, match="probe"):
        probe(linear().fit(X, y), X, y, probes=("upside down",))
    with pytest.raises(EEGTensorError, match="n_patches"):
        probe(linear().fit(X, y), X, y, n_patches=101)
