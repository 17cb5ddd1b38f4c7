"""Structures: canonical forms, sizes, and errors that they cannot go below."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from eegtensor.tensor._canonical import (
    Bounds,
    State,
    Template,
    canonical,
    relative_size,
)
from eegtensor.tensor.network import tensor_network


def test_rotated_and_reflected_rings_are_one_structure() -> None:
    form = Template("ring", 5)
    ranks, order = (2, 3, 4, 5, 6), (3, 1, 4, 0, 2)
    key = canonical(form.table(State(ranks, order)))
    for k in range(5):
        turned = State(ranks[k:] + ranks[:k], order[k:] + order[:k])
        assert canonical(form.table(turned)) == key
    # Link 0 is before place 0: it stays when the other places turn round.
    mirrored = State((ranks[1], ranks[0], *ranks[:1:-1]), (order[0], *order[:0:-1]))
    assert canonical(form.table(mirrored)) == key
    assert canonical(form.table(State(ranks, (1, 3, 4, 0, 2)))) != key


def test_a_ring_of_six_has_sixty_orders() -> None:
    form = Template("ring", 6)
    ranks = (2,) * 6
    keys = {
        canonical(form.table(State(ranks, order)))
        for order in itertools.permutations(range(6))
    }
    assert len(keys) == math.factorial(5) // 2


def test_size_counts_the_entries_of_the_cores() -> None:
    form = Template("ring", 4)
    table = form.table(State((2, 3, 1, 2), (1, 3, 0, 2)))
    entries = 3 * (2 * 3 + 3 * 1 + 1 * 2 + 2 * 2)
    assert relative_size(table, (3, 3, 3, 3)) == pytest.approx(entries / 81)


def test_no_fit_is_below_its_bound(rng) -> None:
    X = torch.from_numpy(rng.standard_normal((3, 4, 2, 3)))
    bounds, form = Bounds(X), Template("ring", 4)
    tight = 0
    for _ in range(20):
        state = State(tuple(rng.integers(1, 4, 4)), tuple(rng.permutation(4)))
        table = form.table(state)
        rse = tensor_network(X, table, n_starts=2).rse
        assert bounds(table) <= rse + 1e-12
        tight += bounds(table) > 0.5 * rse
    assert tight > 3


def test_the_bound_of_two_modes_is_the_truncated_svd(rng) -> None:
    X = rng.standard_normal((5, 6))
    values = np.linalg.svd(X, compute_uv=False) ** 2
    bounds = Bounds(torch.from_numpy(X))
    for rank in range(1, 6):
        table = np.array([[1, rank], [rank, 1]])
        wanted = values[rank:].sum() / values.sum()
        assert bounds(table) == pytest.approx(wanted, abs=1e-11)
        found = tensor_network(X, table, n_starts=3, tol=1e-12, max_iter=500)
        assert found.rse == pytest.approx(wanted, rel=1e-5, abs=1e-12)
