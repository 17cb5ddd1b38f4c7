"""Defaults that the papers, or their code, give."""

from __future__ import annotations

import inspect

import pytest

from eegtensor.training.averagers import TWA, MEHLSoup
from eegtensor.training.optimizers import PNM, AdaPNM
from eegtensor.training.recipes import (
    AdaptiveNaturalGradient,
    StageKD,
    assemble,
    condense,
)
from eegtensor.training.scores import el2n_of_runs
from eegtensor.training.transforms import DLDR, UDIM, bfgs

PUBLISHED = {
    # nblt/TWA, run_cifar.sh and train_twa.py.
    TWA: {
        "epochs": 10,
        "lr": 2.0,
        "momentum": 0.9,
        "batch_size": 128,
        "weight_decay": 1e-5,
    },
    # nblt/MEHL-Soup.
    MEHLSoup: {"epochs": 5, "lr": 0.01, "batch_size": 128, "models": 18, "rounds": 1},
    # nblt/DLDR.
    DLDR: {"n_components": 40},
    bfgs: {"n_steps": 20, "shrink": 0.4, "decrease": 0.4, "n_trials": 20},
    # aailabkaist/UDIM; the paper takes 0.5 to 1 for the weight.
    UDIM: {"weight": 0.5, "rho": 0.05, "start": 0.2},
    # zeke-xie/Positive-Negative-Momentum.
    PNM: {"betas": (0.9, 1.0)},
    AdaPNM: {"betas": (0.9, 0.999, 1.0), "eps": 1e-8, "amsgrad": True},
    # Saehyung-Lee/DCC.
    condense: {
        "n_outer": 1000,
        "lr": 0.1,
        "momentum": 0.5,
        "outer_warmup": 250,
        "inner_warmup": 10,
    },
    # kamanphoebe/m2mKD.
    StageKD: {"alpha": 0.5, "temperature": 1.0},
    assemble: {"alpha": 0.5, "temperature": 1.0},
    # shirakawas/ASNG-NAS.
    AdaptiveNaturalGradient: {"delta": 1.0, "alpha": 1.5},
    # Paul et al. 2021.
    el2n_of_runs: {"n_runs": 10},
}


@pytest.mark.parametrize("method", PUBLISHED, ids=lambda m: m.__name__)
def test_defaults(method):
    given = inspect.signature(method).parameters
    found = {name: given[name].default for name in PUBLISHED[method]}
    assert found == PUBLISHED[method]
