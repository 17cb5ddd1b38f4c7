"""Loki loss against its definition, and equity weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eegtensor import EEGTensorError
from eegtensor.training.objectives import LokiLoss
from eegtensor.training.objectives.loki import label_distances


@pytest.mark.parametrize("metric", ["line", "circle", "zero-one"])
def test_definition(call, metric):
    g = torch.Generator().manual_seed(0)
    z = torch.randn(12, 5, generator=g, dtype=torch.float64, requires_grad=True)
    y = torch.randint(5, (12,), generator=g)
    away = {
        "line": lambda i, j: abs(i - j),
        "circle": lambda i, j: min(abs(i - j), 5 - abs(i - j)),
        "zero-one": lambda i, j: int(i != j),
    }[metric]
    p = z.softmax(dim=1)
    score = torch.stack(
        [-sum(p[:, j] * away(i, j) ** 2 for j in range(5)) for i in range(5)], dim=1
    )
    wanted = F.cross_entropy(score / 0.5, y, reduction="none")
    got = call(LokiLoss(metric, temperature=0.5), z, y)
    torch.testing.assert_close(got, wanted)
    y[:2] = -1
    assert not call(LokiLoss(metric), z, y)[:2].any()


def test_near_misses_cost_less_than_far_ones(call):
    z = 8.0 * torch.eye(5)
    loss = call(LokiLoss("line"), z, torch.zeros(5).long())
    assert (loss.diff() > 0).all()
    around = call(LokiLoss("circle"), z, torch.zeros(5).long())
    torch.testing.assert_close(around[4], around[1])
    assert torch.equal(label_distances("zero-one", 3), 1 - torch.eye(3).double())


def test_mistakes():
    with pytest.raises(EEGTensorError, match="metric='tree'"):
        LokiLoss("tree")
    with pytest.raises(EEGTensorError, match="temperature=0"):
        LokiLoss(temperature=0)
