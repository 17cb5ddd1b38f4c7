"""Every method that keeps something: a run stopped anywhere ends with the same bits."""

from __future__ import annotations

import pytest
import torch

from eegtensor.training import (
    Batch,
    Checkpoint,
    CrossEntropy,
    Setup,
    ShuffleSampler,
    make_optimizer,
    make_plugs,
    train,
)
from eegtensor.training.averagers import TWA

EPOCHS = 4
METHODS = [
    {"optimizer": "riemannian-adam(amsgrad=True)"},
    {"optimizer": "riemannian-sgd(momentum=0.9)"},
    {"optimizer": "pnm"},
    {"optimizer": "adapnm(amsgrad=False)"},
    {"averager": "swa(start=0.0)"},
    {"averager": "swa(start=0.3, every=3)"},
    {"averager": "ema(every=2)"},
    {"averager": "twa(start=0.0, epochs=2, lr=0.1, keep_best=False)"},
    {"averager": "twa(start=0.0, epochs=2, every=1, limit=3)"},
    {"averager": "mehl-soup(start=0.0, epochs=1, models=2, rounds=2)"},
    {"averager": "mehl-soup(start=0.0, epochs=1, by_layer=True)"},
    {"grad_transform": "dldr(n_components=2)"},
    {"grad_transform": "dldr(n_components=2, restart=False)"},
    {"grad_transform": "fngd(refresh_every=2)"},
    {"grad_transform": "dtnh(alpha=0.1)"},
    {"grad_transform": "dtnh(alpha=0.1, pull='predictions')"},
    {"grad_transform": "udim", "perturbation": "sam"},
    {"recipe": "m3s(stages=2)"},
    {
        "optimizer": "adapnm",
        "perturbation": "f-sam",
        "averager": "ema",
        "grad_transform": "dldr(n_components=2)",
    },
]


class Stop(Exception):
    pass


class StopBefore:
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_start(self, state):
        if state.epoch == self.epoch:
            raise Stop


def fit(toy, trials, method, *, callbacks=(), path=None):
    net, data = toy(), trials(80)
    if "recipe" in method:
        data.y[::2] = -1
    setup = Setup(net, data, epochs=EPOCHS, batch_size=40, lr=0.02, domains_per_batch=2)
    plugs = make_plugs(setup, **{"optimizer": "riemannian-sgd"} | method)
    train(
        net,
        data,
        **plugs,
        epochs=EPOCHS,
        callbacks=callbacks,
        checkpoint=None if path is None else Checkpoint(path),
    )
    return net.state_dict()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_run_stopped_anywhere_ends_with_the_same_bits(
    toy, trials, equal, method, tmp_path
):
    whole = fit(toy, trials, method)
    for epoch in range(2, EPOCHS + 1):
        path = tmp_path / str(epoch)
        with pytest.raises(Stop):
            fit(toy, trials, method, callbacks=[StopBefore(epoch)], path=path)
        assert equal(whole, fit(toy, trials, method, path=path)), epoch
    # Stopped behind the last epoch, while an average was learned or put in place.
    assert equal(whole, fit(toy, trials, method, path=tmp_path / str(EPOCHS)))


def test_a_run_stopped_while_its_average_is_learned_learns_it(
    toy, trials, equal, tmp_path
):
    def run(path=None, broken=False, averager=None):
        net, data = toy(), trials(80)
        averager = averager or TWA(start=0.0, epochs=2, lr=0.1, keep_best=False)
        if broken:

            def merge(*args):
                raise Stop

            averager.merge = merge
        train(
            net,
            data,
            objective=CrossEntropy(),
            optimizer=make_optimizer(net, "riemannian-sgd", lr=0.02),
            sampler=ShuffleSampler(80, batch_size=40),
            epochs=3,
            averager=averager,
            checkpoint=None if path is None else Checkpoint(path),
        )
        return net.state_dict()

    whole, path = run(), tmp_path / "run"
    with pytest.raises(Stop):
        run(path, broken=True)
    assert equal(whole, run(path))
    mean = run(averager=TWA(start=0.0, lr=0.0))
    assert not equal(whole, mean), "the average was learned"


def test_what_a_file_brings_goes_to_the_network_of_the_run(
    toy, trials, device, tmp_path
):
    """Averages of weights of which some come from a file, some from the run."""
    for method in (
        {"averager": "twa(start=0.0, epochs=1)"},
        {"grad_transform": "dldr(n_components=2)"},
    ):
        path = tmp_path / method.get("averager", "dldr")[:4]

        def on(place, *callbacks, method=method, path=path):
            net, data = toy().to(place), trials(80, device=place)
            setup = Setup(net, data, epochs=4, batch_size=40)
            plugs = make_plugs(setup, **{"optimizer": "riemannian-sgd"} | method)
            train(
                net,
                data,
                **plugs,
                epochs=4,
                callbacks=callbacks,
                checkpoint=Checkpoint(path),
            )
            return net

        with pytest.raises(Stop):
            on(device, StopBefore(4))
        net = on(device)
        assert all(torch.isfinite(p).all() for p in net.parameters())


def test_unlabelled_trials_and_one_domain(toy, trials):
    """Half of the trials without a class, all of one person, one batch an epoch."""
    data = trials(60, n_domains=1)
    data.y[::2] = -1
    data = Batch(data.x, data.y, data.domain)
    for method in METHODS:
        net = toy(n_domains=1)
        setup = Setup(net, data, epochs=3, batch_size=60, domains_per_batch=1)
        plugs = make_plugs(setup, **{"optimizer": "riemannian-sgd"} | method)
        train(net, data, **plugs, epochs=3)
        assert all(torch.isfinite(p).all() for p in net.parameters()), method
