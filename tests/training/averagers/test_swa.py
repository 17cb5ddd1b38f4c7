"""SWA and EMA against torch's own and against means on manifolds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.geometry import frechet_mean
from eegtensor.training import (
    BestWeights,
    CrossEntropy,
    EarlyStopping,
    ParamSpace,
    ShuffleSampler,
    make_optimizer,
    train,
)
from eegtensor.training.averagers import EMA, SWA, Trajectory


def fit(net, data, averager, *callbacks, epochs=8, lr=0.05):
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-sgd", lr=lr),
        sampler=ShuffleSampler(len(data), batch_size=40),
        epochs=epochs,
        averager=averager,
        callbacks=callbacks,
    )
    return net


def test_a_run_ends_with_the_mean_of_its_last_epochs(toy, trials):
    net, recorded = toy(dtype=torch.float64), Trajectory(start=0.5)
    fit(net, trials(dtype=torch.float64), SWA(start=0.5), recorded)
    assert len(recorded.states) == 4
    space = ParamSpace(net)
    wanted = space.mean(recorded.states)
    for name, p in space.points().items():
        # Of SPD leaves the recursive mean is near the Frechet mean, not equal to it.
        tol = 1e-4 if name == "shape" else 1e-12
        torch.testing.assert_close(p, wanted[name], rtol=0, atol=tol)
    torch.testing.assert_close(
        net.frame.mT @ net.frame, torch.eye(3).double(), rtol=0, atol=1e-12
    )


def test_two_spd_points_have_their_geodesic_middle(toy):
    net, averager = toy(dtype=torch.float64), SWA(start=0.0)
    g = torch.Generator().manual_seed(0)
    points = []
    for _ in range(2):
        a = torch.randn(3, 3, generator=g, dtype=torch.float64)
        points.append(a @ a.mT + torch.eye(3))
        with torch.no_grad():
            net.shape.copy_(points[-1])
        averager.take(net, 1.0 / (averager._count + 1))
    found = averager.merge(averager.states, ParamSpace(net))["shape"]
    wanted = frechet_mean(torch.stack(points), metric="affine-invariant")
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_swa_of_steps_is_torchs(trials):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Linear(8, 2)
    peer = torch.optim.swa_utils.AveragedModel(net)

    class Peer:
        def on_step_end(self, state):
            if state.step % 3 == 0:
                peer.update_parameters(state.model)

    data = trials()
    fit(net, data, SWA(start=0.0, every=3), Peer())
    for p, q in zip(net.parameters(), peer.module.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_ema_is_torchs_once_it_has_warmed_up(trials):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Linear(8, 2)

    def peer_rule(mean, p, count):
        t = int(count)
        decay = min(0.7, (1 + t) / (10 + t))
        return decay * mean + (1 - decay) * p

    peer = torch.optim.swa_utils.AveragedModel(net, avg_fn=peer_rule)

    class Peer:
        def on_step_end(self, state):
            peer.update_parameters(state.model)

    fit(net, trials(), EMA(decay=0.7), Peer())
    for p, q in zip(net.parameters(), peer.module.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_statistics_are_those_of_the_average(toy, trials):
    net, data = toy(), trials()
    fit(net, data, SWA(start=0.5))
    inputs = []
    handle = net.batch_norm.register_forward_pre_hook(
        lambda module, args: inputs.append(args[0].detach())
    )
    net(data.x, data.domain)
    handle.remove()
    # What torch's batch norm sees at the average, up to the running domain means.
    assert (inputs[0].mean(dim=0) - net.batch_norm.running_mean).abs().max() < 0.2


@pytest.mark.parametrize("make", [SWA, EMA])
def test_memory_goes_through_its_state(toy, make):
    net, whole = toy(), make()
    other = make()
    for i in range(4):
        with torch.no_grad():
            net.head.weight.add_(1.0)
        whole.take(net, 0.3)
        if i == 1:
            other.load_state_dict(whole.state_dict())
        elif i > 1:
            other.take(net, 0.3)
    a, b = whole.states[0], other.states[0]
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert whole._count == other._count == 4


def test_folds_and_sites_are_merged_on_their_manifolds(toy):
    nets = [toy(seed=s, dtype=torch.float64) for s in range(3)]
    merged = SWA().merge([n.state_dict() for n in nets], ParamSpace(nets[0]))
    frame = merged["frame"]
    torch.testing.assert_close(
        frame.mT @ frame, torch.eye(3).double(), rtol=0, atol=1e-12
    )
    mean = torch.stack([n.head.weight.detach() for n in nets]).mean(dim=0)
    torch.testing.assert_close(merged["head.weight"], mean)


def test_a_run_too_short_ends_with_its_weights(toy, trials, equal):
    net, peer = toy(), toy()
    fit(net, trials(), SWA(start=0.9, every=1000), epochs=2)
    fit(peer, trials(), None, epochs=2)
    for p, q in zip(net.parameters(), peer.parameters(), strict=True):
        assert torch.equal(p, q)


def test_mistakes():
    for call in (
        lambda: SWA(start=1.0),
        lambda: SWA(every=0),
        lambda: EMA(decay=1.0),
        lambda: EMA(every=0),
    ):
        with pytest.raises(EEGTensorError, match="What to do"):
            call()


def test_the_best_epoch_does_not_take_the_place_of_the_average(toy, trials):
    for callback in (BestWeights("train_loss"), EarlyStopping("train_loss")):
        with pytest.raises(EEGTensorError, match="average"):
            fit(toy(), trials(), SWA(), callback, epochs=2)


def test_ema_of_its_first_weights_by_hand(toy):
    net, averager = toy(dtype=torch.float64), EMA(decay=0.3)
    wanted = None
    for t in range(6):
        with torch.no_grad():
            net.head.bias.fill_(float(t * t))
        averager.observe(net, t + 1)
        # The first is taken whole; then min(0.3, 2/11), 3/12, 4/13 = .3077, ...
        keep = min(0.3, (1 + t) / (10 + t))
        wanted = 0.0 if t == 0 else keep * wanted + (1 - keep) * t * t
        found = averager.states[0]["head.bias"]
        torch.testing.assert_close(found, torch.full((2,), wanted).double())
