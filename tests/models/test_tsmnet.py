"""TSMNet: sizes as published, two fronts with one result, precision."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models._networks import NETWORKS, trials
from torch import Tensor

from eegtensor import EEGTensorError
from eegtensor.geometry import upper_vector
from eegtensor.geometry.spectral import logm
from eegtensor.models import TSMNet
from eegtensor.training.optimizers import make_optimizer

# Of spd.md 1.6: the momentum falls during training, and not only from one.
ETAS = [1.0, 1.0, 0.9, 0.7, 0.5] + 15 * [0.2]


def test_sizes_and_types_are_the_published_ones() -> None:
    net = TSMNet(22, 4, 750)
    assert sum(p.numel() for p in net.parameters()) == 5309
    dtypes = {name: p.dtype for name, p in net.named_parameters()}
    assert dtypes["front.temporal.weight"] == torch.float32
    assert {dtypes[name] for name in dtypes if not name.startswith("front.")} == {
        torch.float64
    }
    assert net.front.temporal.weight.shape == (4, 1, 1, 25)
    assert net.front.spatial.weight.shape == (40, 4, 22, 1)
    assert net.bimap is not None and net.bimap.weight.shape == (40, 20)
    x = torch.randn(6, 22, 750)
    assert net.front(x).dtype == torch.float32 and net.spd(x).dtype == torch.float64
    assert net(x).shape == (6, 4)


def run(net: TSMNet, data: Any, y: Tensor, domain: Tensor) -> list[Tensor]:
    optimizer = make_optimizer(net, lr=1e-3)
    net.train()
    losses = []
    for eta in ETAS:
        net.norm.set_momentum(eta, min(eta, 0.3))
        optimizer.zero_grad()
        loss = F.cross_entropy(net(data, domain), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def test_both_fronts_train_to_the_same_network(device: str) -> None:
    x, y, domain = (t.to(device) for t in trials(30))
    conv, lag = (NETWORKS[front]().to(device) for front in ("conv", "lag"))
    first = run(conv, x, y, domain)
    second = run(lag, lag.front.statistics(x), y, domain)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-9)
    assert first[0] != first[-1]
    state = lag.state_dict()
    for name, value in conv.state_dict().items():
        scale = float(value.double().nan_to_num().abs().max()) if value.numel() else 0.0
        torch.testing.assert_close(
            value, state[name], rtol=0, atol=1e-9 * scale, equal_nan=True
        )
    # A trained network may change its path.
    conv.eval()
    logits = conv(x, domain)
    conv.front.path = "lag"
    torch.testing.assert_close(conv(x, domain), logits, rtol=0, atol=1e-9)


def test_matrices_and_features_are_the_layers_one_by_one() -> None:
    x, _, domain = trials()
    net = NETWORKS["conv"]().eval()
    S = net.front(x)
    W = net.bimap.weight
    torch.testing.assert_close(net.spd(x), W.mT @ S @ W, rtol=1e-9, atol=0)
    net.fit_statistics(x, domain)
    normed = net.norm(net.tail.rectified(net.spd(x)), domain)
    expected = upper_vector(logm(normed))
    torch.testing.assert_close(net.features(x, domain), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        net.tail(net.spd(x), domain), expected, rtol=0, atol=1e-9
    )
    torch.testing.assert_close(net.head(expected), net(x, domain), rtol=0, atol=1e-9)


def test_gradients_of_the_whole_network() -> None:
    x, y, domain = trials(9)
    net = NETWORKS["lag"]()
    run(net, x, y, domain)
    names = ["front.temporal.weight", "front.spatial.weight", "bimap.weight"]
    values = [net.get_parameter(n).detach().clone().requires_grad_() for n in names]

    def loss(*given: Tensor) -> Tensor:
        new = dict(zip(names, given, strict=True))
        # A copy, so that the statistics it starts from are always the same.
        again = copy.deepcopy(net)
        return F.cross_entropy(torch.func.functional_call(again, new, (x, domain)), y)

    assert torch.autograd.gradcheck(loss, values, atol=1e-6, rtol=1e-4)


def test_a_gradient_reaches_the_input() -> None:
    x, y, domain = trials()
    grads = []
    for name in ("conv", "lag"):
        given = x.clone().requires_grad_()
        F.cross_entropy(NETWORKS[name]()(given, domain), y).backward()
        assert given.grad is not None
        grads.append(given.grad)
    scale = float(grads[0].abs().max())
    torch.testing.assert_close(*grads, rtol=0, atol=1e-9 * scale)


def test_dtypes_can_be_mixed_and_changed() -> None:
    x, _, domain = trials()
    wide = NETWORKS["conv"]()
    published = TSMNet(
        6,
        3,
        60,
        domains=["ann", "bob", "eve"],
        n_temporal_filters=2,
        temporal_kernel=9,
        n_spatial_filters=5,
        subspace=4,
        random_state=0,
    )
    narrow = NETWORKS["conv"](dtype=torch.float32)
    changed = copy.deepcopy(wide).float()
    nets: list[Any] = [wide, published, narrow, changed]
    for net in nets:
        net.fit_statistics(x, domain)
        net.eval()
    logits = [net(x.float(), domain) for net in nets]
    assert [v.dtype for v in logits] == 2 * [torch.float64] + 2 * [torch.float32]
    for other in logits[1:]:
        torch.testing.assert_close(other.double(), logits[0], rtol=0, atol=1e-4)
    # .float() leaves statistics in float64.
    assert changed.norm.test_mean.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast(dtype: torch.dtype) -> None:
    x, y, domain = trials()
    net = NETWORKS["conv"](dtype=dtype)
    net.fit_statistics(x, domain)
    net.eval()
    expected = net(x, domain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(x.to(dtype), domain)
        F.cross_entropy(logits, y).backward()
    torch.testing.assert_close(logits.to(dtype), expected, rtol=0.02, atol=0.02)
    assert torch.isfinite(net.front.spatial.weight.grad).all()


def test_the_manifold_is_kept_over_many_steps() -> None:
    x, y, domain = trials(12)
    net = NETWORKS["lag"](dtype=torch.float32)
    statistics = net.front.statistics(x)
    optimizer = make_optimizer(net, lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(net(statistics, domain), y).backward()
        optimizer.step()
    W = net.bimap.weight.detach()
    assert float((W.mT @ W - torch.eye(4)).abs().max()) < 1e-6


def test_mistakes() -> None:
    with pytest.raises(EEGTensorError, match="n_outputs=0"):
        TSMNet(6, 0, 60)
    with pytest.raises(EEGTensorError, match="norm='batch' keeps no statistics of 2"):
        TSMNet(6, 3, 60, norm="batch", domains=["ann", "bob"])
    with pytest.raises(EEGTensorError, match="norm='layer' is not known"):
        TSMNet(6, 3, 60, norm="layer")
    with pytest.raises(EEGTensorError, match="features='power' is not known"):
        TSMNet(6, 3, 60, features="power")
    with pytest.raises(EEGTensorError, match="from 40 to 50"):
        TSMNet(6, 3, 60, subspace=50)
    with pytest.raises(EEGTensorError, match="dtype='half'"):
        TSMNet(6, 3, 60, spd_dtype="half")


@pytest.mark.skipif(
    "EEGTENSOR_TSMNET" not in os.environ,
    reason="set EEGTENSOR_TSMNET to a checkout of rkobler/TSMNet",
)
@pytest.mark.parametrize("front", ["conv", "lag"])
def test_equals_the_authors_code(front: str) -> None:
    from benchmarks.bench_tsmnet import CLASSES, authors_step, our_step
    from benchmarks.bench_tsmnet import trials as eeg

    x, y, domain = eeg()
    peer = authors_step(x, y, domain, classes=CLASSES)
    assert peer is not None
    _, step = our_step(x, y, domain, front=front, peer=peer[0])
    for _ in range(8):
        assert abs(float(step() - peer[1]())) < 1e-6
