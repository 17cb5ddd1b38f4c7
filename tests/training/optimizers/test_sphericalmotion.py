"""The angle of a step in equilibrium, and what is watched."""

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
    make_plugs,
    train,
)
from eegtensor.training.optimizers.sphericalmotion import (
    SphericalMotion,
    equilibrium_angle,
)


def fit(momentum, epochs, callback):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(10, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 2),
        )
        # Labels without a rule: gradients never end.
        x, y = torch.randn(512, 10), torch.randint(2, (512,))
    train(
        net,
        Batch(x, y),
        objective=CrossEntropy(),
        optimizer=torch.optim.SGD(
            net.parameters(), lr=0.1, momentum=momentum, weight_decay=5e-3
        ),
        sampler=ShuffleSampler(512, batch_size=16),
        epochs=epochs,
        callbacks=[callback],
    )
    return callback


def test_momentum_settles_at_the_angle_of_the_formula():
    watched = fit(0.9, 80, SphericalMotion())
    assert {row.name for row in watched.rows} == {"0.weight"}
    last = watched.rows[-30:]
    mean = sum(row.angle**2 for row in last) / 30
    assert last[0].expected == pytest.approx((2 * 0.1 * 5e-3 / 1.9) ** 0.5)
    assert mean**0.5 == pytest.approx(last[0].expected, rel=0.05)


def test_too_few_steps_are_said_to_be_too_few():
    watched = fit(0.0, 2, SphericalMotion(names=("0.weight",)))
    assert not watched.rows[-1].settled
    assert "not by 0.032" in watched.warnings[0]


def test_formula_and_mistakes():
    assert equilibrium_angle(0.1, 5e-3) == pytest.approx(0.0316, abs=1e-4)
    with pytest.raises(EEGTensorError, match="no parameter 'w'"):
        fit(0.0, 1, SphericalMotion(names=("w",)))


@pytest.mark.parametrize(
    "objective", ["ensloss", ("cross-entropy", "0.5 * vat"), "aldr"], ids=str
)
def test_a_watched_run_is_the_same(trials, equal, objective):
    def run(*callbacks):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            net = nn.Sequential(
                nn.Linear(8, 6, bias=False),
                nn.BatchNorm1d(6),
                nn.ReLU(),
                nn.Dropout(0.3),
                nn.Linear(6, 2),
            )
        data = Batch(trials(60).x, trials(60).y)
        setup = Setup(net, data, batch_size=20)
        plugs = make_plugs(setup, objective=objective, optimizer="sgd(lr=0.1)")
        train(net, data, **plugs, epochs=2, callbacks=callbacks)
        return net.state_dict()

    watched = SphericalMotion()
    assert equal(run(watched), run())
    assert {row.name for row in watched.rows} == {"0.weight"}


def test_rows_of_a_run_that_goes_on_are_those_of_one(tmp_path):
    class Stop(Exception):
        pass

    class Before:
        def on_epoch_start(self, state):
            if state.epoch == 3:
                raise Stop

    def run(watched, *others, path=None):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
            x, y = torch.randn(64, 10), torch.randint(2, (64,))
        train(
            net,
            Batch(x, y),
            objective=CrossEntropy(),
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=5e-3),
            sampler=ShuffleSampler(64, batch_size=16),
            epochs=4,
            callbacks=[watched, *others],
            checkpoint=None if path is None else Checkpoint(path),
        )
        return watched.rows

    class Nothing:
        pass

    whole, path = run(SphericalMotion(), Nothing()), tmp_path / "run"
    with pytest.raises(Stop):
        run(SphericalMotion(), Before(), path=path)
    assert run(SphericalMotion(), Nothing(), path=path) == whole
    assert [row.epoch for row in whole] == [1, 2, 3, 4]


def test_a_network_without_norms_is_searched_once_and_decay_free_is_settled():
    calls = []

    class Net(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    net, watched = Net(4, 2), SphericalMotion()
    for names, callback in (
        (None, watched),
        (("weight",), SphericalMotion(("weight",))),
    ):
        calls.clear()
        train(
            net,
            Batch(torch.randn(30, 4), torch.arange(30) % 2),
            objective=CrossEntropy(),
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            sampler=ShuffleSampler(30, batch_size=10),
            epochs=2,
            callbacks=[callback],
        )
        assert len(calls) == 6 + (0 if names else 2)
    assert watched.rows == []
    assert callback.rows[-1].settled and callback.warnings == []
