"""The loss of the published tokenizers, by hand in numpy, and its gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.models._electrodes import places
from eegtensor.models._spectra import SpectralTarget
from eegtensor.models.neurorvq import NeuroRVQ
from eegtensor.tokens._spectral_loss import SpectralLoss, phase_loss, waveform_loss
from eegtensor.training import Batch


def noise(*shape: int) -> NDArray:
    return np.random.default_rng(0).standard_normal(shape)


def test_phase_loss_by_hand() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 2, 5))
    weight = rng.random(5)
    apart = 1 - (a * b).sum(axis=0) / np.linalg.norm(a, axis=0) / np.linalg.norm(
        b, axis=0
    )
    each = apart + 0.1 * ((a**2).sum(axis=0) - 1) ** 2
    found = phase_loss(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(float(found), each.mean())
    found = phase_loss(torch.from_numpy(a), torch.from_numpy(b), torch.tensor(weight))
    np.testing.assert_allclose(float(found), np.average(each, weights=weight))


def test_waveform_loss_by_hand() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 2, 40))
    z = [
        (v - v.mean(axis=(1, 2), keepdims=True)) / v.std(axis=(1, 2), keepdims=True)
        for v in (a, b)
    ]
    there = torch.from_numpy(a), torch.from_numpy(b)
    found = waveform_loss(*there, free_gain=True)
    np.testing.assert_allclose(float(found), np.mean((z[0] - z[1]) ** 2))
    gain = waveform_loss(3 * there[0] + 1, there[1], free_gain=True)
    np.testing.assert_allclose(float(gain), float(found))
    found = waveform_loss(*there, free_gain=False)
    np.testing.assert_allclose(float(found), np.mean((a - b) ** 2) / np.mean(b**2))


def total_by_hand(network: Any, out: Any, x: NDArray, fixes: tuple[str, ...]) -> float:
    """Return the loss of NeuroRVQ from its heads, in numpy."""
    heads = out.heads.detach().numpy()
    patches = x.reshape(*x.shape[:2], -1, 200)
    if fixes:
        X = np.fft.rfft(patches)[..., :46]
    else:
        X = np.fft.fft(patches)
    a = np.log1p(np.abs(X))
    axes = (0, 1, 2) if fixes else None
    a_hat, a = heads[0], (a - a.mean(axis=axes)) / a.std(axis=axes)
    k, s = heads[1], heads[2]
    unit = X / np.abs(X)
    near = (k * unit.real + s * unit.imag) / np.hypot(k, s)
    each = 1 - near + 0.1 * (k**2 + s**2 - 1) ** 2
    phase = np.average(each, weights=np.abs(X) if fixes else None)
    y = out.signal.detach().numpy()
    if fixes:
        wave = np.mean((x - y) ** 2) / np.mean(x**2)
    else:
        z = [
            (v - v.mean(axis=(1, 2), keepdims=True)) / v.std(axis=(1, 2), keepdims=True)
            for v in (x, y)
        ]
        wave = np.mean((z[0] - z[1]) ** 2)
    size = np.average((a_hat - a) ** 2, weights=np.abs(X) if fixes else None)
    return float(out.code_loss.detach()) + size + phase + wave


@pytest.mark.parametrize("fixes", [(), ("spectrum",)])
def test_the_whole_loss_by_hand(fixes: tuple[str, ...]) -> None:
    network = NeuroRVQ(
        size="small", n_codes=8, n_levels=2, fixes=fixes, random_state=0
    ).double()
    x = torch.from_numpy(noise(2, 2, 400))
    network.spectrum.fit(network.cut(x))
    where = places(["Cz", "Pz"]).expand(2, 2)
    with torch.no_grad():
        network.train()((x, where))
    network.eval()
    out = network((x, where))
    found = SpectralLoss()(network, Batch((x, where)), out, None)
    expected = total_by_hand(network, out, x.numpy(), fixes)
    np.testing.assert_allclose(float(found.detach()), expected, rtol=1e-9)


def test_loss_of_labram_by_hand() -> None:
    rng = np.random.default_rng(0)
    # The phase of a negative number is pi or -pi, by the sign of its zero.
    x = rng.standard_normal((2, 3, 400)) + 1 + (-1.0) ** np.arange(400)
    spectrum = SpectralTarget(200, "angle", None).double()
    heads = torch.from_numpy(rng.standard_normal((2, 2, 3, 2, 200)))
    out = SimpleNamespace(code_loss=torch.tensor(0.5), heads=heads)
    batch = Batch((torch.from_numpy(x), torch.zeros(2, 3)))
    found = SpectralLoss()(SimpleNamespace(spectrum=spectrum), batch, out, None)
    X = np.fft.fft(x.reshape(2, 3, 2, 200))
    errors = [np.mean((heads[0].numpy() - np.abs(X)) ** 2)]
    errors.append(np.mean((heads[1].numpy() - np.angle(X)) ** 2))
    np.testing.assert_allclose(float(found), 0.5 + sum(errors))


@pytest.mark.parametrize("fixes", [(), ("spectrum", "norms", "alone", "channels")])
def test_gradient_against_differences(fixes: tuple[str, ...]) -> None:
    network = NeuroRVQ(
        size="small", n_codes=8, n_levels=1, fixes=fixes, random_state=0
    ).double()
    network.quantises = False
    x = torch.from_numpy(noise(1, 2, 400))
    network.spectrum.fit(network.cut(x))
    batch = Batch((x, places(["Cz", "Pz"])[None]))

    def loss() -> Tensor:
        return SpectralLoss()(network, batch, network(batch.x), None)

    loss().backward()
    rng = np.random.default_rng(0)
    for p in (
        network.fronts[0].convs[0].weight,
        network.encoder.places,
        network.decoder.blocks[0].qkv.weight,
        network.heads[2][0].weight,
    ):
        way = torch.from_numpy(rng.standard_normal(p.shape))
        slope = float((p.grad * way).sum())
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                p += step * way
                ends.append(float(loss()))
                p -= step * way
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, slope, rtol=1e-4)
