"""A call of an objective on outputs, without a run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor.training import Batch, Network, StepContext, WeightedSum


def call_objective(
    objective,
    outputs,
    y=None,
    *,
    model=None,
    x=None,
    domain=None,
    index=None,
    features=None,
    epoch=1,
    step=1,
    n_epochs=1,
    seed=0,
):
    """Return the loss of outputs; `features` are what entered the head."""
    model = nn.Linear(1, 1) if model is None else model
    n = len(outputs[0]) if isinstance(outputs, tuple) else len(outputs)
    x = torch.zeros(n, 1) if x is None else x
    network = Network(model, keeps_features=features is not None)
    network.features = features
    batch = Batch(x, y, domain, index)
    generator = torch.Generator().manual_seed(seed)
    context = StepContext(
        network,
        WeightedSum(objective),
        batch,
        epoch,
        step,
        generator,
        clean=batch,
        n_epochs=n_epochs,
    )
    return objective(model, batch, outputs, context)


@pytest.fixture
def call():
    """Return the function that calls an objective."""
    return call_objective
