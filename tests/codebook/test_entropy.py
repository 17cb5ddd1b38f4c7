"""Code tables against numerical integrals, and the range coder against them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from eegtensor._check import EEGTensorError
from eegtensor.codebook.entropy import (
    PRECISION,
    code_log_probability,
    code_tables,
    quantise,
    scale_index,
)
from eegtensor.codebook.ranges import RangeReader, write_ranges

WEIGHTS = torch.tensor([0.5, 0.1, -0.4], dtype=torch.float64).log_softmax(0)
RATIOS = torch.tensor([-0.6, 0.1, 0.8], dtype=torch.float64)
ROUNDING = 0.4
LARGEST = 20


def density(x: float, scale: float) -> float:
    sigmas = scale * RATIOS.exp().numpy()
    return float(WEIGHTS.exp().numpy() @ scipy.stats.norm.pdf(x, scale=sigmas))


def cell(q: int) -> tuple[float, float]:
    if q == 0:
        return -0.6, 0.6
    low, high = abs(q) - 0.4, abs(q) + 0.6
    return (low, high) if q > 0 else (-high, -low)


def test_cells_hold_what_is_rounded_to_them() -> None:
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    q = quantise(x, ROUNDING, LARGEST)
    for value, code in zip(x.tolist(), q.tolist(), strict=True):
        low, high = cell(code)
        assert low - 1e-9 <= value <= high + 1e-9
    assert quantise(torch.tensor([99.0, -99.0]), ROUNDING, LARGEST).tolist() == [
        20,
        -20,
    ]


@pytest.mark.parametrize("q", [0, 1, -3, 7])
def test_probabilities_means_and_spreads_are_integrals(q: int) -> None:
    tables = code_tables(WEIGHTS, RATIOS, ROUNDING, LARGEST)
    for scale in (0.25, 1.0, 4.0):
        row = int(scale_index(torch.tensor(np.log(scale))))
        low, high = cell(q)
        p = scipy.integrate.quad(density, low, high, args=(scale,))[0]
        found = code_log_probability(
            torch.tensor(float(q)), torch.tensor(np.log(scale)), WEIGHTS, RATIOS, 0.4
        )
        if p > 1e-9:
            np.testing.assert_allclose(found.exp(), p, rtol=1e-6)
        # Cut to counts of 2^16, of which every code has one.
        counted = 2.0 ** -float(tables.bits[row, q + LARGEST])
        assert abs(counted - p) < 45 / 2**PRECISION
        if p < 1e-12:
            continue
        mean = scipy.integrate.quad(
            lambda x, s: x * density(x, s), low, high, args=(scale,)
        )[0]
        np.testing.assert_allclose(
            tables.means[row, q + LARGEST], mean / p, rtol=1e-6, atol=1e-12
        )
        if q == 0:
            second = scipy.integrate.quad(
                lambda x, s: x * x * density(x, s), low, high, args=(scale,)
            )[0]
            np.testing.assert_allclose(tables.spread[row] ** 2, second / p, rtol=1e-6)


def test_every_row_is_a_whole_of_counts() -> None:
    tables = code_tables(WEIGHTS, RATIOS, ROUNDING, LARGEST)
    assert (tables.starts[:, -1] == 1 << PRECISION).all()
    assert (tables.starts.diff(dim=1) >= 1).all()
    assert torch.isfinite(tables.means).all()
    # Means lie in their cells at any scale, those of the last codes beyond.
    q = torch.arange(1, LARGEST, dtype=torch.float64)
    means = tables.means[:, LARGEST + 1 : -1]
    assert (means >= q - ROUNDING - 1e-9).all()
    assert (means <= q + 1 - ROUNDING + 1e-9).all()
    np.testing.assert_allclose(tables.means, -tables.means.flip(1))


def test_scales_fall_on_the_nearest_row() -> None:
    for exponent in (-6.0, 0.0, 3.5, 12.0):
        log_scale = torch.tensor(exponent * np.log(2))
        assert int(scale_index(log_scale)) == round((exponent + 6) * 8)
    assert int(scale_index(torch.tensor(-99.0))) == 0
    assert int(scale_index(torch.tensor(99.0))) == 18 * 8


@pytest.mark.parametrize("n_lanes", [1, 7])
def test_bytes_hold_the_codes_at_their_cost(n_lanes: int) -> None:
    tables = code_tables(WEIGHTS, RATIOS, ROUNDING, LARGEST)
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.integers(20, 80, (3000, n_lanes)))
    scale = torch.exp2(rows / 8 - 6)
    codes = quantise(
        torch.from_numpy(rng.standard_normal(rows.shape)) * scale, ROUNDING, LARGEST
    )
    at = codes + LARGEST
    starts = tables.starts[rows, at]
    counts = tables.starts[rows, at + 1] - starts
    data = write_ranges(starts.numpy(), counts.numpy())
    cost = float(tables.bits[rows, at].sum()) / 8
    assert cost < len(data) < cost + 10 * n_lanes + 0.001 * cost
    reader = RangeReader(data, n_lanes)
    for row, code in zip(rows, at, strict=True):
        part = tables.starts[row]
        found = (part <= torch.from_numpy(reader.peek())[:, None]).sum(dim=1) - 1
        assert torch.equal(found, code)
        start = part.gather(1, found[:, None])[:, 0]
        end = part.gather(1, found[:, None] + 1)[:, 0]
        reader.step(start.numpy(), (end - start).numpy())


def test_bytes_that_were_cut_are_refused() -> None:
    data = write_ranges(np.full((50, 2), 7), np.full((50, 2), 3))
    with pytest.raises(EEGTensorError, match="2 lanes"):
        RangeReader(data[:-1], 2)
    with pytest.raises(EEGTensorError, match="3 lanes"):
        RangeReader(data, 3)
    reader = RangeReader(data, 2)
    with pytest.raises(EEGTensorError, match="end too early"):
        for _ in range(60):
            reader.step(np.full(2, 7), np.full(2, 3))
