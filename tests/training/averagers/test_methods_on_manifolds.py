"""Every method of weights by its name: on its manifolds, statistics, exact resume."""

from __future__ import annotations

import pytest
import torch

from eegtensor.training import Checkpoint, Setup, ShuffleSampler, make_plugs, train

METHODS = [
    {"perturbation": "sam"},
    {"perturbation": "f-sam"},
    {"perturbation": "rwp(sigma=0.1)"},
    {"perturbation": "arwp(sigma=0.1)"},
    {"perturbation": "mrwp(sigma=0.1)"},
    {"perturbation": "gradient-norm(bound=0.01)"},
    {"perturbation": "noisy-gradient"},
    {"optimizer": "pnm"},
    {"optimizer": "adapnm"},
    {"grad_transform": "dldr(n_components=3)"},
    {"grad_transform": "fngd"},
    {"averager": "swa"},
    {"averager": "ema"},
    {"averager": "twa(epochs=2, limit=6)"},
    {"averager": "mehl-soup(epochs=2, limit=6)"},
    {"averager": "mehl-soup(by_layer=True, epochs=2, limit=6)"},
]


def fit(toy, trials, method, *, epochs, callbacks=(), checkpoint=None, n=160):
    net, data = toy(), trials(n)
    setup = Setup(net, data, epochs=epochs, batch_size=40, lr=0.01)
    plugs = make_plugs(setup, **{"optimizer": "riemannian-sgd"} | method)
    plugs["sampler"] = ShuffleSampler(len(data), batch_size=40)
    train(
        net,
        data,
        **plugs,
        epochs=epochs,
        callbacks=callbacks,
        checkpoint=checkpoint,
    )
    return net


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_manifolds_are_kept_over_a_thousand_steps(toy, trials, method):
    net = fit(toy, trials, method, epochs=250)
    frame, shape = net.frame.detach(), net.shape.detach()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6
    assert (shape - shape.mT).abs().max() <= 1e-6 * shape.abs().max()
    assert torch.linalg.eigvalsh(shape.double())[0] > 0
    assert all(torch.isfinite(p).all() for p in net.parameters())


class Stop(Exception):
    pass


class StopBefore:
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_start(self, state):
        if state.epoch == self.epoch:
            raise Stop


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_run_that_goes_on_gives_the_same_bits(toy, trials, equal, method, tmp_path):
    whole = fit(toy, trials, method, epochs=4, n=80)
    with pytest.raises(Stop):
        fit(
            toy,
            trials,
            method,
            epochs=4,
            callbacks=[StopBefore(4)],
            checkpoint=Checkpoint(tmp_path / "run"),
            n=80,
        )
    again = fit(
        toy, trials, method, epochs=4, checkpoint=Checkpoint(tmp_path / "run"), n=80
    )
    assert equal(whole.state_dict(), again.state_dict())


@pytest.mark.parametrize("method", METHODS[:9], ids=str)
def test_statistics_move_once_a_step(toy, trials, method):
    net = fit(toy, trials, method, epochs=2, n=80)
    assert int(net.norm.seen) == int(net.batch_norm.num_batches_tracked) == 4
