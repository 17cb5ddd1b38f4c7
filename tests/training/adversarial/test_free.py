"""Free adversarial training against its algorithm by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    Checkpoint,
    CrossEntropy,
    Setup,
    ShuffleSampler,
    build,
    make_optimizer,
    make_plugs,
    train,
)
from eegtensor.training.recipes import FreeAdversarial


def fit(net, data, recipe, epochs=2, lr=0.1, **options):
    return train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=torch.optim.SGD(net.parameters(), lr=lr),
        recipe=recipe,
        epochs=epochs,
        random_state=0,
        **options,
    )


def test_weights_are_those_of_the_algorithm(small, drawn):
    data, eps = drawn(24), 0.2
    ours, theirs = small(), small()
    sampler = ShuffleSampler(24, batch_size=6, random_state=0)
    fit(ours, data, FreeAdversarial(sampler, eps=eps, m=3), epochs=2)
    d = torch.zeros(6, 3, 6, dtype=torch.float64)
    for epoch in (1, 2):
        # Four batches of which the first two are replayed three times each.
        for index in sampler.indices(epoch)[:2]:
            x, y = data.x[index], data.y[index]
            s = x.std(dim=(0, 2), correction=0)[:, None]
            for _ in range(3):
                d.requires_grad_()
                theirs.zero_grad()
                nn.functional.cross_entropy(theirs(x + s * d), y).backward()
                with torch.no_grad():
                    for p in theirs.parameters():
                        p -= 0.1 * p.grad
                    d = (d + eps * d.grad.sign()).clamp(-eps, eps)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "steps"), [(24, 4, 4), (24, 1, 4), (30, 3, 6), (6, 8, 8)]
)
def test_an_epoch_costs_a_plain_one(small, drawn, n, m, steps):
    net, count = small(), []
    net.register_full_backward_hook(lambda *_: count.append(1))
    sampler = ShuffleSampler(n, batch_size=6, random_state=0)
    fit(net, drawn(n), FreeAdversarial(sampler, m=m), epochs=1)
    assert len(count) == steps


def test_statistics_are_those_of_the_clean_trials(toy, trials, equal):
    """With no step of the optimizer they are those of plain training."""
    states = []
    data = trials(64)
    for recipe in (True, False):
        net = toy(dropout=0.0)
        sampler = ShuffleSampler(64, batch_size=16, random_state=0)
        free = FreeAdversarial(sampler, eps=1.0, m=1)
        plugs = {"recipe": free} if recipe else {"sampler": sampler}
        train(
            net,
            data,
            objective=CrossEntropy(),
            optimizer=make_optimizer(net, "riemannian-sgd", lr=1e-30),
            epochs=2,
            **plugs,
        )
        states.append(dict(net.named_buffers()))
    assert equal(*states)


def test_a_run_that_was_interrupted_goes_on_as_if_it_was_not(small, drawn, tmp_path):
    data, nets = drawn(24), []
    for stops in ((4,), (2, 4)):
        net = small()
        for epochs in stops:
            sampler = ShuffleSampler(24, batch_size=6, random_state=0)
            fit(
                net, data, FreeAdversarial(sampler, m=2), epochs=epochs,
                checkpoint=Checkpoint(tmp_path / str(len(stops))),
            )  # fmt: skip
        nets.append(net)
    assert all(map(torch.equal, *(n.parameters() for n in nets)))


def test_by_name_with_the_samplers_batches(toy, trials):
    net, data = toy(), trials(64)
    setup = Setup(net, data, batch_size=16)
    plugs = make_plugs(setup, recipe="free(eps=0.2, m=2)", sampler="domain-balanced")
    assert plugs["recipe"].sampler is plugs["sampler"]
    train(net, data, epochs=2, **plugs)
    frame = net.frame.detach()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6


def test_trials_that_a_front_has_worked_on_are_refused():
    from eegtensor.models import TSMNet

    net = TSMNet(4, 2, 64, front="lag", n_spatial_filters=4, subspace=3)
    cached = Batch(net.front.statistics(torch.randn(8, 4, 64)), torch.zeros(8).long())
    with pytest.raises(EEGTensorError, match="front='conv'"):
        build("free", "recipe", Setup(net, cached))


def test_mistakes():
    sampler = ShuffleSampler(4, batch_size=2)
    for options in ({"eps": 0.0}, {"m": 0}, {"step_size": -1.0}, {"norm": "l0"}):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            FreeAdversarial(sampler, **options)
