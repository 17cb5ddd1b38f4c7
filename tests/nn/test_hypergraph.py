"""Hypergraphs: the formula, the spectrum, and depth that does not wash out."""

from __future__ import annotations

import math

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.nn import (
    HypergraphBlock,
    MultiHypergraph,
    hypergraph_operator,
    neighbour_hyperedges,
)


def operator(n=16, k=4):
    g = torch.Generator().manual_seed(0)
    places = torch.randn(n, 3, generator=g, dtype=torch.float64)
    return hypergraph_operator(neighbour_hyperedges(torch.cdist(places, places), k))


def test_the_operator_is_its_formula():
    g = torch.Generator().manual_seed(0)
    H = (torch.rand(7, 5, generator=g, dtype=torch.float64) > 0.5).double()
    H[0] = 0.0
    w = torch.rand(5, generator=g, dtype=torch.float64) + 0.1
    A = hypergraph_operator(H, w)
    Dv, De = (H @ w)[1:], H.sum(0)
    root = torch.diag(Dv**-0.5)
    inner = H[1:] @ torch.diag(w) @ torch.diag(1 / De) @ H[1:].mT
    torch.testing.assert_close(A[1:, 1:], root @ inner @ root)
    # A node of no hyperedge keeps itself.
    assert A[0, 0] == 1 and A[0, 1:].abs().sum() == 0
    values = torch.linalg.eigvalsh(operator())
    assert values.min() > -1e-12 and abs(values.max() - 1) < 1e-12


def test_hyperedges_hold_the_nearest():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    H = neighbour_hyperedges(torch.cdist(x, x), 1)
    assert H.mT.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    same = neighbour_hyperedges(torch.zeros(4, 4), 1)
    assert (same.diagonal() == 1).all() and (same.sum(0) == 2).all()
    with pytest.raises(EEGTensorError, match="k=4"):
        neighbour_hyperedges(torch.cdist(x, x), 4)


def test_layers_are_their_formula():
    A = operator()
    block = HypergraphBlock(5, 2, A, alpha=0.2, lamda=0.7)
    x = torch.randn(3, 16, 5, dtype=torch.float64)
    h = x
    for i, layer in enumerate(block.layers):
        b = math.log(0.7 / (i + 1) + 1)
        mixed = 0.8 * torch.einsum("ij,bjk->bik", A, h) + 0.2 * x
        h = torch.relu((1 - b) * mixed + b * mixed @ layer.weight.mT)
    torch.testing.assert_close(block(x), h)
    # The released code's A X_0 is another thing.
    wrong = torch.relu((1 - b) * (0.8 * A @ x + 0.2 * x))
    assert (block(x) - wrong).abs().max() > 1e-2


def left(block, x):
    """Share of the nodes' variance that a block leaves, degrees aside."""
    degree = torch.linalg.eigh(block.operator)[1][:, -1].abs()
    h = block(x) / degree[:, None]
    return float(h.var(dim=-2).mean() / (x / degree[:, None]).var(dim=-2).mean())


def blocks(A):
    """32 layers, residual and plain, that change no feature: W = I."""
    made = HypergraphBlock(6, 32, A), HypergraphBlock(6, 32, A, alpha=0.0, b=1.0)
    for block in made:
        for layer in block.layers:
            torch.nn.init.eye_(layer.weight)
    return made


def test_depth_does_not_wash_out():
    """Smooth maps, such as the scalp's; white ones keep what the theory says."""
    # 64 electrodes over the upper half of the head, and maps of far dipoles.
    i = torch.arange(64, dtype=torch.float64) + 0.5
    z, turn = i / 64, 2.399963229728653 * i
    r = (1 - z**2).sqrt()
    head = torch.stack([r * turn.cos(), r * turn.sin(), z], dim=1)
    deep, plain = blocks(
        hypergraph_operator(neighbour_hyperedges(torch.cdist(head, head), 4))
    )
    smooth = torch.cat([head, -head], dim=1) + 1.0
    assert left(deep, smooth) > 0.1 and left(plain, smooth) < left(deep, smooth)
    many = HypergraphBlock(6, 320, plain.operator, alpha=0.0, b=1.0)
    still = HypergraphBlock(6, 320, plain.operator)
    for layer in (*many.layers, *still.layers):
        torch.nn.init.eye_(layer.weight)
    assert left(still, smooth) > 0.1 and left(many, smooth) < 1e-3
    A = operator()
    deep, plain = blocks(A)
    values, vectors = torch.linalg.eigh(A)
    # With nothing negative, layers are linear: each component by its eigenvalue.
    x = torch.rand(16, 6, dtype=torch.float64)
    m = values[:, None]
    share = 0.9**32 * m**32 + 0.1 * sum(0.9**k * m**k for k in range(32))
    torch.testing.assert_close(deep(x), vectors @ (share * (vectors.mT @ x)))
    assert left(deep, x) > 100 * left(plain, x)


def test_several_hypergraphs_vote():
    torch.manual_seed(0)
    net = MultiHypergraph(3, 4, [operator(), operator(k=8)], width=8, n_layers=2)
    x = torch.randn(5, 16, 3, dtype=torch.float64)
    parts = []
    for enter, block, leave in zip(net.enter, net.blocks, net.leave, strict=True):
        h = block(torch.relu(enter(x))).mean(-2)
        parts.append(torch.log_softmax(leave(h), -1))
    torch.testing.assert_close(net(x), (parts[0] + parts[1]) / 2)
    net(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    exported = torch.export.export(net.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), net(x))
    with pytest.raises(EEGTensorError, match="operators"):
        MultiHypergraph(3, 4, [])
