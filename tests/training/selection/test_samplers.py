"""Samplers that look at how a run goes: importance, and the band of difficulty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    Checkpoint,
    CrossEntropy,
    Setup,
    build,
    make_plugs,
    train,
)
from eegtensor.training.network import forward_all
from eegtensor.training.perturbations import RWP
from eegtensor.training.samplers import DifficultyBandSampler, ImportanceSampler
from eegtensor.training.scores import el2n


def trial_gradients(net, x, y):
    rows = []
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1])
        g = torch.autograd.grad(loss, list(net.parameters()))
        rows.append(torch.cat([p.flatten() for p in g]))
    return torch.stack(rows).double()


def test_gradient_is_unbiased_and_varies_less():
    """In closed form over all draws of a trial, and by draws of the sampler."""
    g = torch.Generator().manual_seed(0)
    n = 60
    x = torch.randn(n, 5, generator=g)
    y = (x[:, 0] > 0).long()
    x[:48, 0] += 4.0 * (2.0 * y[:48] - 1)
    net = nn.Linear(5, 2)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[0, 0], net.weight[1, 0] = -1.0, 1.0
    G = trial_gradients(net, x, y)
    sampler = ImportanceSampler(n, tau=0.8, epochs=11)
    sampler.errors.scores = el2n(net(x).detach(), y).double()
    p, w = sampler.probabilities(11), sampler.weights(11).double()
    q = sampler.errors.scores
    torch.testing.assert_close(p, 0.8 * q / q.sum() + 0.2 / n)
    mean = G.mean(0)
    torch.testing.assert_close((p[:, None] * w[:, None] * G).sum(0), mean)
    variance = (p * ((w[:, None] * G - mean) ** 2).sum(1)).sum()
    uniform = ((G - mean) ** 2).sum(1).mean()
    assert variance < 0.5 * uniform, (variance, uniform)
    # Without the weights it is biased, as in the released code.
    assert ((p[:, None] * G).sum(0) - mean).norm() > 0.3 * mean.norm()
    drawn = []
    for seed in range(400):
        one = ImportanceSampler(n, tau=0.8, epochs=11, random_state=seed)
        one.errors.scores = q
        i = torch.cat(one.indices(11))
        drawn.append((w[i, None] * G[i]).mean(0))
    error = (torch.stack(drawn).mean(0) - mean).norm()
    assert error < 4 * float(torch.sqrt(variance / n / 400))


def test_first_epoch_is_uniform_and_tau_grows():
    sampler = ImportanceSampler(10, tau=0.6, epochs=4)
    sampler.errors.scores = torch.arange(10).double()
    assert torch.equal(sampler.weights(1), torch.ones(10))
    spread = [float(sampler.probabilities(e).max()) for e in (1, 2, 3, 4, 9)]
    assert spread[0] < spread[1] < spread[2] < spread[3] == spread[4]
    torch.testing.assert_close(spread[3], 0.6 * 9 / 45 + 0.04)


def test_errors_are_those_of_the_passes_of_training(trials, toy):
    """At a learning rate of zero every pass has the same outputs."""
    data = trials(60)
    x = data.x
    net = nn.Sequential(nn.Linear(8, 2))
    y = data.y.clone()
    y[:5] = -1
    data = Batch(x, y)
    setup = Setup(net, data, batch_size=16, epochs=8, lr=1e-12)
    for names in ({}, {"perturbation": "sam"}):
        sampler = build("importance(tau=0.5)", "sampler", setup)
        plugs = make_plugs(setup, sampler=sampler, **names)
        train(net, data, epochs=8, accumulate=2, **plugs)
        found, wanted = sampler.errors.scores, el2n(net(x).detach(), y)
        seen = found.isfinite()
        assert seen[5:].float().mean() > 0.9 and not seen[:5].any()
        torch.testing.assert_close(
            found[seen], wanted[seen].double(), atol=1e-5, rtol=1e-5
        )
        assert not net._forward_hooks


def test_a_run_goes_on_exactly(tmp_path, toy, trials, equal):
    data = trials(80)

    def run(epochs, folder):
        net = toy()
        setup = Setup(net, data, epochs=6, batch_size=20)
        plugs = make_plugs(setup, sampler="importance(tau=0.9)")
        checkpoint = None if folder is None else Checkpoint(folder)
        train(net, data, epochs=epochs, checkpoint=checkpoint, **plugs)
        return dict(net.state_dict())

    whole = run(6, None)
    run(3, tmp_path / "run")
    assert equal(run(6, tmp_path / "run"), whole)


def test_band_is_between_quantiles_of_each_person(toy, trials):
    data, net = trials(200), toy(dropout=0.0)
    setup = Setup(net, data, epochs=10, batch_size=25)
    sampler = build("difficulty-band(warmup=2, every=3)", "sampler", setup)
    sizes = []

    class Watch:
        def on_epoch_start(self, state):
            sizes.append(len(torch.cat(sampler.indices(state.epoch))))

    plugs = make_plugs(setup, sampler=sampler)
    before = {n: v.clone() for n, v in net.named_buffers()}
    train(net, data, epochs=2, callbacks=[Watch()], **plugs)
    assert sizes == [200, 200]
    assert any(not torch.equal(v, before[n]) for n, v in net.named_buffers())

    class State:
        model, epoch = net, 3

    buffers = {n: v.clone() for n, v in net.named_buffers()}
    sampler.on_epoch_start(State)
    # Scoring leaves the statistics of the run as they were.
    for name, value in net.named_buffers():
        assert torch.equal(value, buffers[name]), name
    kept = np.zeros(200, bool)
    kept[torch.cat(sampler.indices(3))] = True
    for d in range(4):
        inside = (data.domain == d).numpy()
        assert kept[inside].sum() == 30
    sampler.on_epoch_start(type("Other", (), {"model": net, "epoch": 4}))
    assert len(torch.cat(sampler.indices(4))) == 120


def test_band_of_given_scores_and_unlabelled_trials():
    scores = torch.arange(20.0)
    scores[0] = torch.nan
    sampler = DifficultyBandSampler(scores=scores, low=0.5, high=1.0)
    drawn = sorted(torch.cat(sampler.indices(1)).tolist())
    assert drawn == [0, *range(10, 20)]
    with pytest.raises(EEGTensorError, match="either"):
        DifficultyBandSampler()
    with pytest.raises(EEGTensorError, match="low"):
        DifficultyBandSampler(scores=scores, low=0.8, high=0.2)


def test_band_leaves_wrong_labels_out():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 10, generator=g)
    clean = (x[:, 0] > 0).long()
    x[:, 0] *= 2
    wrong = torch.rand(400, generator=g) < 0.15
    data = Batch(x, torch.where(wrong, 1 - clean, clean))
    torch.manual_seed(0)
    net = nn.Linear(10, 2)
    setup = Setup(net, data, epochs=20, batch_size=40, lr=0.02)
    plugs = make_plugs(setup, sampler="difficulty-band(low=0.0)")
    train(net, data, epochs=20, **plugs)
    kept = torch.cat(plugs["sampler"].indices(20))
    assert wrong[kept].double().mean() < 0.25 * wrong.double().mean()
    assert (forward_all(net, data).argmax(1) == clean).double().mean() > 0.9


def test_errors_are_of_the_first_pass_beside_one_on_other_trials():
    g = torch.Generator().manual_seed(0)
    data = Batch(torch.randn(40, 4, generator=g), torch.arange(40) % 2)
    net = nn.Linear(4, 2)
    want = el2n(net(data.x).detach(), data.y).double()
    sampler = ImportanceSampler(40, batch_size=8)
    drawn = torch.cat(sampler.indices(1)).unique()
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.0),
        sampler=sampler,
        perturbation=RWP(batch="previous"),
        epochs=1,
    )
    torch.testing.assert_close(sampler.errors.scores[drawn], want[drawn])
