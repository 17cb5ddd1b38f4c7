"""Every method of this kind by its name, on a network with every kind of part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import simulate_trials
from eegtensor.models import FilterBankTSMNet
from eegtensor.training import Batch, Checkpoint, Setup, make_plugs, train
from eegtensor.training.registry import build
from eegtensor.transfer import TSMNetClassifier

COMMON = "cross-entropy"
RUNS = {
    "vat": {"objective": (COMMON, "vat(n_iter=2, ramp=2)")},
    "tnar": {"objective": (COMMON, "0.5 * tnar(n_directions=3, neighbours=8)")},
    "pani": {"objective": (COMMON, "pani(n_neighbours=4)")},
    "hessian-alignment": {"objective": (COMMON, "hessian-alignment(start=0.0)")},
    "hutchinson": {
        "objective": (COMMON, "hessian-alignment(estimator='hutchinson', start=0.0)")
    },
    "subject-dro": {"objective": "subject-dro(nu=0.2)"},
    "nnpu": {"objective": "nnpu(prior=0.4)"},
    "udim": {"perturbation": "sam", "grad_transform": "udim(start=0.0)"},
    "dtnh": {"grad_transform": "dtnh(alpha=0.1)"},
    "dtnh predictions": {"grad_transform": "dtnh(alpha=1.0, pull='predictions')"},
    "pani-mixup": {"perturbation": "pani-mixup"},
    "advstyle": {"perturbation": "advstyle(at='front')"},
    "m3s": {"recipe": "m3s(stages=3, per_class=5)"},
}


class WithTime(torch.nn.Module):
    """The toy behind a mean over time, so that channels have styles."""

    def __init__(self, toy):
        super().__init__()
        self.front = torch.nn.Identity()
        self.toy = toy()
        self.head = self.toy.head

    def forward(self, x, domain):
        return self.toy(self.front(x).mean(2), domain)


def run(name, toy, trials, epochs, checkpoint=None, lr=0.02):
    net, data = toy(), trials(96)
    y = data.y.clone()
    if name != "nnpu":
        y[::5] = -1
    x = data.x
    if name == "advstyle":
        net = WithTime(toy)
        g = torch.Generator().manual_seed(0)
        x = x[..., None] + torch.randn(96, 8, 10, generator=g)
    data = Batch(x, y, data.domain)
    options = dict(RUNS[name])
    recipe = options.pop("recipe", None)
    setup = Setup(net, data, epochs=epochs, batch_size=48, domains_per_batch=4, lr=lr)
    plugs = make_plugs(setup, **{"sampler": "domain-balanced", **options})
    if recipe is not None:
        plugs = {**plugs, "recipe": build(recipe, "recipe", setup), "sampler": None}
    history = train(
        net,
        data,
        epochs=epochs,
        random_state=0,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint),
        **plugs,
    )
    return net, history


def check(net):
    toy = getattr(net, "toy", net)
    frame = toy.frame.detach().as_subclass(torch.Tensor).double()
    error = (frame.T @ frame - torch.eye(3)).abs().max()
    shape = toy.shape.detach().as_subclass(torch.Tensor).double()
    assert float(error) < 1e-6
    assert float((shape - shape.T).abs().max()) < 1e-6 * float(shape.abs().max())
    assert float(torch.linalg.eigvalsh(shape).min()) > 0
    assert all(bool(torch.isfinite(t).all()) for t in net.state_dict().values())


@pytest.mark.parametrize("name", RUNS)
def test_parameters_stay_on_their_manifolds(name, toy, trials, equal):
    net, _ = run(name, toy, trials, 4)
    check(net)
    assert equal(net.state_dict(), run(name, toy, trials, 4)[0].state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_they_stay_there_for_a_thousand_steps(name, toy, trials):
    # With .02 plain cross entropy leaves the cone of geoopt's own SPD parameter.
    check(run(name, toy, trials, 500, lr=1e-3)[0])


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    name, toy, trials, equal, tmp_path, monkeypatch
):
    whole, _ = run(name, toy, trials, 4)
    path, save = tmp_path / "run.safetensors", Checkpoint.save

    def save_then_die(self, state):
        save(self, state)
        if state.epoch == 2:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save_then_die)
    with pytest.raises(Killed):
        run(name, toy, trials, 4, path)
    monkeypatch.setattr(Checkpoint, "save", save)
    resumed, _ = run(name, toy, trials, 4, path)
    assert equal(whole.state_dict(), resumed.state_dict())


def test_an_estimator_with_several_of_them():
    trials = simulate_trials(n_subjects=3, n_sessions=1, n_trials=16, n_channels=5)
    model = TSMNetClassifier(
        n_spatial_filters=5,
        subspace=3,
        epochs=2,
        batch_size=12,
        domains_per_batch=3,
        validation=None,
        objective=(COMMON, "vat", "tnar", "pani", "hessian-alignment(start=0.0)"),
        perturbation=("sam", "advstyle"),
        grad_transform="udim(start=0.0)",
    )
    model.fit(trials.X, trials.y, subjects=trials.subjects)
    assert np.isfinite(model.predict_proba(trials.X)).all()


def test_a_network_of_bands():
    g = torch.Generator().manual_seed(0)
    x = 1e-6 * torch.randn(12, 6, 128, generator=g)
    domain = torch.arange(12) % 2
    net = FilterBankTSMNet(6, 2, 128, n_bands=2, domains=("a", "b"), random_state=0)
    data = Batch(x, domain, domain)
    setup = Setup(net, data, epochs=2, batch_size=12)
    plugs = make_plugs(
        setup,
        objective=(COMMON, "vat(ramp=0)", "tnar(ramp=0)", "pani(ramp=0)"),
        perturbation="advstyle",
    )
    history = train(net, data, epochs=2, **plugs)
    assert np.isfinite(history[-1]["train_loss"])
