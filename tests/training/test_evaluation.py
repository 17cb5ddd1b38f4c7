"""Scores of trials: those of scikit-learn, and the mean of unequal batches."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, CrossEntropy, balanced_accuracy, evaluate


@pytest.mark.parametrize("classes", [[0, 1, 2, 3], [0, 2], [3]])
def test_balanced_accuracy_is_that_of_the_classes_that_occur(classes) -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.tensor(classes)[torch.randint(len(classes), (50,), generator=g)]
    outputs = torch.randn(50, 4, generator=g)
    wanted = balanced_accuracy_score(y, outputs.argmax(dim=1))
    score = balanced_accuracy(outputs, Batch(outputs, y))
    assert float(score) == pytest.approx(wanted)
    with pytest.raises(EEGTensorError, match="without labels"):
        balanced_accuracy(outputs, Batch(outputs))


def test_the_loss_does_not_depend_on_the_blocks_or_the_mode() -> None:
    g = torch.Generator().manual_seed(0)
    data = Batch(torch.randn(23, 4, generator=g), torch.arange(23) % 3)
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).train()
    whole = evaluate(net, data, CrossEntropy(), batch_size=23)["loss"]
    parts = evaluate(net, data, CrossEntropy(), batch_size=5)["loss"]
    assert parts == pytest.approx(whole, rel=1e-6)
    expected = nn.functional.cross_entropy(net.eval()(data.x), data.y)
    assert whole == pytest.approx(float(expected.detach()), rel=1e-6)
