"""NeuroRVQ against its specification: sizes, fixes, its quantiser's rule."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from eegtensor._check import EEGTensorError
from eegtensor.models._directions import DirectionQuantizer
from eegtensor.models._electrodes import NAMES, OTHER, places
from eegtensor.models._patch_tokenizer import FIXES
from eegtensor.models.neurorvq import NeuroRVQ

CHANNELS = ["Fp1", "Cz", "Pz", "O2"]


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(fixes: tuple[str, ...] = FIXES, **options: int) -> NeuroRVQ:
    options = {"n_codes": 32, "n_levels": 2, "random_state": 0} | options
    return NeuroRVQ(size="small", fixes=fixes, **options)


def samples(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def used(network: NeuroRVQ, x: Tensor) -> NeuroRVQ:
    """Return the network after one batch, with codes where its latents are."""
    with torch.no_grad():
        network.train()(x, CHANNELS)
    return network.eval()


def test_published_sizes() -> None:
    network = NeuroRVQ(fixes=(), random_state=0)
    # tokenizers.md, 3.1; of the encoder's and decoder's, the digits it gives.
    assert count(network) == 8_355_440
    front = sum(map(count, network.fronts)) + count(network.norms)
    assert round((count(network.encoder) + front) / 1e6, 2) == 5.87
    rest = count(network.code_inputs) + count(network.decoder_norms)
    assert round((count(network.decoder) + rest) / 1e6, 2) == 1.62
    # Of 75,726,448, all but the copies of the codes that nothing reads.
    codes = sum(
        level.codes.numel() + level.counts.numel()
        for quantizer in network.quantizers
        for level in quantizer.levels
    )
    assert count(network) + codes == 75_726_448 - 4 * 8 * 8192 * 128
    assert network.n_slots * math.log2(network.size.n_codes) == 416


def test_encode_and_decode_shapes() -> None:
    network = small().eval()
    x = samples(2, 4, 600)
    ids = network.encode(x, CHANNELS)
    assert ids.shape == (2, 4, 3, 8)
    assert network.decode(ids, CHANNELS).shape == x.shape
    out = network(x, CHANNELS)
    assert torch.equal(out.ids, ids)
    z = network.latents(network.cut(x), places(CHANNELS).expand(2, 4))
    losses = [q(v).loss for q, v in zip(network.quantizers, z, strict=True)]
    torch.testing.assert_close(out.code_loss, sum(losses))
    # Up to the rounding of a sum of codes.
    torch.testing.assert_close(out.signal, network.decode(ids, CHANNELS))


def test_a_patch_alone_has_the_ids_it_has_among_others() -> None:
    x = samples(2, 4, 600)
    network = used(small(), x).double()
    among = network.encode(x.double(), CHANNELS)
    alone = network.encode(x[1:, 2:3, 200:400].double(), CHANNELS[2:3])
    assert torch.equal(alone[0, 0, 0], among[1, 2, 1])
    assert len(among.unique()) > 10
    z = network.latents(network.cut(x.double()), places(CHANNELS).expand(2, 4))
    part = network.cut(x[1:, 2:3, 200:400].double())
    one = network.latents(part, places(CHANNELS[2:3])[None])
    torch.testing.assert_close(one[:, 0, 0, 0], z[:, 1, 2, 1])
    # Neither fix is enough without the other.
    for missing in ("norms", "alone"):
        other = used(small(tuple(f for f in FIXES if f != missing)), x).double()
        z = other.latents(other.cut(x.double()), places(CHANNELS).expand(2, 4))
        one = other.latents(
            other.cut(x[1:, 2:3, 200:400].double()), places(CHANNELS[2:3])[None]
        )
        assert float((one[:, 0, 0, 0] - z[:, 1, 2, 1]).detach().abs().max()) > 1e-6


def test_permuted_channels_permute_ids() -> None:
    x = samples(1, 4, 400)
    network = used(small(), x)
    order = [2, 0, 3, 1]
    there = network.encode(x[:, order], [CHANNELS[i] for i in order])
    assert torch.equal(there, network.encode(x, CHANNELS)[:, order])


def test_channels_by_name() -> None:
    assert len(NAMES) == 104
    assert list(NAMES) == sorted(NAMES)
    assert places(["CZ", "cz.", "other"]).tolist() == [
        NAMES.index("cz"),
        NAMES.index("cz"),
        OTHER,
    ]
    x = samples(1, 4, 200)
    published = small(())
    with pytest.raises(EEGTensorError, match="no place for X1"):
        published.encode(x, ["Cz", "X1", "Pz", "Oz"])
    with pytest.raises(EEGTensorError, match="needs channel names"):
        published.encode(x)
    with pytest.raises(EEGTensorError, match="2 channel names for 4 channels"):
        published.encode(x, ["Cz", "Pz"])
    assert small().eval().encode(x).shape == (1, 4, 1, 8)


def test_the_class_token_shares_a_row_with_a1_as_published() -> None:
    for fixes, clash in (((), True), (("channels",), False)):
        network = small(fixes).eval()
        x = samples(1, 1, 200)
        before = network.latents(network.cut(x), places(["cz"])[None])
        with torch.no_grad():
            network.encoder.places[NAMES.index("a1")] += 1.0
        after = network.latents(network.cut(x), places(["cz"])[None])
        assert torch.equal(before, after) is not clash


def test_published_residual_rule() -> None:
    quantizer = DirectionQuantizer(3, 8, 3, unit=True, commitment=1.0).double().eval()
    z = samples(5, 3).double().requires_grad_()
    out = quantizer(z)
    tables = quantizer.tables.numpy()
    rest, total, losses = z.detach().numpy().copy(), np.zeros((5, 3)), []
    for table, ids in zip(tables, out.ids.T.numpy(), strict=True):
        np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1.0, rtol=1e-6)
        way = rest / np.linalg.norm(rest, axis=1, keepdims=True)
        nearest = ((way[:, None] - table) ** 2).sum(axis=2).argmin(axis=1)
        np.testing.assert_array_equal(ids, nearest)
        losses.append(((way - table[nearest]) ** 2).mean())
        rest = rest - table[nearest]
        total += table[nearest]
    np.testing.assert_allclose(out.values.detach().numpy(), total)
    np.testing.assert_allclose(float(out.loss.detach()), np.mean(losses))
    # The gradient of a level's direction r / |r| is (1 - v v^T) / |r|.
    out.values.sum().backward()
    rest, gradient = z.detach().numpy().copy(), np.zeros((5, 3))
    for table, ids in zip(tables, out.ids.T.numpy(), strict=True):
        size = np.linalg.norm(rest, axis=1, keepdims=True)
        way = rest / size
        gradient += (1 - way * way.sum(axis=1, keepdims=True)) / size
        rest = rest - table[ids]
    np.testing.assert_allclose(z.grad.numpy(), gradient, atol=1e-12)


def test_a_patch_keeps_its_amplitude() -> None:
    x = samples(1, 1, 200).double()
    network = small().double().eval()
    z = [network.latents(a * x[:, :, None], places(["cz"])[None]) for a in (1.0, 3.0)]
    assert float((z[0] - z[1]).detach().abs().max()) > 1e-3
    with torch.no_grad():
        network.loudness.zero_()
    z = [network.latents(a * x[:, :, None], places(["cz"])[None]) for a in (1.0, 3.0)]
    # What is left is the norms' epsilon: without the vector, amplitudes are lost.
    assert float((z[0] - z[1]).detach().abs().max()) < 1e-3


def test_without_quantisers_latents_reach_the_decoder() -> None:
    network, x = small().train(), samples(1, 4, 200)
    network.quantises = False
    out = network(x, CHANNELS)
    assert float(out.code_loss) == 0
    assert out.usage is None
    assert bool((out.ids == -1).all())
    assert network.quantizers[0].levels[0].batches_seen() == 0


def test_fixes_reach_the_quantisers() -> None:
    x = samples(2, 4, 200)
    published, fixed = used(small(()), x), used(small(), x)
    for network, norm, revive in ((published, True, 0.0), (fixed, False, 2.0)):
        level = network.quantizers[0].levels[0]
        sizes = level.codes.norm(dim=1)
        assert bool(((sizes - 1).abs() < 1e-5).all()) is norm
        assert level.revive == revive
    with pytest.raises(EEGTensorError, match="fixes"):
        small(("residuals",))


def test_errors() -> None:
    network = small().eval()
    with pytest.raises(EEGTensorError, match="multiple of 200"):
        network.encode(samples(1, 4, 300), CHANNELS)
    with pytest.raises(EEGTensorError, match="multiple of 8"):
        NeuroRVQ(100, size="small")
    with pytest.raises(EEGTensorError, match="ids have shape"):
        network.decode(torch.zeros(1, 4, 1, 3, dtype=torch.int64), CHANNELS)
    with pytest.raises(EEGTensorError, match="256 patches"):
        network.encode(samples(1, 1, 200 * 257), ["Cz"])


def test_same_seed_same_network_and_copies() -> None:
    state = torch.random.get_rng_state()
    a, b, c = small(), small(), small(random_state=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    x = samples(1, 4, 200)
    assert torch.equal(a.eval()(x, CHANNELS).heads, b.eval()(x, CHANNELS).heads)
    assert not torch.equal(a(x, CHANNELS).heads, c.eval()(x, CHANNELS).heads)
    # Without a seed, two networks differ, and torch's generator moves on.
    free = [NeuroRVQ(size="small", n_codes=8, n_levels=1) for _ in range(2)]
    assert not torch.equal(free[0].encoder.places, free[1].encoder.places)
    for other in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert torch.equal(other.encode(x, CHANNELS), a.encode(x, CHANNELS))


def test_export() -> None:
    network = small(n_levels=1).eval()
    x = samples(2, 4, 400)
    where = places(CHANNELS).expand(2, 4)
    exported = torch.export.export(network, ((x, where),)).module()
    torch.testing.assert_close(exported((x, where)).ids, network((x, where)).ids)


def test_runs_on(device: str) -> None:
    network = NeuroRVQ(
        size="small", n_codes=32, n_levels=2, random_state=0, device=device
    )
    x = samples(2, 4, 400).to(device)
    out = network.train()(x, CHANNELS)
    (out.signal.square().mean() + out.code_loss).backward()
    assert bool(torch.isfinite(network.encoder.places.grad).all())
