"""Heads: what their logits must be, and where they differ from a linear one."""

from __future__ import annotations

import copy
import pickle

import geoopt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor import EEGTensorError
from eegtensor.nn import EquiangularHead, GrassmannHead, make_head
from eegtensor.nn.heads import HEADS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(batch: int = 6, n: int = 10) -> Tensor:
    return torch.randn(batch, n, generator=seeded(1), dtype=torch.float64)


def head(name: str, n_outputs: int = 3, seed: int = 0) -> nn.Module:
    return make_head(name, 10, n_outputs, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", HEADS)
def test_heads_share_one_interface(name: str, device: str) -> None:
    layer, h = head(name).to(device), features().to(device)
    logits = layer(h)
    assert logits.shape == (6, 3) and logits.dtype == torch.float64
    for again in (head(name).to(device), copy.deepcopy(layer)):
        assert torch.equal(again(h), logits)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(h), logits)
    assert not torch.equal(head(name, seed=1).to(device)(h), logits)
    exported = torch.export.export(layer.eval(), (h,)).module()
    torch.testing.assert_close(exported(h), logits)
    assert torch.autograd.gradcheck(layer, h.requires_grad_())


def test_grassmann_logits_are_lengths_of_projections() -> None:
    layer = GrassmannHead(10, 3, n_dims=2, generator=seeded(), dtype=torch.float64)
    h, S = features(), layer.weight.detach()
    for c in range(3):
        projector = S[c] @ S[c].mT
        expected = 25.0 * (h @ projector).norm(dim=1) / h.norm(dim=1)
        torch.testing.assert_close(layer(h).detach()[:, c], expected)


def test_grassmann_does_not_depend_on_the_basis_of_a_class() -> None:
    layer = GrassmannHead(10, 3, n_dims=3, generator=seeded(), dtype=torch.float64)
    before = layer(features()).detach()
    rotation = torch.linalg.qr(features(3, 3))[0]
    layer.weight.data = layer.weight.data @ rotation
    torch.testing.assert_close(layer(features()).detach(), before)
    layer.weight.data = -layer.weight.data
    torch.testing.assert_close(layer(-7.0 * features()).detach(), before)


def test_grassmann_has_a_gradient_at_right_angles() -> None:
    layer = GrassmannHead(4, 2, n_dims=1, generator=seeded(), dtype=torch.float64)
    S = layer.weight.detach()
    h = torch.linalg.svd(S[:, :, 0])[2][-1:].requires_grad_()
    layer(h).sum().backward()
    assert torch.isfinite(h.grad).all()


def test_grassmann_learns_what_no_linear_head_can() -> None:
    # Sources whose sign is arbitrary: both classes have their mean at zero.
    g = seeded(3)
    y = torch.arange(80) % 2
    signs = torch.randint(0, 2, (80, 1), generator=g) * 2.0 - 1.0
    axes = torch.eye(10, dtype=torch.float64)[:2]
    h = signs * axes[y] + 0.15 * torch.randn(80, 10, generator=g, dtype=torch.float64)

    def accuracy(layer: nn.Module) -> float:
        optimizer = geoopt.optim.RiemannianAdam(layer.parameters(), lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(layer(h), y).backward()
            optimizer.step()
        return float((layer(h).argmax(dim=1) == y).double().mean())

    kept = GrassmannHead(10, 2, n_dims=1, generator=g, dtype=torch.float64)
    assert accuracy(kept) > 0.97
    assert accuracy(make_head("linear", 10, 2, generator=g, dtype=torch.float64)) < 0.8
    drift = kept.weight.mT @ kept.weight - torch.ones(1, dtype=torch.float64)
    assert float(drift.detach().abs().max()) < 1e-6


@pytest.mark.parametrize("n_outputs", [2, 3, 7])
@pytest.mark.parametrize(
    ("vectors", "cosine"), [("simplex", None), ("orthogonal", 0.0)]
)
def test_angles_are_equal(n_outputs: int, vectors: str, cosine: float | None) -> None:
    layer = EquiangularHead(
        9, n_outputs, vectors=vectors, generator=seeded(), dtype=torch.float64
    )
    value = -1.0 / (n_outputs - 1) if cosine is None else cosine
    expected = torch.full((n_outputs, n_outputs), value, dtype=torch.float64)
    expected.fill_diagonal_(1.0)
    gram = layer.vectors @ layer.vectors.mT
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-13)
    assert not list(layer.parameters())
    if vectors == "simplex":
        torch.testing.assert_close(
            layer.vectors.sum(dim=0), torch.zeros(9).double(), rtol=0, atol=1e-13
        )


def test_equiangular_logits_are_cosines() -> None:
    layer = EquiangularHead(10, 3, generator=seeded(), dtype=torch.float64)
    h = features()
    for c in range(3):
        expected = F.cosine_similarity(h, layer.vectors[c : c + 1]) / 0.07
        torch.testing.assert_close(layer(h)[:, c], expected)


def test_classes_can_be_added_to_orthogonal_vectors() -> None:
    few, more = head("orthogonal", 3), head("orthogonal", 8)
    torch.testing.assert_close(more(features())[:, :3], few(features()))


def test_as_many_classes_as_fit() -> None:
    EquiangularHead(4, 5, vectors="simplex")
    EquiangularHead(4, 4, vectors="orthogonal")


def test_mistakes() -> None:
    with pytest.raises(EEGTensorError, match="6 simplex vectors in 4 dimensions"):
        EquiangularHead(4, 6)
    with pytest.raises(EEGTensorError, match="5 orthogonal vectors in 4"):
        EquiangularHead(4, 5, vectors="orthogonal")
    with pytest.raises(EEGTensorError, match="Subspaces of 5 dimensions"):
        GrassmannHead(4, 2, n_dims=5)
    with pytest.raises(EEGTensorError, match="head='svm' is not known"):
        make_head("svm", 4, 2)
