from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import Batch, as_device


class Lagged(NamedTuple):
    lags: torch.Tensor
    edges: torch.Tensor


def test_pick_cuts_every_part_and_remembers_positions(device):
    x = Lagged(torch.arange(12.0).reshape(6, 2), torch.arange(6.0))
    data = Batch(x, y=torch.arange(6), domain=torch.arange(6) // 2).to(device)
    first = data.pick(torch.tensor([5, 1, 3], device=device))
    assert isinstance(first.x, Lagged)
    assert first.x.edges.tolist() == first.y.tolist() == first.index.tolist()
    assert first.y.tolist() == [5, 1, 3]
    assert first.domain.tolist() == [2, 0, 1]
    assert len(first) == 3 and first.weight is None
    again = first.pick(torch.tensor([2], device=device))
    assert again.index.tolist() == [3], "positions are those of the whole set"


def test_mappings_and_devices():
    data = Batch({"a": torch.zeros(3, 2), "b": (torch.ones(3),)})
    assert data.to("cpu") is data
    assert data.pick(torch.tensor([0])).x["b"][0].shape == (1,)
    assert data.to("meta").device.type == "meta"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"x": torch.zeros(4, 2), "y": torch.zeros(3)}, "y of a batch has shape"),
        ({"x": (torch.zeros(4), torch.zeros(5))}, "x of a batch has shape"),
        ({"x": torch.zeros(4), "weight": torch.ones(())}, "weight of a batch"),
        ({"x": torch.zeros(())}, "no trials"),
        ({"x": [[1.0, 2.0]]}, "is a float"),
    ],
)
def test_mistakes(parts, message):
    with pytest.raises(EEGTensorError, match=message):
        Batch(**parts)


def test_devices_by_name():
    assert as_device("cpu") == torch.device("cpu")
    assert as_device("auto").type in ("cpu", "cuda")
    with pytest.raises(EEGTensorError, match="is not known"):
        as_device("gpu")
    with pytest.raises(EEGTensorError, match="not in this machine"):
        as_device("cuda:99")
