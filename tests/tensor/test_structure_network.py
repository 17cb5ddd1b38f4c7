"""Networks on a graph: contractions by einsum, updates by least squares, rings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import eegtensor.tensor as T
from eegtensor import EEGTensorError
from eegtensor.tensor._graph import Graph
from eegtensor.tensor.network import TensorNetwork, tensor_network

# Triangle 0-1-2 with a tail 2-3, and 4 by itself.
LINKS = np.ones((5, 5), dtype=int)
for _n, _m, _r in ((0, 1, 2), (1, 2, 2), (0, 2, 2), (2, 3, 2)):
    LINKS[_n, _m] = LINKS[_m, _n] = _r
SHAPE = (4, 5, 4, 3, 2)


def planted(rng: np.random.Generator) -> list[np.ndarray]:
    cores = []
    for n in range(5):
        ranks = LINKS[n].copy()
        ranks[n] = SHAPE[n]
        cores.append(rng.standard_normal(ranks))
    return cores


def contracted(cores: list[np.ndarray]) -> np.ndarray:
    """Written out: letters i-m are modes; a = 01, b = 12, c = 02, d = 23."""
    A = cores[0].transpose(0, 1, 2, 3, 4)[:, :, :, 0, 0]
    B = cores[1][:, :, :, 0, 0]
    C = cores[2][:, :, :, :, 0]
    D = cores[3][0, 0, :, :, 0]
    E = cores[4].reshape(-1)
    return np.einsum("iac,ajb,cbkd,dl,m->ijklm", A, B, C, D, E)


def test_the_reconstruction_is_the_contraction(rng) -> None:
    cores = planted(rng)
    model = TensorNetwork(tuple(cores), 0.0, 0)
    np.testing.assert_allclose(model.reconstruct(), contracted(cores))


def test_planted_graph(rng) -> None:
    X = contracted(planted(rng))
    model = tensor_network(X, LINKS, n_starts=4, max_iter=500, tol=1e-10)
    error = np.sum((model.reconstruct() - X) ** 2) / np.sum(X**2)
    assert error < 1e-8
    assert model.rse == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_every_update_is_the_least_squares_solution(rng, damping) -> None:
    X = contracted(planted(rng))
    X = X + rng.standard_normal(X.shape)
    graph, total = Graph(SHAPE, LINKS), float(np.sum(X**2))
    # Equal norms: balancing leaves them as they are.
    starts = [[G / np.linalg.norm(G) for G in planted(rng)] for _ in range(2)]
    flat = [
        torch.from_numpy(
            np.stack([np.moveaxis(G, n, 0).reshape(SHAPE[n], -1) for G in both])
        )
        for n, both in enumerate(zip(*starts, strict=True))
    ]
    rows = [np.moveaxis(X, n, 0).reshape(SHAPE[n], -1) for n in range(5)]
    errors = graph.sweep(
        [torch.from_numpy(np.ascontiguousarray(M)) for M in rows],
        flat,
        total,
        0.0,
        damping * torch.tensor([1.0, 0.5], dtype=torch.float64) if damping else None,
    )
    for k, mine in enumerate(starts):
        for n in range(5):
            # The model is linear in one core: its design matrix, column by column.
            size = math.prod(mine[n].shape) // SHAPE[n]
            columns = []
            for unit in np.eye(size):
                one = unit.reshape([1 if m == n else r for m, r in enumerate(LINKS[n])])
                parts = [one if m == n else mine[m] for m in range(5)]
                columns.append(contracted(parts).reshape(-1))
            design = np.stack(columns, 1)
            level = damping * (1.0, 0.5)[k] * np.sum(design**2) / size
            design = np.vstack([design, math.sqrt(level) * np.eye(size)])
            target = np.vstack([rows[n].T, np.zeros((size, SHAPE[n]))])
            wanted = np.linalg.lstsq(design, target, rcond=None)[0].T
            np.testing.assert_allclose(flat[n][k].numpy(), wanted, atol=1e-8)
            ranks = [r for m, r in enumerate(LINKS[n]) if m != n]
            mine[n] = np.moveaxis(wanted.reshape(SHAPE[n], *ranks), 0, n)
        left = np.sum((X - contracted(mine)) ** 2) / total
        assert float(errors[k]) == pytest.approx(left, rel=1e-9)


def test_a_ring_where_cores_cancel_is_found(rng) -> None:
    # Without damping sixteen starts are above 2e-4 after a hundred sweeps.
    hidden, fitted = (7, 7, 6, 6, 1, 6), (7, 7, 6, 6, 2, 7)
    whole = rng.standard_normal((7, 3, 7))
    for k in range(1, 6):
        core = rng.standard_normal((hidden[k], 3, hidden[(k + 1) % 6]))
        whole = np.tensordot(whole, core, (-1, 0))
    links = np.ones((6, 6), dtype=int)
    for k, r in enumerate(fitted):
        links[k - 1, k] = links[k, k - 1] = r
    X = np.trace(whole, axis1=0, axis2=-1)
    assert tensor_network(X, links, n_starts=8, tol=1e-4, floor=1e-8).rse < 1e-7


def test_a_cycle_is_a_tensor_ring(rng) -> None:
    X = rng.standard_normal((4, 3, 5, 3))
    ring = T.tensor_ring(X, (2, 3, 2, 2), max_iter=200, tol=1e-10)
    links = np.ones((4, 4), dtype=int)
    for k, r in enumerate(ring.ranks):
        links[k - 1, k] = links[k, k - 1] = r
    cores = []
    for k, G in enumerate(ring.cores):
        # Axes (k - 1, k, k + 1), the fourth of length 1.
        near = [(k - 1) % 4, k, (k + 1) % 4]
        rest = [m for m in range(4) if m not in near]
        cores.append(np.transpose(G[..., None], np.argsort([*near, *rest])))
    model = tensor_network(X, links, start=cores, max_iter=1)
    before = (1.0 - ring.fit) ** 2
    assert model.rse <= before + 1e-9
    assert model.rse == pytest.approx(before, rel=1e-3)
    np.testing.assert_allclose(
        TensorNetwork(tuple(cores), 0.0, 0).reconstruct(), ring.reconstruct()
    )


def test_a_start_competes_with_random_ones(rng) -> None:
    cores = planted(rng)
    X = contracted(cores) + 0.1 * rng.standard_normal(SHAPE)
    alone = [
        tensor_network(X, LINKS, start=cores, max_iter=2, random_state=s).rse
        for s in (0, 1)
    ]
    assert alone[0] == alone[1]
    assert tensor_network(X, LINKS, start=cores, n_starts=2, max_iter=2).rse == alone[0]
    # From zero nothing moves: the random start is the better one.
    zero = [0.0 * G for G in cores]
    both = tensor_network(X, LINKS, start=zero, n_starts=2, max_iter=20)
    assert both.rse < 0.9 == 0.9 * tensor_network(X, LINKS, start=zero).rse


def test_cores_have_equal_norms_and_the_error_is_theirs(rng) -> None:
    X = contracted(planted(rng))
    for floor in (1e-13, 1e-3):
        model = tensor_network(X, LINKS, n_starts=4, max_iter=500, floor=floor)
        norms = [np.linalg.norm(G) for G in model.cores]
        np.testing.assert_allclose(norms, norms[0])
        error = np.sum((model.reconstruct() - X) ** 2) / np.sum(X**2)
        assert error > 0.0
        assert model.rse == pytest.approx(error, rel=1e-3)
    # Sweeps that end below the floor have an error, too.
    near = [G + 0.01 * rng.standard_normal(G.shape) for G in model.cores]
    model = tensor_network(X, LINKS, start=near, floor=0.01)
    error = np.sum((model.reconstruct() - X) ** 2) / np.sum(X**2)
    assert 0.0 < model.rse == pytest.approx(error, rel=1e-3)


def test_same_seed_same_cores(rng) -> None:
    X = rng.standard_normal(SHAPE).astype(np.float32)
    one, two = (tensor_network(X, LINKS, n_starts=2) for _ in range(2))
    np.testing.assert_array_equal(one.reconstruct(), two.reconstruct())
    other = tensor_network(X, LINKS, n_starts=2, random_state=1)
    assert other.rse != one.rse


def test_mistakes_are_named(rng) -> None:
    X = rng.standard_normal((3, 4, 5))
    good = np.array([[1, 2, 1], [2, 1, 2], [1, 2, 1]])
    with pytest.raises(EEGTensorError, match="symmetric"):
        tensor_network(X, np.triu(good) + 1 - np.eye(3, dtype=int))
    with pytest.raises(EEGTensorError, match=r"\(3, 3\)"):
        tensor_network(X, good[:2])
    with pytest.raises(EEGTensorError, match="start has shapes"):
        tensor_network(X, good, start=[X, X, X])
    with pytest.raises(EEGTensorError, match="missing"):
        tensor_network(np.where(X > 1, np.nan, X), good)
    zero = tensor_network(0 * X, good)
    assert zero.rse == 0.0
    assert not zero.reconstruct().any()
