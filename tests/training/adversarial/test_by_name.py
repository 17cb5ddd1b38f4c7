"""All methods by their names in TSMNetClassifier: manifolds, statistics, fronts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.models import TSMNet
from eegtensor.simulate import simulate_trials
from eegtensor.training import METHODS, Batch, Setup, make_plugs, train
from eegtensor.training.methods.perturbations import PERTURBATIONS
from eegtensor.transfer import TSMNetClassifier

BY_NAME = {
    "pgd": {"perturbation": "pgd(eps=0.2, n_steps=2)"},
    "l2": {"perturbation": "pgd(eps=2.0, n_steps=2, norm='l2')"},
    "kl": {"perturbation": "pgd(n_steps=2, loss='kl')"},
    "fast": {"perturbation": "fast(watch=True)"},
    "amata": {"perturbation": "amata(k_min=1, k_max=2)"},
    "yopo": {"perturbation": "yopo(m=2, n=2)"},
    "sub-at": {"perturbation": "sub-at(n_components=2, collect=0.5)"},
    "free": {"recipe": "free(m=2)"},
    "meow": {"objective": "meow(n_steps=2)"},
    "doubly-robust": {
        "objective": "doubly-robust(groups='domain')",
        "perturbation": "fast",
    },
    "d2r": {"objective": "d2r(n_steps=1)"},
    "sam": {"perturbation": ("pgd(n_steps=1)", "sam")},
    "averaged": {"perturbation": "fast", "averager": "swa", "validation": None},
    "projected": {"perturbation": "fast", "grad_transform": "dldr(n_components=2)"},
}
SIZES = {
    "n_spatial_filters": 6,
    "subspace": 4,
    "temporal_kernel": 9,
    "epochs": 2,
    "batch_size": 20,
    "domains_per_batch": 2,
}


@pytest.fixture(scope="module")
def signals():
    t = simulate_trials(
        n_subjects=2, n_sessions=1, n_trials=24, n_channels=4, sfreq=64.0,
        snr=3.0, random_state=0,
    )  # fmt: skip
    return np.asarray(t.X), t.y, t.metadata["subject"].to_numpy()


@pytest.mark.parametrize("name", BY_NAME)
def test_it_trains_and_keeps_maps_on_their_manifold(name, signals):
    X, y, subjects = signals
    model = TSMNetClassifier(front="conv", **(SIZES | BY_NAME[name]))
    model.fit(X, y, subjects=subjects)
    assert np.isfinite(model.predict_proba(X, subjects=subjects)).all()
    W = model.network_.bimap.weight.detach()
    assert (W.mT @ W - torch.eye(4)).abs().max() < 1e-12
    assert all(torch.isfinite(p).all() for p in model.network_.parameters())
    assert torch.linalg.eigvalsh(model.network_.norm.test_mean).min() > 0


@pytest.mark.parametrize("name", ["pgd", "fast", "yopo", "free", "meow", "d2r"])
def test_fronts_that_are_computed_once_are_refused(name, signals):
    X, y, subjects = signals
    model = TSMNetClassifier(front="lag", **(SIZES | BY_NAME[name]))
    with pytest.raises(EEGTensorError, match="front='conv'"):
        model.fit(X, y, subjects=subjects)


@pytest.fixture
def network(signals):
    X, y, subjects = signals
    codes = np.unique(y, return_inverse=True)[1]
    data = Batch(
        torch.from_numpy(X),
        torch.from_numpy(codes),
        torch.from_numpy(np.unique(subjects, return_inverse=True)[1]),
    )

    def make():
        return TSMNet(
            4, 2, X.shape[2], domains=[("", "a", ""), ("", "b", "")], random_state=0,
            front_dtype="float64", n_spatial_filters=6, subspace=4, temporal_kernel=9,
        )  # fmt: skip

    return make, data


def steps(net, data, lr=0.0, **methods):
    """Steps of SGD; with lr=0 the weights stay, and only statistics move."""
    setup = Setup(net, data, batch_size=24, epochs=2, domains_per_batch=2, seed=3)
    methods = {"optimizer": "riemannian-sgd", "sampler": "domain-balanced"} | methods
    plugs = make_plugs(setup, **methods)
    for group in plugs["optimizer"].param_groups:
        group["lr"], group["weight_decay"] = lr, 0.0
    train(net, data, epochs=2, random_state=3, **plugs)
    return dict(net.named_buffers())


@pytest.mark.parametrize(
    "name", [n for n in BY_NAME if n not in ("free", "averaged", "sub-at", "projected")]
)
def test_statistics_are_those_of_clean_training(name, network):
    """At weights that do not move, attacked copies leave no trace in them."""
    make, data = network
    methods = {k: v for k, v in BY_NAME[name].items() if k != "validation"}
    plain = steps(make(), data)
    found = steps(make(), data, **methods)
    # Passes with and without a graph differ by rounding.
    for key, value in plain.items():
        torch.testing.assert_close(
            found[key], value, rtol=1e-12, atol=1e-25, equal_nan=True
        )


@pytest.mark.parametrize("name", ["pgd", "yopo", "fast", "meow", "d2r"])
def test_volts_and_microvolts_train_the_same_network(name, network):
    make, data = network
    outputs = []
    for unit in (1.0, 1e6):
        net = make()
        x = data.x * unit
        scaled = Batch(x, data.y, data.domain)
        steps(net, scaled, lr=1e-2, **BY_NAME[name])
        with torch.no_grad():
            outputs.append(net(x, domain=data.domain))
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)


def test_the_same_seed_gives_the_same_network(network, equal):
    make, data = network
    for name in ("pgd", "yopo", "sub-at", "free"):
        states = []
        for _ in range(2):
            net = make()
            steps(net, data, lr=1e-2, **BY_NAME[name])
            states.append({k: v for k, v in net.named_parameters()})
        assert equal(*states), name


def test_all_names_are_tried():
    tried = str(BY_NAME).replace('"', "'")
    ours = ("pgd", "fast", "amata", "yopo", "sub-at")
    assert all(name in PERTURBATIONS and f"'{name}" in tried for name in ours)
    for name in ("free", "meow", "doubly-robust", "d2r"):
        assert name in METHODS and f"'{name}" in tried


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pgd", "yopo", "sub-at", "free", "meow", "d2r"])
def test_maps_stay_on_their_manifold_for_a_thousand_steps(name, toy, trials):
    net, data = toy(), trials(64)
    options = dict(BY_NAME[name])
    setup = Setup(net, data, batch_size=32, epochs=500, lr=1e-2)
    train(
        net, data, epochs=500, **make_plugs(setup, sampler="domain-balanced", **options)
    )
    frame, shape = net.frame.detach().double(), net.shape.detach().double()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(shape).min() > 0
