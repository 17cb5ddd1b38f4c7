"""Defaults that the papers, or their code, give; eps alone is ours."""

from __future__ import annotations

import inspect

import pytest

from eegtensor.training.objectives import D2R, MeoW
from eegtensor.training.perturbations import PGD, YOPO, Amata, Fast
from eegtensor.training.recipes import FreeAdversarial, SubAT, rift

PUBLISHED = {
    # Steps of 2 of 255 for 8 of 255 by ten steps: 2.5 eps / n_steps.
    PGD: {"n_steps": 10, "step_size": None, "norm": "linf", "start": True},
    # 10 of 255 for 8 of 255: 1.25 eps.
    Fast: {"step_size": None, "start": True},
    Amata: {"k_min": 2, "k_max": 10, "tau": 2.5},
    # a1600012888/YOPO-You-Only-Propagate-Once, pre-res18.yopo-5-3.
    YOPO: {"m": 5, "n": 3, "step_size": None},
    # nblt/Sub-AT, run.sh: 131 states of 65 epochs, then 40 epochs.
    SubAT: {"n_components": 80, "collect": 65 / 105, "wider": 2.0},
    FreeAdversarial: {"m": 8, "step_size": None},
    # microsoft/robustlearn, RiFT.
    rift: {
        "radius": 0.1,
        "ascent_epochs": 10,
        "ascent_lr": 1.0,
        "epochs": 10,
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "n_alphas": 11,
    },
    # Of the specifications' reconstructions.
    MeoW: {
        "alpha": 0.5,
        "prototypes": 8,
        "temperature": 0.5,
        "momentum": 0.99,
        "low": 0.2,
        "high": 5.0,
    },
    D2R: {"beta": 0.5, "logit_weight": 1.0, "clean_weight": 5.0},
}


@pytest.mark.parametrize("method", PUBLISHED, ids=lambda m: m.__name__)
def test_defaults(method):
    given = inspect.signature(method).parameters
    found = {name: given[name].default for name in PUBLISHED[method]}
    assert found == PUBLISHED[method]


def test_steps_of_the_attacks():
    assert PGD(eps=8.0).budget.step_size == 2.0
    assert Fast(eps=8.0).budget.step_size == 10.0
    assert YOPO(eps=8.0).step_size == 2.0
    assert SubAT(eps=8.0).budget.step_size == 10.0
