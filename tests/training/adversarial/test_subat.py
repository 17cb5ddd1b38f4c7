"""Sub-AT: where its second part goes on, how wide it attacks, that it stays there."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import (
    Checkpoint,
    CrossEntropy,
    ParamSpace,
    Setup,
    ShuffleSampler,
    build,
    train,
)
from eegtensor.training.recipes import SubAT


class Watch:
    """The radius of every step, the rate, and the weights at the end of epochs."""

    def __init__(self, method):
        self.method, self.radius, self.rates, self.ends = method, [], [], []

    def on_step_end(self, state):
        budget = self.method.budget_of(state.context)
        self.radius.append((budget.eps, budget.step_size))

    def on_epoch_end(self, state):
        self.rates.append(state.optimizer.param_groups[0]["lr"])
        self.ends.append([p.detach().clone() for p in state.model.parameters()])


def made(net, data, epochs, **options):
    said = ", ".join(f"{k}={v!r}" for k, v in options.items())
    setup = Setup(net, data, batch_size=6, epochs=epochs)
    return build(f"sub-at({said})", "perturbation", setup)


def fit(net, data, method, epochs, *callbacks, momentum=0.9, **options):
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=momentum),
        sampler=ShuffleSampler(len(data), batch_size=6, random_state=0),
        perturbation=method,
        epochs=epochs,
        callbacks=callbacks,
        random_state=0,
        **options,
    )


def test_the_second_part_starts_at_the_first_weights_and_stays_in_the_span(
    small, drawn
):
    net, data = small(), drawn(24)
    first = [p.detach().clone() for p in net.parameters()]
    method = made(net, data, 10, eps=0.2, n_components=4, collect=0.5, lr=0.3)
    watch = Watch(method)
    fit(net, data, method, 10, watch)
    frame, space = method.frame_, ParamSpace(net)
    assert len(frame) == 4 and all(map(torch.equal, first, frame.base.values()))
    P = torch.cat([frame.directions[n].flatten(1) for n in space.leaves], dim=1)
    torch.testing.assert_close(P @ P.T, torch.eye(4).double(), rtol=0, atol=1e-10)
    moved = torch.cat(
        [(p.detach() - b).ravel() for p, b in zip(net.parameters(), first, strict=True)]
    )
    assert moved.norm() > 0.05
    assert (moved - P.T @ (P @ moved)).norm() < 1e-9 * moved.norm()
    # 4 steps an epoch: 5 epochs narrow, 5 wide, and the rate of each part.
    assert watch.radius[:19] == [(0.2, 0.25)] * 19
    assert watch.radius[20:] == [(0.4, 0.5)] * 20
    assert watch.rates == [0.1] * 5 + [0.3] * 5


def test_weights_are_recorded_twice_an_epoch(small, drawn):
    net, data = small(), drawn(24)
    method = made(net, data, 4, collect=0.9)
    seen = []

    class Count:
        def on_epoch_end(self, state):
            seen.append(len(method._subspace._trajectory.states))

    fit(net, data, method, 4, Count())
    # The first weights and two of each epoch, until directions are found.
    assert seen == [3, 5, 7, 0]
    assert len(method.frame_) == 8


def test_it_is_the_published_projection_for_sgd_with_momentum(small, drawn):
    """Holding the weights in the subspace is to project gradients, momenta too."""
    from eegtensor.training.transforms import DLDR

    ends = []
    for hold in (True, False):
        net, data = small(), drawn(24)
        method = made(net, data, 6, eps=0.2, n_components=3, collect=0.5, wider=1.0)
        transform = None
        if not hold:
            # Projects the gradients itself; weights are left where they come to.
            transform = DLDR(n_components=3, collect=0.5, hold=False)
            inner = method._subspace
            transform._trajectory = inner._trajectory
            method = build("fast(eps=0.2)", "perturbation", Setup(net, data))
            half = Half(transform)
        callbacks = () if hold else (half,)
        fit(net, data, method, 6, *callbacks, grad_transform=transform)
        ends.append([p.detach().clone() for p in net.parameters()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


class Half:
    """Records the middle of each epoch of four steps for a transform."""

    def __init__(self, transform):
        self.transform = transform

    def on_step_end(self, state):
        if state.step % 4 == 2 and self.transform.frame_ is None:
            self.transform._trajectory.record(state.model)


def test_a_step_costs_two_passes_where_pgd_with_ten_steps_has_eleven(small, drawn):
    """Specification: at most half the time of PGD-10."""
    counts = []
    for name in ("sub-at", "pgd(n_steps=10)"):
        net, data, passes = small(), drawn(24), []
        net.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        method = build(name, "perturbation", Setup(net, data, batch_size=6))
        fit(net, data, method, 2)
        counts.append(len(passes) / 8)
    assert counts == [2, 11]


def test_on_manifolds(toy, trials):
    net, data = toy(), trials(64)
    method = made(net, data, 6, n_components=3, collect=0.5)
    fit_toy(net, data, method)
    frame, shape = net.frame.detach(), net.shape.detach()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-5
    assert torch.linalg.eigvalsh(shape).min() > 0
    assert method.frame_ is not None


def fit_toy(net, data, method):
    from eegtensor.training import make_optimizer

    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-adam", lr=1e-2),
        sampler=ShuffleSampler(len(data), batch_size=16),
        perturbation=method,
        epochs=6,
    )


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_that_was_interrupted_goes_on_as_if_it_was_not(
    small, drawn, tmp_path, stop
):
    # Before and after the subspace is found; the run's length is said anew.
    data, nets = drawn(24), []

    class Stop:
        def on_epoch_end(self, state):
            state.stop = state.epoch == stop

    class Go:
        def on_train_start(self, state):
            state.stop = False

    for interrupted in (False, True):
        net = small()
        path = Checkpoint(tmp_path / str(interrupted))
        for last in [False, True] if interrupted else [True]:
            method = made(net, data, 6, n_components=3, collect=0.5, lr=0.2)
            extra = [Go()] if last else [Stop()]
            fit(net, data, method, 6, *extra, checkpoint=path)
        nets.append(net)
    assert all(map(torch.equal, *(n.parameters() for n in nets)))


def test_mistakes():
    for options in (
        {"wider": 0.0},
        {"lr": -1.0},
        {"collect": 1.0},
        {"n_components": 0},
    ):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            SubAT(**options)
