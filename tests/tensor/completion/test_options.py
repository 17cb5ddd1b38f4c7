"""Options of the wrong kind, arrays that cannot be: all are named, none crashes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.features.completer import interval
from eegtensor.tensor.completion import (
    complete,
    gaussian_fit,
    gaussian_mean,
    lag_covariances,
    mdt_tucker,
    mmes,
    multichannel_ssa,
    spline_weights,
)
from eegtensor.tensor.completion import spectrum as spectra
from eegtensor.tensor.completion.delay import Conditioned
from eegtensor.tensor.completion.methods import NEAR, _spread

X = np.random.default_rng(0).standard_normal((4, 80))
X[1, 10:20] = np.nan
SEEN = ~np.isnan(X)
NUMBERS: dict[str, tuple[Any, ...]] = {
    "max_iter": (-1, 2.5, "a"),
    "tol": ("a", None, np.nan),
    "random_state": (-1, "a", 2.5),
    "window": (0, 2.5, "a"),
    "rank": (0, 2.5, "a"),
    "ranks": (0, 2.5, "a", [1, 2, 3]),
    "noise": (-1.0, "a", np.inf),
    "held_out": (-0.1, 1.5, "a"),
    "n_steps": (-1, 0.5),
    "latent": (0, "a"),
    "start": ("a", np.zeros((2, 3)), X),
    "mask": ("a", 3, SEEN[:2]),
    "positions": ("a", np.zeros((4, 3)), np.eye(3)),
    "method": ("a", 3),
    "covariance": ("a", np.eye(3), np.full((4, 4), np.nan)),
    "seen": ("a", SEEN[:2]),
    "n_lags": (0, 2.5, "a", 100),
    "level": ("a", 0.0, 1.0),
}
CALLS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "complete": (complete, {"X": X}, "mask positions method random_state"),
    "mdt_tucker": (
        mdt_tucker,
        {"X": X, "mask": None, "window": 4},
        "mask window ranks max_iter tol noise held_out random_state",
    ),
    "mmes": (mmes, {"X": X}, "mask window latent noise max_iter start random_state"),
    "multichannel_ssa": (
        multichannel_ssa,
        {"X": X, "window": 4},
        "mask window rank max_iter n_steps tol random_state",
    ),
    "gaussian_fit": (gaussian_fit, {"X": X, "seen": SEEN}, "seen max_iter tol"),
    "gaussian_mean": (
        gaussian_mean,
        {"X": X, "seen": SEEN, "covariance": np.eye(4)},
        "seen covariance",
    ),
    "lag_covariances": (
        lag_covariances,
        {"X": X[None], "seen": SEEN[None], "n_lags": 5},
        "seen n_lags",
    ),
    "interval": (interval, {"X": X, "uncertainty": X}, "level"),
}
CASES = [(call, name) for call in CALLS for name in CALLS[call][2].split()]


@pytest.mark.parametrize(("call", "name"), CASES)
def test_what_is_wrong_is_named(call: str, name: str) -> None:
    function, given, _ = CALLS[call]
    for value in NUMBERS[name]:
        # Those of the wrong shape say so in terms of what they should fit.
        named = {"positions": "positions|position"}.get(name, name)
        with pytest.raises(EEGTensorError, match=named):
            function(**{**given, name: value})


def test_the_filter_needs_one_change_at_least() -> None:
    with pytest.raises(EEGTensorError, match="max_iter=0"):
        multichannel_ssa(X, max_iter=0)


@pytest.mark.parametrize("scale", [1e300, 1e-320])
def test_squares_that_are_no_numbers(scale: float) -> None:
    with pytest.raises(EEGTensorError, match="another unit"):
        complete(X * scale)


def test_cells_that_are_seen_are_numbers() -> None:
    for function in (gaussian_fit, lambda x, s: gaussian_mean(x, s, np.eye(4))):
        with pytest.raises(EEGTensorError, match="where seen"):
            function(X, np.ones_like(SEEN))
        with pytest.raises(EEGTensorError, match="empty"):
            function(X[:, :0], SEEN[:, :0])
    with pytest.raises(EEGTensorError, match="positions are no numbers"):
        spline_weights("a", np.eye(3))


def test_spread_is_the_mean_square_of_draws_nearby(rng, monkeypatch) -> None:
    n_times = 3 * NEAR
    draws = torch.from_numpy(rng.standard_normal((1, 2, 3, n_times)))
    seen = torch.from_numpy(rng.random((2, 3, n_times)) < 0.5)
    exact = torch.full((2, 3, n_times), torch.nan, dtype=torch.float64)
    exact[1, :, 5:9] = torch.arange(3.0).double()[:, None] + 7.0
    found = Conditioned(draws[0], draws, exact)
    lost, square = ~seen.numpy(), draws[0].numpy() ** 2
    expected = np.zeros(seen.shape)
    for b, c, t in np.argwhere(lost):
        mean = square[:, c][lost[:, c]].mean()
        near = slice(max(0, t - NEAR), t + NEAR + 1)
        some = square[b, c, near][lost[b, c, near]]
        expected[b, c, t] = (some.sum() + 16 * mean) / (len(some) + 16)
    expected[1, :, 5:9] = exact[1, :, 5:9].numpy() * lost[1, :, 5:9]
    np.testing.assert_allclose(_spread(found, seen), expected, rtol=1e-9)
    module = __import__(_spread.__module__, fromlist=["methods"])
    monkeypatch.setattr(module, "SPREAD_CELLS", 1)
    np.testing.assert_allclose(_spread(found, seen), expected, rtol=1e-9)


def test_response_of_a_few_lags_at_a_time(rng, monkeypatch) -> None:
    half = torch.from_numpy(rng.standard_normal((9, 2, 2))).to(torch.complex128)
    whole = spectra.impulse_response(half, 60, 7)
    monkeypatch.setattr(spectra, "WAVE_CELLS", 70)
    torch.testing.assert_close(spectra.impulse_response(half, 60, 7), whole)
