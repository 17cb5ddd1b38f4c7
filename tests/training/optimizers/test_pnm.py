"""PNM and AdaPNM against their equations, their limits and manifolds."""

from __future__ import annotations

import copy

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import (
    CrossEntropy,
    ParamSpace,
    ShuffleSampler,
    make_optimizer,
    train,
)
from eegtensor.training.optimizers import PNM, AdaPNM, load_optimizer


def drive(make, gradients, **options):
    """Return the points along a run on given gradients."""
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]).double())
    optimizer, path = make([w], **options), []
    for g in gradients:
        w.grad = g.clone()
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path)


def draws(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=g, dtype=torch.float64)


def test_pnm_is_its_equations():
    found = drive(PNM, draws(7), lr=0.1, betas=(0.8, 0.7), weight_decay=0.05)
    w, m = torch.tensor([1.0, -2.0]).double(), [torch.zeros(2).double()] * 2
    for t, g in enumerate(draws(7)):
        k = t % 2
        m[k] = 0.64 * m[k] + 0.36 * g
        d = (1.7 * m[k] - 0.7 * m[1 - k]) / (1.7**2 + 0.7**2) ** 0.5
        w = w * (1 - 0.1 * 0.05) - 0.1 * d
        torch.testing.assert_close(found[t], w, rtol=0, atol=1e-14)


@pytest.mark.parametrize("amsgrad", [True, False])
def test_adapnm_is_its_equations(amsgrad):
    options = {"lr": 0.1, "weight_decay": 0.05, "amsgrad": amsgrad}
    found = drive(AdaPNM, draws(7), betas=(0.8, 0.9, 0.7), **options)
    w, m = torch.tensor([1.0, -2.0]).double(), [torch.zeros(2).double()] * 2
    v = top = torch.zeros(2).double()
    for t, g in enumerate(draws(7)):
        k = t % 2
        m[k] = 0.64 * m[k] + 0.36 * g
        v = 0.9 * v + 0.1 * g**2
        top = torch.maximum(top, v)
        root = ((top if amsgrad else v) / (1 - 0.9 ** (t + 1))).sqrt() + 1e-8
        d = (1.7 * m[k] - 0.7 * m[1 - k]) / (1.7**2 + 0.7**2) ** 0.5
        w = w * (1 - 0.1 * 0.05) - 0.1 * d / root / (1 - 0.8 ** (t + 1))
        torch.testing.assert_close(found[t], w, rtol=0, atol=1e-14)


def test_a_constant_gradient_moves_by_its_fifth_root_share():
    g = torch.tensor([3.0, -1.0]).double()
    path = drive(PNM, [g] * 300, lr=0.01)
    torch.testing.assert_close(path[-2] - path[-1], 0.01 * g / 5**0.5)


def test_noise_of_the_step_is_that_of_one_momentum():
    # An average with decay .81 of white noise has variance (1 - .81) / (1 + .81).
    path = drive(PNM, draws(15000), lr=1.0)
    steps = (path[1:] - path[:-1])[500:]
    assert steps.var(dim=0).mean() == pytest.approx(0.19 / 1.81, rel=0.05)


@pytest.mark.parametrize("name", ["pnm", "adapnm"])
def test_manifolds_are_kept_and_learned_on(toy, trials, name):
    net, data = toy(dropout=0.0), trials()
    history = train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, name, lr=0.02),
        sampler=ShuffleSampler(len(data), batch_size=40),
        epochs=25,
    )
    losses = history.column("train_loss")
    assert losses[-1] < 0.75 * losses[0]
    frame, shape = net.frame.detach(), net.shape.detach()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(shape)[0] > 0
    assert (shape - shape.mT).abs().max() < 1e-6


@pytest.mark.parametrize("make", [PNM, AdaPNM])
def test_momenta_stay_tangent(toy, make):
    net = toy(dtype=torch.float64)
    optimizer = make([net.frame, net.shape], lr=0.1)
    g = torch.Generator().manual_seed(0)
    for _ in range(5):
        for p in (net.frame, net.shape):
            p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype)
        optimizer.step()
    for name in ("odd", "even"):
        m, p = optimizer.state[net.frame][name], net.frame.detach()
        torch.testing.assert_close(m.mT @ p, -p.mT @ m, rtol=0, atol=1e-12)
        m = optimizer.state[net.shape][name]
        torch.testing.assert_close(m, m.mT, rtol=0, atol=1e-10)


def test_steps_on_a_manifold_do_not_depend_on_its_coordinates():
    # A rotation of the frame's rows and of its gradients rotates the path.
    import geoopt

    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(5, 5, generator=g, dtype=torch.float64))[0]
    start = torch.linalg.qr(torch.randn(5, 2, generator=g, dtype=torch.float64))[0]
    forces = torch.randn(6, 5, 2, generator=g, dtype=torch.float64)

    def end(turn):
        p = geoopt.ManifoldParameter(turn @ start, manifold=geoopt.EuclideanStiefel())
        optimizer = AdaPNM([p], lr=0.1)
        for force in forces:
            p.grad = turn @ force
            optimizer.step()
        return p.detach()

    eye = torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(end(q), q @ end(eye), rtol=0, atol=1e-12)


def test_a_saved_state_goes_on_exactly():
    g = draws(6)
    w = torch.nn.Parameter(torch.zeros(2).double())
    optimizer = AdaPNM([w], lr=0.1)
    for row in g[:3]:
        w.grad = row
        optimizer.step()
    v = torch.nn.Parameter(w.detach().clone())
    again = AdaPNM([v], lr=0.1)
    load_optimizer(again, copy.deepcopy(optimizer.state_dict()))
    for row in g[3:]:
        w.grad = v.grad = row
        optimizer.step()
        again.step()
    assert torch.equal(w, v)


def test_parameters_without_gradient_stay():
    layer = torch.nn.Linear(2, 2)
    optimizer = PNM(layer.parameters(), lr=0.1)
    layer.bias.grad = torch.ones(2)
    before = layer.weight.detach().clone()
    optimizer.step()
    assert torch.equal(layer.weight, before) and ParamSpace(layer)


def test_mistakes():
    w = [torch.nn.Parameter(torch.zeros(2))]
    with pytest.raises(EEGTensorError, match="betas"):
        PNM(w, betas=(1.0, 1.0))
    with pytest.raises(EEGTensorError, match="lr=-1"):
        AdaPNM(w, lr=-1)
    # Each has its own number of betas.
    with pytest.raises(EEGTensorError, match="give 2 numbers"):
        PNM(w, betas=(0.9, 0.999, 1.0))
    with pytest.raises(EEGTensorError, match="give 3 numbers"):
        AdaPNM(w, betas=(0.9, 1.0))
    with pytest.raises(EEGTensorError, match="eps"):
        AdaPNM(w, eps=-1e-8)
    with pytest.raises(EEGTensorError, match="amsgrad"):
        AdaPNM(w, amsgrad="no")
    with pytest.raises(TypeError):
        PNM(w, eps=1e-8)
