"""Z-loss: invariances, and the form without logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eegtensor import EEGTensorError
from eegtensor.training.objectives import ZLoss, z_loss_of_features


def drawn(n=40, k=300, d=12):
    g = torch.Generator().manual_seed(0)
    h = torch.randn(n, d, generator=g, dtype=torch.float64)
    W = torch.randn(k, d, generator=g, dtype=torch.float64) + 3.0
    return h, W, torch.randint(k, (n,), generator=g)


def test_definition_and_invariance(call):
    h, W, y = drawn()
    z = h @ W.mT
    standard = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, correction=0)[:, None]
    own = standard.gather(1, y[:, None]).squeeze(1)
    wanted = torch.log(1 + torch.exp(0.4 * (3 - own))) / 0.4
    objective = ZLoss(a=0.4, b=3.0)
    got = call(objective, z, y)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(call(objective, 7.5 * z - 40.0, y), got)


def test_form_without_logits_equals_the_dense_one(call):
    h, W, y = drawn()
    h.requires_grad_()
    W.requires_grad_()
    dense = call(ZLoss(), h @ W.mT, y)
    short = z_loss_of_features(h, W, y)
    assert (dense - short).abs().max() < 1e-8
    for a, b in zip(
        torch.autograd.grad(dense.sum(), (h, W)),
        torch.autograd.grad(short.sum(), (h, W)),
        strict=True,
    ):
        assert (a - b).abs().max() < 1e-8


def test_equal_logits_are_finite(call):
    z = torch.ones(3, 5, requires_grad=True)
    loss = call(ZLoss(), z, torch.tensor([0, 1, -1]))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(z.grad).all() and loss[2] == 0


def test_it_trains_a_classifier(call):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 8
    x = torch.randn(200, 8, generator=g) + 3 * F.one_hot(y, 8)
    net = torch.nn.Linear(8, 8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        # Among 8 classes no logit lies further than sqrt(7) deviations away.
        call(ZLoss(a=1.0, b=2.6), net(x), y).mean().backward()
        optimizer.step()
    assert float((net(x).argmax(dim=1) == y).float().mean()) > 0.85


def test_mistakes():
    with pytest.raises(EEGTensorError, match="a=0"):
        ZLoss(a=0)
