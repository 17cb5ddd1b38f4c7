"""LaBraM's tokenizer against its specification."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.models._patch_tokenizer import FIXES
from eegtensor.models._spectra import SpectralTarget
from eegtensor.models.labram import VQNSP

CHANNELS = ["Fp1", "Cz", "Pz", "O2"]


def small(fixes: tuple[str, ...] = FIXES) -> VQNSP:
    return VQNSP(size="small", fixes=fixes, n_codes=32, random_state=0)


def samples(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_published_sizes() -> None:
    network = VQNSP(fixes=(), random_state=0)
    trained = sum(p.numel() for p in network.parameters())
    # Published with a second table of codes, which nothing reads.
    level = network.quantizers[0].levels[0]
    assert trained + 2 * level.codes.numel() + level.counts.numel() == 8_579_408
    assert network.n_slots * math.log2(network.size.n_codes) == 13


@pytest.mark.parametrize("fixes", [(), FIXES])
def test_encode_and_decode(fixes: tuple[str, ...]) -> None:
    network, x = small(fixes), samples(2, 4, 600)
    network.spectrum.fit(network.cut(x))
    with torch.no_grad():
        network.train()(x, CHANNELS)
    network.eval()
    ids = network.encode(x, CHANNELS)
    assert ids.shape == (2, 4, 3, 1)
    assert len(ids.unique()) > 10
    assert torch.equal(network(x, CHANNELS).ids, ids)
    rebuilt = network.decode(ids, CHANNELS)
    assert rebuilt.shape == x.shape
    assert bool(torch.isfinite(rebuilt).all())


def test_a_patch_alone_has_the_ids_it_has_among_others() -> None:
    network, x = small(), samples(2, 4, 600)
    with torch.no_grad():
        network.train()(x, CHANNELS)
    network.eval().double()
    among = network.encode(x.double(), CHANNELS)
    alone = network.encode(x[1:, 2:3, 200:400].double(), CHANNELS[2:3])
    assert torch.equal(alone[0, 0, 0], among[1, 2, 1])


def test_amplitude_and_angle_there_and_back() -> None:
    x = samples(5, 200).double()
    target = SpectralTarget(200, "angle", None).double()
    target.fit(x)
    heads = target(x)
    X = np.fft.fft(x.numpy())
    for head, raw in zip(heads.numpy(), (np.abs(X), np.angle(X)), strict=True):
        np.testing.assert_allclose(head, (raw - raw.mean()) / raw.std(), atol=1e-9)
    torch.testing.assert_close(target.signal(heads), x)


def test_one_unit_code_as_published() -> None:
    network, x = small(()), samples(2, 4, 200)
    with torch.no_grad():
        network.train()(x, CHANNELS)
        network.eval()
        z = network.latents(network.cut(x), network.places(CHANNELS, x))[0]
        table = network.quantizers[0].tables[0]
        way = torch.nn.functional.normalize(z, dim=-1)
        scores = way @ table.T
    torch.testing.assert_close(table.norm(dim=1), torch.ones(32))
    # Codes may lie in one place: there were fewer patches than codes.
    found = scores.gather(-1, network.encode(x, CHANNELS))
    assert float((scores.amax(dim=-1) - found[..., 0]).max()) < 1e-6


def test_too_many_seconds() -> None:
    with pytest.raises(EEGTensorError, match="16 patches"):
        small().encode(samples(1, 1, 17 * 200), ["Cz"])


def test_channels_do_not_share_the_class_tokens_row() -> None:
    network = VQNSP(size="small", fixes=(), random_state=0).eval()
    z = network.latents(torch.randn(1, 1, 1, 200), torch.tensor([[0]]))
    z.square().sum().backward()
    rows = network.encoder.places.grad.abs().sum(dim=-1).view(-1).nonzero()[:, 0]
    assert rows.tolist() == [0, 1]
    # As published, where NeuroRVQ has another.
    assert isinstance(network.heads[0][1], torch.nn.Tanh)
