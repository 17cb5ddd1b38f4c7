"""Options of the wrong type or range are refused by name, before a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training.objectives import (
    ALDR,
    LDR,
    NNPU,
    TNAR,
    VAT,
    DecoupledContrastive,
    DualHeadKD,
    GroupOrder,
    HessianAlignment,
    Pani,
    SelfSimilarity,
    SubjectDRO,
)
from eegtensor.training.objectives.stochasticcca import stochastic_cca
from eegtensor.training.perturbations import (
    ARWP,
    FSAM,
    MRWP,
    RWP,
    GradientNorm,
    NoisyGradient,
    PaniMixUp,
)
from eegtensor.training.samplers import (
    DifficultyBandSampler,
    DomainBalancedSampler,
    ImportanceSampler,
    RS2Sampler,
    ShuffleSampler,
)

NAN, INF = float("nan"), float("inf")


def balanced(**options):
    return DomainBalancedSampler([0, 0, 1, 1], **options)


def band(**options):
    return DifficultyBandSampler(scores=np.arange(10.0), **options)


def cca(**options):
    return stochastic_cca([np.eye(9)[:, :3], np.eye(9)[:, 3:6]], **options)


def dual(**options):
    return DualHeadKD(nn.Linear(2, 2), 2, 2, **options)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (ALDR, {"n_trials": 2.0}),
        (LDR, {"normalise": "no"}),
        (HessianAlignment, {"alpha": NAN}),
        (HessianAlignment, {"beta": -1.0}),
        (HessianAlignment, {"start": 1.0}),
        (HessianAlignment, {"n_probes": 2.5}),
        (NNPU, {"prior": 0.3, "beta": NAN}),
        (NNPU, {"prior": "0.3"}),
        (VAT, {"weight": NAN}),
        (VAT, {"entropy": "a"}),
        (VAT, {"ramp": 1.5}),
        (VAT, {"n_iter": 1.5}),
        (VAT, {"eps": INF}),
        (TNAR, {"weight_normal": -1.0}),
        (TNAR, {"n_directions": 0}),
        (Pani, {"patch": 2.5}),
        (Pani, {"eps": None}),
        (Pani, {"candidates": 1.5}),
        (SubjectDRO, {"n_domains": 0}),
        (SubjectDRO, {"n_domains": 3, "n_features": 0}),
        (DecoupledContrastive, {"weighted": "no"}),
        (DecoupledContrastive, {"within_domain": "no"}),
        (GroupOrder, {"within_domain": "no"}),
        (dual, {"align": "no"}),
        (SelfSimilarity, {"sfreq": 100.0, "noise": NAN}),
        (SelfSimilarity, {"sfreq": 100.0, "momentum": 1.5}),
        (SelfSimilarity, {"sfreq": 100.0, "toeplitz": -1.0}),
        (FSAM, {"rho": INF}),
        (FSAM, {"sigma": NAN}),
        (FSAM, {"decay": NAN}),
        (ARWP, {"sigma": INF}),
        (ARWP, {"increase": NAN}),
        (ARWP, {"eta": INF}),
        (MRWP, {"beta": "a"}),
        (RWP, {"sigma": INF}),
        (RWP, {"mix": NAN}),
        (GradientNorm, {"bound": -1.0}),
        (GradientNorm, {"rho": INF}),
        (NoisyGradient, {"ghost_batch": 2.5}),
        (PaniMixUp, {"candidates": 5.0}),
        (PaniMixUp, {"n_classes": 0}),
        (PaniMixUp, {"mask": 1.0}),
        (ShuffleSampler, {"n_trials": 10, "batch_size": 2.5}),
        (balanced, {"batch_size": 2.5}),
        (balanced, {"domains_per_batch": 1.5}),
        (ImportanceSampler, {"n_trials": 10, "epochs": 0}),
        (RS2Sampler, {"n_trials": 10, "replacement": "no"}),
        (band, {"warmup": 0.5}),
        (band, {"high": "a"}),
        (cca, {"ridge": 2.0}),
        (cca, {"lr": -1.0}),
        (cca, {"batch_size": 0}),
    ],
)
def test_it_is_refused_and_named(make, options):
    with pytest.raises(EEGTensorError, match=list(options)[-1]):
        make(**options)


def test_views_that_are_not_finite_are_refused():
    with pytest.raises(EEGTensorError, match="NaN"):
        stochastic_cca([np.full((9, 2), np.nan), np.ones((9, 2))])


def test_an_alignment_on_maps_says_so(toy, trials):
    class Maps(nn.Module):
        def __init__(self):
            super().__init__()
            self.front, self.head = nn.Linear(8, 6), Head()

        def forward(self, x):
            return self.head(self.front(x)[:, :, None])

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(6, 2, 1)

        def forward(self, z):
            return self.conv(z)[:, :, 0]

    from eegtensor.training import Network, StepContext

    net, data = Maps(), trials(6)
    wrapped = Network(net, keeps_features=True)
    out = wrapped(data)
    method = DualHeadKD(torch.randn(6, 2), 6, 2, align=True)
    context = StepContext(wrapped, None, data)
    data = data.pick(torch.arange(6))
    with pytest.raises(EEGTensorError, match="align"):
        method(net, data, out, context)
