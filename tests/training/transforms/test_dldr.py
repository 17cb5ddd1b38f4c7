"""DLDR: what is recorded, where training goes on, and that it stays there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    Checkpoint,
    CrossEntropy,
    ParamSpace,
    ShuffleSampler,
    make_optimizer,
    train,
)
from eegtensor.training.averagers import Trajectory
from eegtensor.training.transforms import DLDR


def network():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        x = torch.randn(80, 8).double()
    return net, Batch(x, (x[:, 0] > 0).long())


def fit(net, data, transform, *callbacks, epochs=8, optimizer="sgd", **options):
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, optimizer, lr=0.1, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=20),
        epochs=epochs,
        grad_transform=transform,
        callbacks=callbacks,
        **options,
    )
    return net


def flat(points, space):
    return torch.cat([points[n].detach().ravel() for n in space.leaves])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_stay_in_the_span_of_orthonormal_directions(optimizer):
    net, data = network()
    start = [p.detach().clone() for p in net.parameters()]
    transform = DLDR(n_components=3)
    fit(net, data, transform, optimizer=optimizer)
    frame, space = transform.frame_, ParamSpace(net)
    p = torch.cat([frame.directions[n].flatten(1) for n in space.leaves], dim=1)
    torch.testing.assert_close(p @ p.T, torch.eye(3).double(), rtol=0, atol=1e-10)
    assert all(map(torch.equal, start, frame.base.values()))
    moved = flat(space.points(), space) - flat(frame.base, space)
    assert moved.norm() > 0.1
    assert (moved - p.T @ (p @ moved)).norm() < 1e-10 * moved.norm()


def test_momenta_of_the_run_before_are_forgotten():
    net, data = network()
    transform = DLDR(n_components=3, hold=False)
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        sampler=ShuffleSampler(len(data), batch_size=20),
        epochs=8,
        grad_transform=transform,
    )
    frame, space = transform.frame_, ParamSpace(net)
    p = torch.cat([frame.directions[n].flatten(1) for n in space.leaves], dim=1)
    moved = flat(space.points(), space) - flat(frame.base, space)
    assert (moved - p.T @ (p @ moved)).norm() < 1e-10 * moved.norm()


def test_sgd_needs_no_way_back_to_the_subspace():
    ends = []
    for hold in (True, False):
        net, data = network()
        fit(net, data, DLDR(n_components=3, hold=hold))
        ends.append([p.detach() for p in net.parameters()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_with_every_direction_it_is_plain_sgd():
    net, data = network()
    space, g = ParamSpace(net), torch.Generator().manual_seed(0)
    n = sum(p.numel() for p in space.leaves.values())
    here = space.snapshot()
    states = [here] + [
        space.retract(space.scale(space.random_tangent(g), 0.1)) for _ in range(n + 3)
    ]
    transform = DLDR(n_components=n).fit(states, space)
    assert len(transform.frame_) == n
    peer, _ = network()
    fit(net, data, transform, epochs=3)
    fit(peer, data, None, epochs=3)
    for p, q in zip(net.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-9)


def test_going_on_from_the_last_weights():
    net, data = network()
    recorded, transform = Trajectory(), DLDR(n_components=3, restart=False)
    fit(net, data, transform, recorded)
    assert torch.equal(
        transform.frame_.base["0.weight"], recorded.states[3]["0.weight"]
    )


def test_on_manifolds(toy, trials):
    net, data = toy(dropout=0.0, dtype=torch.float64), trials(dtype=torch.float64)
    transform = DLDR(n_components=3)
    fit(net, data, transform, optimizer="riemannian-adam", epochs=10)
    frame = transform.frame_
    points = {
        n: p.detach().as_subclass(torch.Tensor) for n, p in frame.space.leaves.items()
    }
    on = frame.points(frame.coefficients(points))
    for n, p in points.items():
        torch.testing.assert_close(p, on[n], rtol=0, atol=1e-8)
    eye = torch.eye(3).double()
    torch.testing.assert_close(net.frame.mT @ net.frame, eye, rtol=0, atol=1e-10)


def test_a_run_that_goes_on_is_the_same(tmp_path):
    class Stop(Exception):
        pass

    class End:
        def on_epoch_start(self, state):
            if state.epoch == self.at:
                raise Stop

    whole, data = network()
    quiet = End()
    quiet.at = 0
    fit(whole, data, DLDR(n_components=3), quiet)
    for at in (3, 7):
        path, stopping = tmp_path / str(at), End()
        stopping.at = at
        with pytest.raises(Stop):
            fit(
                network()[0],
                data,
                DLDR(n_components=3),
                stopping,
                checkpoint=Checkpoint(path),
            )
        net = network()[0]
        fit(net, data, DLDR(n_components=3), quiet, checkpoint=Checkpoint(path))
        assert all(map(torch.equal, net.parameters(), whole.parameters()))


def test_mistakes():
    with pytest.raises(EEGTensorError, match="n_components=0"):
        DLDR(n_components=0)
    with pytest.raises(EEGTensorError, match=r"collect=1\.0"):
        DLDR(collect=1.0)


def test_it_goes_on_from_the_last_weights_of_a_long_run_too():
    net, data = network()
    transform, seen = DLDR(n_components=2, restart=False), {}
    # More epochs than are kept: every second one is recorded, the last is not.
    transform._trajectory.limit = 4

    class Last:
        def on_epoch_start(self, state):
            if state.epoch == 7:
                seen.update(transform.frame_.base)

        def on_step_end(self, state):
            if state.epoch == 6:
                seen["end"] = state.network.space.snapshot()

    fit(net, data, transform, Last(), epochs=12)
    end = seen.pop("end")
    assert all(torch.equal(end[n], p) for n, p in seen.items())


def test_options_of_the_wrong_type():
    for options in ({"n_components": 2.5}, {"restart": "no"}, {"collect": "half"}):
        with pytest.raises(EEGTensorError, match="What to do"):
            DLDR(**options)
