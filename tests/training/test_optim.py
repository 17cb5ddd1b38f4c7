from __future__ import annotations

import geoopt
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import CrossEntropy, ShuffleSampler, make_optimizer, train


def test_manifold_parameters_are_not_decayed(toy):
    net = toy()
    optimizer = make_optimizer(net, weight_decay=0.1)
    flat, curved = optimizer.param_groups
    assert {id(p) for p in curved["params"]} == {id(net.frame), id(net.shape)}
    assert curved["weight_decay"] == 0 and flat["weight_decay"] == 0.1
    assert len(flat["params"]) == 4
    assert isinstance(optimizer, geoopt.optim.RiemannianAdam)
    assert make_optimizer(nn.Linear(2, 2), lr=0.1).param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("name", ["riemannian-adam", "riemannian-sgd"])
def test_parameters_stay_on_their_manifolds_for_1000_steps(toy, trials, device, name):
    net = toy().to(device)
    start = net.frame.detach().clone()
    batch = trials(40, device=device)
    options = {"momentum": 0.9} if name.endswith("sgd") else {}
    # Nothing holds the scale before a batch norm; plain steps drive it to cond 1e7.
    net.shape.requires_grad_(name.endswith("adam"))
    optimizer = make_optimizer(net, name, lr=0.01, **options)
    for _ in range(1000):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(batch.x, batch.domain), batch.y)
        loss.backward()
        optimizer.step()
    eye = torch.eye(3, device=device)
    assert (net.frame.mT @ net.frame - eye).abs().max() < 1e-6
    assert (net.frame - start).norm() > 0.1, "it moved"
    assert (net.shape - net.shape.mT).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(net.shape.detach()).min() > 0


def test_riemannian_adam_on_flat_parameters_is_adam():
    nets = [nn.Linear(3, 2) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(20, 3)
    for net, name in zip(nets, ["riemannian-adam", "adam"], strict=True):
        optimizer = make_optimizer(net, name, lr=0.05, weight_decay=1e-2)
        for _ in range(30):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(nets[0].weight, nets[1].weight, rtol=1e-4, atol=1e-6)


def test_mistakes(toy, trials):
    net = toy()
    with pytest.raises(EEGTensorError, match="name='lion' is not known"):
        make_optimizer(net, "lion")
    with pytest.raises(EEGTensorError, match="off their manifolds: frame, shape"):
        make_optimizer(net, "adamw")
    with pytest.raises(EEGTensorError, match="no trainable parameters"):
        make_optimizer(nn.Dropout())
    stiefel = nn.Linear(2, 2)
    stiefel.weight = geoopt.ManifoldParameter(torch.eye(2), manifold=geoopt.Stiefel())
    with pytest.raises(EEGTensorError, match="CanonicalStiefel"):
        make_optimizer(stiefel)

    def run(optimizer):
        data = trials(20)
        train(
            net,
            data,
            objective=CrossEntropy(),
            optimizer=optimizer,
            sampler=ShuffleSampler(len(data)),
            epochs=1,
        )

    with pytest.raises(EEGTensorError, match="holds none of the parameters of Toy"):
        run(make_optimizer(toy()))
    with pytest.raises(EEGTensorError, match="Adam would move parameters off"):
        run(torch.optim.Adam(net.parameters()))
    with pytest.raises(
        EEGTensorError, match=r"Weight decay is on for .*: frame, shape"
    ):
        run(geoopt.optim.RiemannianAdam(net.parameters(), weight_decay=1e-4))
