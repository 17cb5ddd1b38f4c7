"""ModHiFi: channels by what the output would be without them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.lifelong.fidelity import (
    channel_fidelity,
    channels_of_class,
    choose_channels,
    contributions,
    layer_inputs,
    scale_inputs_,
    subset_fidelity,
)
from eegtensor.training import Batch


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def orthogonal(generator, n=200, c=6):
    """Channels that are orthonormal over the trials."""
    a = torch.randn(n, c, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(a)[0] * n**0.5


LAYERS = {
    "linear": lambda: nn.Linear(6, 4, dtype=torch.float64),
    "conv1d": lambda: nn.Conv1d(6, 4, 5, stride=2, padding=1, dtype=torch.float64),
    "conv2d": lambda: nn.Conv2d(6, 4, (2, 3), dilation=2, dtype=torch.float64),
}
SHAPES = {"linear": (6,), "conv1d": (6, 30), "conv2d": (6, 7, 9)}


def layer_and_inputs(kind, generator):
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    a = torch.randn(40, *SHAPES[kind], generator=generator, dtype=torch.float64)
    return layer, a


@pytest.mark.parametrize("kind", LAYERS)
def test_the_error_of_the_output_is_one_minus_fidelity(kind, generator) -> None:
    layer, a = layer_and_inputs(kind, generator)
    # Channels that say nearly the same.
    a[:, 3] = a[:, 1] + 0.3 * a[:, 3]
    found = contributions(layer, a)
    chosen = choose_channels(found, 3)
    with torch.no_grad():
        bias = layer.bias
        layer.bias = None
        before = layer(a)
        scale_inputs_(layer, chosen.beta)
        after = layer(a)
        layer.bias = bias
    assert (chosen.beta == 0).sum() == 3
    error = ((before - after).square().sum() / before.square().sum()).item()
    assert error == pytest.approx(1.0 - chosen.fidelity, abs=1e-10)
    assert 0.01 < chosen.fidelity < 0.999
    # No factors at all are worse than the best ones.
    plain = 1 - (before - after / 1.3).square().sum() / before.square().sum()
    assert plain < chosen.fidelity


def test_the_fidelity_of_a_channel_is_its_squared_cosine(generator) -> None:
    layer, a = layer_and_inputs("linear", generator)
    a = a + a[:, :1]
    found = channel_fidelity(contributions(layer, a))
    Y = a @ layer.weight.mT
    for c in range(6):
        part = a[:, c : c + 1] * layer.weight[:, c]
        cosine = (Y * part).sum() / (Y.norm() * part.norm())
        assert found[c].item() == pytest.approx(cosine.item() ** 2, abs=1e-12)
        alone = subset_fidelity(contributions(layer, a), [c])
        assert alone.fidelity == pytest.approx(found[c].item(), abs=1e-12)


def test_of_orthogonal_channels_fidelities_add_up(generator) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, dtype=torch.float64)
    found = contributions(layer, orthogonal(generator))
    alone = channel_fidelity(found)
    assert alone.sum().item() == pytest.approx(1.0, abs=1e-12)
    some = subset_fidelity(found, [0, 2, 5])
    assert some.fidelity == pytest.approx(alone[[0, 2, 5]].sum().item(), abs=1e-12)
    torch.testing.assert_close(some.beta, torch.ones(3, dtype=torch.float64))


def test_pruning_channels_without_weight_loses_nothing(generator) -> None:
    layer, a = layer_and_inputs("conv1d", generator)
    with torch.no_grad():
        layer.weight[:, [1, 4]] = 0.0
    chosen = choose_channels(contributions(layer, a), 4)
    assert chosen.fidelity == pytest.approx(1.0, abs=1e-12)
    assert chosen.beta.nonzero()[:, 0].tolist() == [0, 2, 3, 5]
    torch.testing.assert_close(chosen.beta[[0, 2, 3, 5]], torch.ones(4).double())


def test_the_channels_of_a_class_are_found(generator) -> None:
    layer, a = layer_and_inputs("linear", generator)
    keep, forget = a.clone(), a.clone()
    # Two channels are active for one class alone.
    keep[:, [2, 4]] = 0.0
    forget[:, [2, 4]] *= 3.0
    drop = channels_of_class(
        contributions(layer, forget), contributions(layer, keep), 2
    )
    assert drop.tolist() == [2, 4]


def test_inputs_of_a_layer_inside_a_network(generator) -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.9), nn.Linear(5, 3))
    x = torch.randn(10, 6, generator=generator)
    found = layer_inputs(net, net[2], Batch(x), batch_size=4)
    torch.testing.assert_close(found, net[0](x).detach())
    assert not net[2]._forward_pre_hooks
    with pytest.raises(EEGTensorError, match="LayerNorm"):
        contributions(nn.LayerNorm(6), x)
    with pytest.raises(EEGTensorError, match="n_kept=9"):
        choose_channels(contributions(net[2], found), 9)
