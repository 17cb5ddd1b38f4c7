"""Starts side by side: who goes on, for how long, and how much each is held back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from eegtensor.tensor._damped import Damped, descend

Curve = Callable[[int, int], float]


def run(
    error: Curve,
    n_starts: int = 8,
    *,
    at_once: int = 8,
    max_iter: int = 100,
    floor: float = 0.0,
) -> tuple[Damped, list[tuple[list[int], list[float]]]]:
    """Starts that hold their number and their sweeps, with an error of both."""
    calls = []

    def sweep(cores: list[torch.Tensor], damping: torch.Tensor) -> torch.Tensor:
        cores[0] = cores[0] + torch.tensor([0.0, 1.0])
        own = [[int(n) for n in row] for row in cores[0][:, 0].tolist()]
        calls.append(([k for k, _ in own], damping.tolist()))
        return torch.tensor([error(k, t) for k, t in own], dtype=torch.float64)

    first = torch.stack([torch.arange(n_starts), torch.zeros(n_starts)], dim=1)
    cores = [first[:, None].double()]
    options = {"at_once": at_once, "max_iter": max_iter, "tol": 1e-4, "floor": floor}
    return descend(sweep, cores, **options), calls


def falling(k: int, t: int) -> float:
    """Start 5 is the best, then 2."""
    return {5: 0.1, 2: 0.2}.get(k, 0.5 + 0.01 * k) * 0.98**t


def test_the_best_quarter_goes_on_for_twice_as_long() -> None:
    found, calls = run(falling, at_once=3)
    who = [ids for ids, _ in calls]
    assert (
        who
        == [[0, 1, 2]] * 10
        + [[3, 4, 5]] * 10
        + [[6, 7]] * 10
        + [[5, 2]] * 20
        + [[5]] * 40
    )
    assert found.n_iter == 70
    assert found.cores[0].tolist() == [[5.0, 70.0]]
    assert found.error == pytest.approx(falling(5, 70))


def test_damping_follows_each_starts_own_error() -> None:
    _, calls = run(falling)
    share = calls[0][1][0]
    assert share > 0 and calls[0][1] == [share] * 8
    for n, (ids, damping) in enumerate(calls[1:], start=1):
        assert damping == pytest.approx([share * falling(k, n) for k in ids])


@pytest.mark.parametrize(("max_iter", "sweeps"), [(25, 25), (8, 8), (3, 3)])
def test_no_more_sweeps_than_allowed(max_iter: int, sweeps: int) -> None:
    found, calls = run(falling, max_iter=max_iter)
    assert found.n_iter == len(calls) == sweeps
    assert int(found.cores[0][0, 0]) == 5


def test_the_floor_ends_everything() -> None:
    found, calls = run(lambda k, t: 0.0 if (k, t) == (6, 4) else falling(k, t))
    assert len(calls) == 4
    assert found.cores[0].tolist() == [[6.0, 4.0]] and found.error == 0.0


def test_a_round_ends_where_nothing_moves_twice_in_turn() -> None:
    # Start 3 moves on alone: it is waited for.
    def stands(k: int, t: int) -> float:
        return falling(k, min(t, 6 if k == 3 else 2))

    assert [len(ids) for ids, _ in run(stands)[1]].count(8) == 8

    def halts(k: int, t: int) -> float:
        return falling(k, 2 * (t // 2))

    assert [len(ids) for ids, _ in run(halts)[1]].count(8) == 10
