"""Momentum: never worse than the best state seen, and sooner at the optimum."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from eegtensor.tensor._momentum import Step, compete, settle


def linear(A: Tensor, seen: list[float]) -> Step:
    def step(state: list[Tensor]) -> tuple[list[Tensor], float]:
        after = A @ state[0]
        seen.append(float(after.square().sum()))
        return [after], seen[-1]

    return step


def test_a_move_that_goes_too_far_is_undone() -> None:
    # Moves turn by 60 degrees: to go on along the last one leads away.
    a = math.pi / 3
    turn = 0.95 * torch.tensor(
        [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]
    )
    seen: list[float] = []
    start = [torch.tensor([1.0, 0.0])]
    state, error, n_iter = settle(linear(turn, seen), start, max_iter=40, tol=0.0)
    assert n_iter == len(seen) == 40
    assert error == min(seen) == pytest.approx(float(state[0].square().sum()))
    assert any(b > a for a, b in pairwise(seen))


def test_it_is_sooner_than_plain_steps() -> None:
    A = torch.diag(torch.tensor([0.99, 0.9, 0.5], dtype=torch.float64))
    seen: list[float] = []
    start = [torch.ones(3, dtype=torch.float64)]
    _, error, n_iter = settle(linear(A, seen), start, max_iter=5000, tol=1e-8)
    assert n_iter < 700 and error < 1e-10
    plain = math.log(error**0.5) / math.log(0.99)
    assert n_iter < plain / 2


def test_the_best_start_wins() -> None:
    A = 0.9 * torch.eye(2, dtype=torch.float64)
    seen: list[float] = []
    starts = [[torch.full((2,), x, dtype=torch.float64)] for x in (3.0, 1e-3, 2.0)]
    state, error, n_iter, fits = compete(linear(A, seen), starts, max_iter=50, tol=0.0)
    assert len(fits) == 3 and max(fits) == fits[1] == 1 - error**0.5
    assert n_iter <= 50 and float(state[0].abs().max()) < 1e-3
