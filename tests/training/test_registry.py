"""Names and options in strings become plugs, and mistakes in them are told."""

from __future__ import annotations

import importlib

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import (
    METHODS,
    UNLABELLED,
    Batch,
    CrossEntropy,
    DomainBalancedSampler,
    Setup,
    build,
    make_plugs,
    train,
)
from eegtensor.training.perturbations import SAM
from eegtensor.training.registry import names_of, parse


@pytest.fixture
def setup(toy, trials):
    return Setup(toy(), trials(), n_classes=2, batch_size=20, domains_per_batch=4)


def test_every_line_of_the_table_names_something_that_exists():
    for name, method in METHODS.items():
        module, _, attribute = method.source.partition(":")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("cross-entropy", (1.0, "cross-entropy", {})),
        ("0.3 * cross-entropy", (0.3, "cross-entropy", {})),
        ("2*cross-entropy()", (2.0, "cross-entropy", {})),
        (
            "1e-3 * cross-entropy(a=-1.5, b='x*y', c=(1, None), d=True)",
            (1e-3, "cross-entropy", {"a": -1.5, "b": "x*y", "c": (1, None), "d": True}),
        ),
    ],
)
def test_strings_are_read(spec, wanted):
    assert parse(spec, "objective") == wanted


@pytest.mark.parametrize(
    "spec",
    [
        "cross-entropy(1)",
        "cross-entropy(a=)",
        "cross-entropy(a=open('x'))",
        "cross-entropy(a=b)",
        "cross-entropy) + (",
        "cross-entropy(**{'a': 1})",
        "x * cross-entropy",
        "cross-entropy(a=1",
        "nan * cross-entropy",
        "inf*cross-entropy",
    ],
)
def test_strings_that_are_no_names_are_refused(spec):
    with pytest.raises(EEGTensorError, match="not understood"):
        parse(spec, "objective")


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("sam(rh=1)", "perturbation", "options of 'sam' are rho"),
        ("cross-entropy", "perturbation", "is no perturbation, but: objective"),
        ("nothing", "objective", "choose among cross-entropy"),
        ("2 * sam", "perturbation", "only objectives"),
        ("sam(rho=-1)", "perturbation", "rho=-1"),
    ],
)
def test_mistakes(setup, spec, kind, message):
    with pytest.raises(EEGTensorError, match=message):
        build(spec, kind, setup)


def test_what_a_method_needs_must_be_there(setup, toy, trials):
    bare = Setup(toy(), Batch(trials().x))
    with pytest.raises(EEGTensorError, match="needs labels"):
        build("cross-entropy", "objective", bare)
    with pytest.raises(EEGTensorError, match="whose trials"):
        build("domain-balanced", "sampler", bare)


def test_all_plugs_of_a_run(setup):
    plugs = make_plugs(
        setup,
        objective=("cross-entropy", "0.5 * cross-entropy"),
        perturbation="sam(rho=0.2)",
        sampler="domain-balanced(batch_size=40)",
        optimizer="riemannian-sgd(lr=0.5)",
    )
    assert [weight for weight, _ in plugs["objective"]] == [1.0, 0.5]
    (perturbation,) = plugs["perturbation"]
    assert isinstance(perturbation, SAM) and perturbation.rho == 0.2
    assert isinstance(plugs["sampler"], DomainBalancedSampler)
    assert plugs["sampler"].batch_size == 40
    assert plugs["sampler"].domains_per_batch == 4
    assert plugs["optimizer"].param_groups[0]["lr"] == 0.5
    assert plugs["grad_transform"] is None and plugs["averager"] is None


def test_plugs_themselves_are_taken_as_they_are(setup):
    own = SAM(0.3)
    plugs = make_plugs(setup, objective=CrossEntropy(), perturbation=own)
    assert plugs["perturbation"] == [own]


def test_objectives_with_parameters_have_them_trained(setup):
    class Scaled(torch.nn.Module):
        per_trial = True

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

    own = Scaled()
    optimizer = make_plugs(setup, objective=own)["optimizer"]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(own.scale) in held


def test_what_changes_trials_needs_trials(setup):
    class Attack:
        where, extra_gradients, needs = "input", 1, ("raw trials",)

    assert make_plugs(setup, perturbation=Attack())
    with pytest.raises(EEGTensorError, match="front='conv'"):
        make_plugs(setup, perturbation=Attack(), raw_trials=False)


def test_kinds_have_names():
    assert "sam" in names_of("perturbation")
    assert not set(names_of("objective")) & set(names_of("perturbation"))


def test_memories_of_trials_are_addressed_by_the_place_in_the_run(toy, trials):
    # As after a validation split: the run's trials were picked from a larger set.
    data = trials().pick(torch.arange(159, 0, -2))
    assert data.index is not None and int(data.index.max()) >= len(data)
    net = toy()
    setup = Setup(net, data, n_classes=2, epochs=2, batch_size=20)
    assert setup.data.index is None
    plugs = make_plugs(setup, sampler="importance", objective="aldr")
    train(net, data, epochs=2, **plugs)
    scores = plugs["sampler"].errors.scores
    (_, aldr), *_ = plugs["objective"]
    assert scores.shape == aldr.temperatures.shape == (len(data),)
    # Trials without a label have no error: those, and no others, must have no score.
    y = data.y.clone()
    y[:10] = UNLABELLED
    part = Batch(data.x, y, data.domain, data.index)
    setup = Setup(net, part, n_classes=2, epochs=1, batch_size=20)
    plugs = make_plugs(setup, sampler="importance")
    train(net, part, epochs=1, **plugs)
    assert not plugs["sampler"].errors.scores[:10].isfinite().any()


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("twa(foo=1)", "averager"),
        ("twa(setup=1)", "averager"),
        ("vat(foo=1)", "objective"),
    ],
)
def test_options_of_classes_that_know_the_run(setup, spec, kind):
    with pytest.raises(EEGTensorError, match="options of"):
        build(spec, kind, setup)


@pytest.mark.parametrize(
    "optimizer",
    [
        "riemannian-adam(foo=1)",
        "riemannian-adam(betas=(2, 3))",
        "riemannian-sgd(lr=-1)",
        "riemannian-adam(lr='fast')",
    ],
)
def test_options_of_optimizers(setup, optimizer):
    with pytest.raises(EEGTensorError, match="riemannian"):
        make_plugs(setup, optimizer=optimizer)


@pytest.mark.parametrize(
    "plugs",
    [
        {"averager": ("swa", "ema")},
        {"perturbation": 3},
        {"sampler": SAM()},
        {"recipe": CrossEntropy()},
    ],
    ids=lambda plugs: next(iter(plugs)),
)
def test_things_that_are_no_plug_of_the_kind(setup, plugs):
    with pytest.raises(EEGTensorError, match="is no"):
        make_plugs(setup, **plugs)


def test_rate_and_decay_are_those_of_the_run_unless_said(toy, trials):
    run = Setup(toy(), trials(), lr=0.02, weight_decay=0.3)
    groups = make_plugs(run)["optimizer"].param_groups
    # None for parameters on manifolds.
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.02, 0.3), (0.02, 0.0)]
    said = make_plugs(run, optimizer="riemannian-sgd(lr=0.5, weight_decay=0.1)")
    groups = said["optimizer"].param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.5, 0.1), (0.5, 0.0)]
