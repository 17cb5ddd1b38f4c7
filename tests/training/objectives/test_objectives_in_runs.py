"""Every objective by its name, with manifold parameters and norms of domains."""

from __future__ import annotations

import pytest
import torch

from eegtensor.training import (
    METHODS,
    Batch,
    ParamSpace,
    Setup,
    evaluate,
    make_plugs,
    train,
)

BY_NAME = [
    "aggregate",
    "aldr",
    "anyloss(start=5.0)",
    "belief-proportions",
    "comp-sum(tau=1.7)",
    "decoupled-contrastive(weighted=True, guard=1)",
    "ensloss(period=2)",
    "group-order",
    "ldr",
    "logit-adjusted",
    "loki",
    "multi-similarity",
    "smooth-adversarial(n_steps=2)",
    "unpg",
    "z-loss(b=1.0)",
]


def run(net, data, objective, epochs, **more):
    setup = Setup(net, data, epochs=epochs, batch_size=32, domains_per_batch=4, lr=1e-2)
    plugs = make_plugs(setup, objective=objective, sampler="domain-balanced", **more)
    train(net, data, epochs=epochs, **plugs)
    return plugs


@pytest.mark.parametrize("name", BY_NAME)
def test_it_trains_beside_cross_entropy(name, toy, trials):
    net, data = toy(), trials(96)
    names = ("0.5 * cross-entropy", f"0.5 * {name}")
    plugs = run(net, data, names, 3, perturbation="sam")
    space = ParamSpace(net)
    assert all(torch.isfinite(p).all() for p in space.points().values())
    frame = space.points()["frame"]
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(space.points()["shape"]).min() > 0
    scores = evaluate(net, data, plugs["objective"])
    assert torch.isfinite(torch.tensor(scores["loss"]))


@pytest.mark.parametrize("name", BY_NAME)
def test_the_same_seed_gives_the_same_network(name, toy, trials, equal):
    states = []
    for _ in range(2):
        net = toy()
        run(net, trials(96), ("cross-entropy", name), 2)
        states.append(dict(net.state_dict()))
    assert equal(*states)


@pytest.mark.parametrize("name", [n for n in BY_NAME if "aggregate" not in n])
def test_trials_without_labels_do_no_harm(name, toy, trials):
    net, data = toy(), trials(96)
    y = data.y.clone()
    y[::3] = -1
    run(net, Batch(data.x, y, data.domain), ("cross-entropy", name), 2)
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_all_names_of_the_table_are_tried():
    ours = {n.partition("(")[0] for n in BY_NAME} | {"cross-entropy", "deep-cca"}
    module = "eegtensor.training.objectives:"
    here = {
        "AggregateResponses ALDR AnyLoss BeliefProportions CompSum DeepCCA EnsLoss "
        "DecoupledContrastive GroupOrder LDR LogitAdjusted LokiLoss MultiSimilarity "
        "SmoothAdversarial UNPG ZLoss CrossEntropy"
    }
    names = {module + name for line in here for name in line.split()}
    assert {n for n, m in METHODS.items() if m.source in names} == ours


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_parameters_stay_on_their_manifolds_for_a_thousand_steps(name, toy, trials):
    net, data = toy(), trials(64)
    run(net, data, ("cross-entropy", name), 500)
    points = ParamSpace(net).points()
    frame, shape = points["frame"].double(), points["shape"].double()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6
    assert (shape - shape.mT).abs().max() < 1e-6 * shape.abs().max()
    assert torch.linalg.eigvalsh(shape).min() > 0


@pytest.mark.parametrize(
    "name", ["anyloss", "aggregate", "belief-proportions", "unpg", "aldr"]
)
def test_in_the_network_of_the_package(name):
    import numpy as np

    from eegtensor.transfer import TSMNetClassifier

    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 6, 128)) * 1e-5
    y = np.arange(40) % 2
    X[y == 1, 0] *= 2.0
    model = TSMNetClassifier(
        n_spatial_filters=6,
        subspace=4,
        epochs=2,
        batch_size=20,
        objective=("cross-entropy", f"0.5 * {name}"),
        random_state=0,
    )
    model.fit(X, y, subjects=np.repeat(["a", "b", "c", "d"], 10))
    assert np.isfinite(model.predict_proba(X)).all()
