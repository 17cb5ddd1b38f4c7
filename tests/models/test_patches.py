"""The parts of the published tokenizers: front, attention, spectrum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eegtensor.models._patches import Block, TemporalFront
from eegtensor.models._spectra import SpectralTarget


def samples(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_statistics_of_a_group_norm() -> None:
    x = samples(1, 3, 200).double()
    alone, together = (
        TemporalFront((21, 9), pools=(2, 4), local=local).double()
        for local in (True, False)
    )
    together.load_state_dict(alone.state_dict())
    assert alone(x).shape == (1, 3, 200)
    by_patch = torch.cat([together(x[:, i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(alone(x), by_patch)
    assert float((together(x) - by_patch).detach().abs().max()) > 1e-3


def test_front_by_hand() -> None:
    front = TemporalFront((3,), pools=(2,), n_filters=4, n_groups=4).double()
    x = np.random.default_rng(0).standard_normal(16)
    weight = front.convs[0].weight.detach().numpy()[:, 0, 0]
    padded = np.pad(x, 1)
    found = np.stack([np.correlate(padded, w, "valid") for w in weight])
    found += front.convs[0].bias.detach().numpy()[:, None]
    found -= found.mean(axis=1, keepdims=True)
    found /= np.sqrt(found.var(axis=1, keepdims=True) + 1e-5)
    erf = np.vectorize(math.erf)(found / math.sqrt(2))
    found = (0.5 * found * (1 + erf)).reshape(4, 8, 2).mean(axis=2)
    out = front(torch.from_numpy(x)[None, None]).detach().numpy()[0, 0]
    np.testing.assert_allclose(out, found.T.ravel(), atol=1e-12)


def test_attention_by_hand() -> None:
    block = Block(8, 2, qk_norm=True, eps=1e-5).double()
    with torch.no_grad():
        for p in block.parameters():
            p.copy_(samples(*p.shape, seed=p.numel()).double())
    x = samples(1, 5, 8).double()
    with torch.no_grad():
        normed = torch.nn.functional.layer_norm(
            x[0], (8,), block.norm1.weight, block.norm1.bias
        )
        q, k, v = (normed @ block.qkv.weight.T).split(8, dim=1)
        q, v = q + block.q_bias, v + block.v_bias
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            scores = block.q_norm(q[:, h]) @ block.k_norm(k[:, h]).T / 2
            heads.append(scores.softmax(dim=1) @ v[:, h])
        after = x[0] + block.out(torch.cat(heads, dim=1))
        hidden = torch.nn.functional.gelu(block.mlp1(block.norm2(after)))
        expected = after + block.mlp2(hidden)
        torch.testing.assert_close(block(x)[0], expected)


@pytest.mark.parametrize("n_bins", [None, 46, 101])
def test_spectrum_there_and_back(n_bins: int | None) -> None:
    x = samples(2, 3, 200).double()
    if n_bins == 46:
        bins = torch.fft.rfft(x)
        bins[..., 46:] = 0
        x = torch.fft.irfft(bins, n=200)
    target = SpectralTarget(200, "circle", n_bins).double()
    target.fit(x)
    heads = target(x)
    assert heads.shape == (3, 2, 3, n_bins or 200)
    torch.testing.assert_close(target.signal(heads), x)
    size = heads[0].numpy()
    assert abs(size.mean()) < 1e-9
    by_bin = size.reshape(-1, size.shape[-1])
    spread = by_bin.std(axis=0) if n_bins else by_bin.std()
    np.testing.assert_allclose(spread, 1.0)
    raw = np.log1p(np.abs(np.fft.fft(x.numpy())))[..., : heads.shape[-1]]
    back = heads[0] * target.std[0] + target.mean[0]
    np.testing.assert_allclose(back.numpy(), raw, atol=1e-9)
