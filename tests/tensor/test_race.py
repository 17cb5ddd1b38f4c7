"""Starts in one batch: each goes as it would alone, and the best one stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eegtensor.tensor._momentum import settle
from eegtensor.tensor._race import race


def halving(state: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """A step towards zero, above a floor that each start carries with it."""
    x, floor = 0.7 * state[0], state[1]
    return [x, floor], x.square().sum(dim=1) + floor[:, 0]


def starts(floors: list[float]) -> list[Tensor]:
    x = torch.linspace(1.0, 2.0, len(floors), dtype=torch.float64)
    floor = torch.tensor(floors, dtype=torch.float64)
    return [x[:, None] * torch.ones(1, 3), floor[:, None]]


def test_one_start_goes_as_settle_does() -> None:
    state = starts([0.01])

    def alone(given: list[Tensor]) -> tuple[list[Tensor], float]:
        after, error = halving(given)
        return after, float(error[0])

    expected, error, n_iter = settle(alone, state, max_iter=100, tol=1e-6)
    found, error_found, n_found, fits = race(halving, state, max_iter=100, tol=1e-6)
    assert (error_found, n_found) == (error, n_iter)
    assert fits == (1.0 - error**0.5,)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("max_iter", [1, 7, 300])
def test_the_start_with_the_lowest_floor_wins(max_iter: int) -> None:
    floors = [0.5, 0.4, 0.3, 0.6, 0.01, 0.2, 0.7]
    calls = []

    def step(state: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        calls.append(len(state[0]))
        return halving(state)

    state, error, n_iter, fits = race(step, starts(floors), max_iter=max_iter, tol=0.0)
    assert n_iter == len(calls) <= max_iter
    assert all(len(U) == 1 for U in state)
    assert error == pytest.approx(float(state[0].square().sum() + state[1]), rel=0.9)
    if max_iter == 300:
        assert float(state[1]) == 0.01 and fits.index(max(fits)) == 4
        # A half leaves after 7 sweeps, a half of the rest after 14 more.
        assert calls[:22] == [7] * 7 + [4] * 14 + [2]


def test_all_that_have_settled_leave_at_once() -> None:
    *_, n_iter, fits = race(halving, starts([0.5, 0.1]), max_iter=4000, tol=1e-3)
    assert n_iter < 100 and len(fits) == 2
