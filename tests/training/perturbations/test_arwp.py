"""ARWP and mRWP: damping, schedule and limits."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import StepContext
from eegtensor.training.perturbations import ARWP, MRWP, RWP


def row_sums(g):
    return (
        g**2
        if g.ndim == 1
        else (g**2).flatten(1).sum(dim=1).reshape(-1, *[1] * (g.ndim - 1))
    )


def noise_of(w, sigma, generator, sums, eta):
    found = []
    for i, leaf in enumerate(w):
        z = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        size = leaf.norm() if leaf.ndim == 1 else leaf.flatten(1).norm(dim=1)
        e = sigma * z * size.reshape(-1, *[1] * (leaf.ndim - 1))
        found.append(e if sums is None else e / (1 + eta * sums[i]).sqrt())
    return found


def test_arwp_steps_are_those_of_the_equations(steps, batches, gradients, network):
    method = ARWP(sigma=0.1, increase=0.0, eta=3.0, beta=0.8)
    run, data = steps(method), batches(4)
    for batch in data:
        run.take(batch)
    generator, model, sums = torch.Generator().manual_seed(5), network(), None
    w = [p.detach().clone() for p in model.parameters()]
    for batch in data:
        e = noise_of(w, 0.1, generator, sums, 3.0)
        g = gradients(model, [a + b for a, b in zip(w, e, strict=True)], batch)
        new = [row_sums(leaf) for leaf in g]
        sums = (
            new
            if sums is None
            else [0.8 * a + b for a, b in zip(sums, new, strict=True)]
        )
        w = [a - 0.3 * b for a, b in zip(w, g, strict=True)]
    for a, b in zip(run.weights, w, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_mrwp_steps_are_those_of_the_equations(steps, batches, gradients, network):
    run = steps(MRWP(sigma=0.1, mix=0.3, eta=3.0, beta=0.8))
    data = batches(4)
    for batch in data:
        run.take(batch)
    generator, model, sums = torch.Generator().manual_seed(5), network(), None
    w = [p.detach().clone() for p in model.parameters()]
    for i, batch in enumerate(data):
        e = noise_of(w, 0.1, generator, sums, 3.0)
        one = gradients(model, w, batch)
        noisy = [a + b for a, b in zip(w, e, strict=True)]
        two = gradients(model, noisy, data[max(i - 1, 0)])
        new = [row_sums(leaf) for leaf in two]
        sums = (
            new
            if sums is None
            else [0.8 * a + b for a, b in zip(sums, new, strict=True)]
        )
        w = [a - 0.3 * (0.7 * b + 0.3 * c) for a, b, c in zip(w, one, two, strict=True)]
    for a, b in zip(run.weights, w, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_without_damping_mrwp_is_rwp(steps, batches):
    a, b = steps(MRWP(sigma=0.1, eta=0.0)), steps(RWP(sigma=0.1))
    for batch in batches(3):
        a.take(batch)
        b.take(batch)
    assert all(map(torch.equal, a.weights, b.weights))


def test_without_damping_arwp_has_the_noise_of_rwp(steps, batches):
    # With mix=1 RWP steps by the gradient at the noisy weights alone.
    a = steps(ARWP(sigma=0.1, increase=0.0, eta=0.0))
    b = steps(RWP(sigma=0.1, mix=1.0, batch="same"))
    for batch in batches(3):
        a.take(batch)
        b.take(batch)
    assert all(map(torch.equal, a.weights, b.weights))


@pytest.mark.parametrize("make", [ARWP, MRWP])
def test_with_large_sums_a_step_is_a_plain_one(steps, batches, make):
    method = make(sigma=0.5, eta=1e30)
    run, plain = steps(method), steps(())
    first, second = batches()[0], batches(seed=7)[0]
    run.take(first)
    for p, q in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        q.data.copy_(p)
    if make is MRWP:
        method.on_epoch_start(None)
    run.take(second)
    plain.take(second)
    for a, b in zip(run.weights, plain.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_noise_rises_by_half_a_cosine():
    method = ARWP(sigma=0.001, increase=10.0)
    assert method.sigma_at(0.0) == 0.001
    assert method.sigma_at(0.5) == pytest.approx(0.006)
    assert method.sigma_at(1.0) == pytest.approx(0.011)


def test_manifold_leaves_have_one_sum(toy, trials, steps):
    method = ARWP(sigma=0.1)
    model = toy(dtype=torch.float64)
    data = trials(dtype=torch.float64)
    run = steps(method, model=model, lr=0.0)
    run.take(data)
    sums = method.state_dict()["sums"]
    assert sums["frame"].shape == () and sums["shape"].shape == ()
    space = run.network.space
    g = {n: p.grad for n, p in model.named_parameters()}
    frame = space.points()["frame"]
    u = g["frame"] - frame @ (frame.mT @ g["frame"] + g["frame"].mT @ frame) / 2
    assert float(sums["frame"]) == pytest.approx(float((u**2).sum()), rel=1e-9)


def test_memory_comes_back(steps, batches):
    for make in (ARWP, MRWP):
        method = make(sigma=0.2)
        run = steps(method)
        for batch in batches(2):
            run.take(batch)
        again = make(sigma=0.2)
        again.load_state_dict(method.state_dict())
        saved, loaded = method.state_dict()["sums"], again.state_dict()["sums"]
        assert saved and all(torch.equal(saved[n], loaded[n]) for n in saved)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="eta=-1"):
        ARWP(eta=-1)
    with pytest.raises(EEGTensorError, match="beta=1"):
        MRWP(beta=1.0)
    with pytest.raises(EEGTensorError, match="increase=-2"):
        ARWP(increase=-2)


@pytest.mark.parametrize("make", [ARWP, MRWP])
def test_noise_that_was_not_put_in_place_teaches_nothing(steps, batches, make):
    """As where a pass before it fails: what is in .grad is no gradient of its own."""
    method = make(sigma=0.2)
    run = steps(method)
    batch = batches(1)[0]
    run.take(batch)
    before = dict(method.state_dict()["sums"])
    context = StepContext(run.network, run.loss, batch, 1, 2, run.generator)
    method.sample(context).revert()
    after = method.state_dict()["sums"]
    assert all(torch.equal(before[n], after[n]) for n in before)
