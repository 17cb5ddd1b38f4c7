"""Bins that follow the rate, and states of all components together."""

import numpy as np
import pytest
import torch

from eegtensor.codebook.residual import _smallest
from eegtensor.tokens._bands import N_BINS, edges_to
from eegtensor.tokens._fit import States, fit_bands
from eegtensor.tokens._fit_learned import _bins_for
from eegtensor.tokens._signals import signals_from, spectra
from eegtensor.tokens.bandrvq import decode_bands, encode_bands


def test_states_of_all_units_tell_loud_frames() -> None:
    rng = np.random.default_rng(0)
    loud = np.where(rng.random((600, 1, 1)) < 0.3, 10.0, 1.0)
    coefs = torch.from_numpy(loud * rng.standard_normal((600, 3, N_BINS)))
    errors = []
    for states in (States(0, 0), States(4, 1, together=True)):
        codec = fit_bands(coefs, 80, states, n_levels=2, random_state=0)
        ids = encode_bands(coefs, codec)
        assert (ids[:, 1:, 0] == -1).all()
        quiet = torch.from_numpy(loud[:, 0, 0] == 1)
        rest = (coefs - decode_bands(ids, codec))[quiet]
        errors.append(float(rest.square().sum()))
        assert int((ids >= 0).sum(dim=(1, 2)).max()) <= 10
    assert codec.together
    # One state a frame, and loud frames never share it with quiet ones.
    assert not set(ids[quiet, 0, 0].tolist()) & set(ids[~quiet, 0, 0].tolist())
    assert codec.bits_per_frame <= 80
    assert errors[1] < errors[0]


@pytest.mark.parametrize("width", [256, 1024, 1000, 32])
def test_smallest_are_those_of_a_full_sort(width: int) -> None:
    x = torch.randn(50, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_smallest(x, 4), x.argsort(dim=1)[:, :4])


def test_bins_follow_the_step() -> None:
    energy = torch.ones(1, 200, dtype=torch.float64)
    energy[:, 110:] = 1e-6
    assert _bins_for(energy, 10.0) == N_BINS
    assert _bins_for(energy, 0.1) == 112
    assert _bins_for(energy, 1e-4) == 200


def test_bins_beyond_half_the_rate_are_silent() -> None:
    x = np.random.default_rng(0).standard_normal((2, 300))
    coefs = spectra(x, 100.0, 160)
    assert coefs.shape == (2, 3, 160)
    assert not coefs[..., 100:].any()
    np.testing.assert_allclose(signals_from(coefs, 100.0, 300), x, atol=1e-12)
    assert edges_to(160)[-1] == 160
