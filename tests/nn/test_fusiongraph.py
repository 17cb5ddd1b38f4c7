"""Fusion graphs and graph U-nets: blocks, warping, windows, groups, permutations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.nn import (
    FusionGraphLayer,
    GraphUNet,
    dtw_distances,
    fusion_graph,
    pair_nodes,
    sparse_graph,
)
from eegtensor.nn.graphunet import GraphGRU, SpacePool, _scaled_laplacian


def brute(a, b, band):
    """Dynamic time warping of two standardised series by the table."""
    a, b = ((z - z.mean()) / z.std() for z in (a, b))
    n = len(a)
    table = np.full((n + 1, n + 1), np.inf)
    table[0, 0] = 0.0
    for i in range(n):
        for j in range(n):
            if abs(i - j) <= band:
                table[i + 1, j + 1] = abs(a[i] - b[j]) + min(
                    table[i, j], table[i, j + 1], table[i + 1, j]
                )
    return table[n, n]


@pytest.mark.parametrize("band", [0, 3, 40])
def test_warping_is_the_tables(band):
    X = np.random.default_rng(0).standard_normal((4, 40))
    D = dtw_distances(1e-6 * X, band)
    for i in range(4):
        for j in range(4):
            want = 0.0 if i == j else brute(X[i], X[j], band)
            assert D[i, j] == pytest.approx(want, rel=1e-9)


def test_shifts_within_the_band_are_small():
    t = np.arange(300)
    wave = np.exp(-0.5 * ((t - 150) / 12.0) ** 2)
    X = np.stack([wave, wave, np.roll(wave, 8), np.roll(wave, 60)])
    D = dtw_distances(X)
    assert D[0, 1] == 0.0
    assert (
        D[0, 2] < 0.05 * np.abs(X[0] - X[2]).sum() / X.std() and D[0, 3] > 20 * D[0, 2]
    )


def test_blocks():
    rng = np.random.default_rng(0)
    space, likeness = sparse_graph(rng.random((5, 5))), rng.random((5, 5))
    A = fusion_graph(space, likeness)
    assert A.shape == (20, 20)
    for i in range(4):
        for j in range(4):
            block = A[5 * i : 5 * i + 5, 5 * j : 5 * j + 5]
            want = {0: space, 1: np.eye(5)}.get(abs(i - j), likeness)
            np.testing.assert_array_equal(block, want)
    graph = sparse_graph(np.abs(np.subtract.outer(np.arange(9), np.arange(9))), 0.25)
    assert (graph == graph.T).all() and (np.diag(graph) == 1).all()
    assert set(np.unique(graph)) == {0, 1} and (graph.sum(1) >= 3).all()
    with pytest.raises(EEGTensorError, match="shapes"):
        fusion_graph(space, likeness[:4])


def test_a_window_is_the_formula():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    graph = fusion_graph(sparse_graph(rng.random((5, 5))), rng.random((5, 5)))
    layer = FusionGraphLayer(3, 6, graph)
    x = torch.randn(2, 3, 5, 11)
    y = layer(x)
    assert y.shape == (2, 6, 5, 8)
    A = torch.as_tensor(graph).float()
    A = A / A.sum(1, keepdim=True)
    t = 4
    h = torch.cat([x[:, :, :, t + s].mT for s in range(4)], dim=1)
    outs = []
    for product in layer.products:
        both = product(A @ h)
        h = both[..., :6] * torch.sigmoid(both[..., 6:])
        outs.append(h)
    inner = torch.stack(outs).amax(0)[:, 5:10]
    W, b = layer.gated.weight, layer.gated.bias
    z = x[..., t].mT @ W[:, :, 0, 0].mT + x[..., t + 3].mT @ W[:, :, 0, 1].mT + b
    along = torch.tanh(z[..., :6]) * torch.sigmoid(z[..., 6:])
    torch.testing.assert_close(y[..., t], (inner + along).mT)
    exported = torch.export.export(layer.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), y)
    with pytest.raises(EEGTensorError, match="5 nodes"):
        layer(x[:, :, :4])


def ring(n=8):
    A = torch.zeros(n, n)
    for i in range(n):
        A[i, (i + 1) % n] = A[(i + 1) % n, i] = 1.0 + 0.1 * ((3 * i) % 7)
    return A


def test_pairs_of_the_strongest_edges():
    A = torch.tensor([[0, 1.0, 5, 0], [1, 0, 2, 4], [5, 2, 0, 0], [0, 4, 0, 0]])
    assert pair_nodes(A).tolist() == [0, 1, 0, 1]
    assert pair_nodes(torch.zeros(3, 3)).tolist() == [0, 1, 2]


def test_pooling_and_back_is_constant_on_groups():
    pool = SpacePool(torch.tensor([0, 1, 0, 2, 1]))
    x = torch.randn(3, 5, 4)
    back = pool.back(pool(x))
    torch.testing.assert_close(back[:, 0], x[:, [0, 2]].mean(1))
    assert torch.equal(back[:, 0], back[:, 2]) and torch.equal(back[:, 1], back[:, 4])
    torch.testing.assert_close(back[:, 3], x[:, 3])
    torch.testing.assert_close(pool.back(pool(back)), back)
    with pytest.raises(EEGTensorError, match="gaps"):
        SpacePool(torch.tensor([0, 2]))


def test_permuted_nodes_give_permuted_outputs():
    torch.manual_seed(0)
    A, x = ring(), torch.randn(2, 6, 8, 3)
    net = GraphUNet(3, 2, A)
    y = net(x)
    assert y.shape == (2, 6, 8, 2)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    other = GraphUNet(3, 2, A[order][:, order])
    # Buffers are of the graphs, weights of the network.
    for (name, p), (_, q) in zip(
        other.named_parameters(), net.named_parameters(), strict=True
    ):
        assert p.shape == q.shape, name
        p.data.copy_(q.data)
    torch.testing.assert_close(other(x[:, :, order]), y[:, :, order])
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_levels_are_slower_and_nothing_reads_the_future():
    torch.manual_seed(0)
    net = GraphUNet(3, 2, ring(), depth=2)
    assert [d.dilation for d in net.down] == [1, 2, 4]
    assert [len(d.laplacian) for d in net.down] == [8, 4, 2]
    x = torch.randn(1, 10, 8, 3)
    moved = x.clone()
    moved[:, 7:] += 1.0
    torch.testing.assert_close(net(moved)[:, :7], net(x)[:, :7])
    assert (net(moved)[:, 7:] - net(x)[:, 7:]).abs().max() > 1e-3


def test_a_recurrence_skips_steps_and_filters_by_chebyshev():
    torch.manual_seed(0)
    L = _scaled_laplacian(ring())
    gru = GraphGRU(3, 5, L, order=4, dilation=2)
    x = torch.randn(1, 7, 8, 3)
    moved = x.clone()
    moved[:, 1] += 1.0
    changed = (gru(moved) - gru(x)).abs().amax((0, 2, 3)) > 1e-6
    assert changed.tolist() == [False, True, False, True, False, True, False]
    values, vectors = torch.linalg.eigh(L)
    assert values.min() >= -1 - 1e-5 and values.max() <= 1 + 1e-5
    terms = gru._filtered(x[0, 0]).chunk(4, dim=-1)
    for k, term in enumerate(terms):
        wave = torch.cos(k * torch.arccos(values.clamp(-1, 1)))
        want = vectors @ (wave[:, None] * (vectors.mT @ x[0, 0]))
        torch.testing.assert_close(term, want, atol=1e-4, rtol=1e-4)
