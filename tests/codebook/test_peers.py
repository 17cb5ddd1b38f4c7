"""Side by side with vector-quantize-pytorch; skipped where it is not installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eegtensor.codebook import (
    ResidualQuantizer,
    VectorQuantizer,
    finite_scalar,
    index_to_signs,
    kmeans,
    lookup_free_penalty,
    rotate_through,
    scalar_to_index,
)

peer = pytest.importorskip("vector_quantize_pytorch")


def vectors(n: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_a_step_of_the_running_mean() -> None:
    theirs = peer.VectorQuantize(
        6, codebook_size=16, decay=0.9, use_cosine_sim=False, eps=1e-12
    )
    codes = kmeans(vectors(500), 16).codes
    book = theirs._codebook
    book.embed.data.copy_(codes[None])
    book.embed_avg.data.copy_(30 * codes[None])
    book.cluster_size.data.fill_(30.0)
    ours = VectorQuantizer(6, 16, decay=0.9, revive=0.0)
    ours.load_state_dict(
        {
            "codes": codes,
            "counts": torch.full((16,), 30.0),
            "n_batches": torch.tensor(10_000),
        }
    )
    for seed in range(4):
        z = vectors(400, seed=seed)
        values, ids, _ = theirs(z[None])
        out = ours(z)
        assert torch.equal(out.ids, ids[0])
        torch.testing.assert_close(out.values, values[0])
        torch.testing.assert_close(ours.codes, book.embed[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.counts, book.cluster_size[0])


def test_levels_of_residuals() -> None:
    theirs = peer.ResidualVQ(dim=6, num_quantizers=3, codebook_size=16).eval()
    ours = ResidualQuantizer(6, 16, 3)
    for seed in range(3):
        ours(vectors(500, seed=seed))
    ours.eval()
    for level, table in zip(theirs.layers, ours.tables, strict=True):
        level._codebook.embed.data.copy_(table[None])
    z = vectors(300, seed=9)
    values, ids, _ = theirs(z[None])
    assert torch.equal(ours(z).ids, ids[0])
    torch.testing.assert_close(ours(z).values, values[0], rtol=1e-4, atol=1e-5)


def test_the_rotation() -> None:
    module = peer.vector_quantize_pytorch
    z, q, incoming = (vectors(50, seed=k).double() for k in range(3))
    z.requires_grad_()
    module.rotate_to(z, q).backward(incoming)
    want, z.grad = z.grad.clone(), None
    rotate_through(z, q).backward(incoming)
    torch.testing.assert_close(z.grad, want)


@pytest.mark.parametrize("levels", [(5, 3), (8, 5, 5, 5), (4, 7, 6)])
def test_few_values_a_coordinate(levels: tuple[int, ...]) -> None:
    theirs = peer.FSQ(list(levels))
    z = 2 * vectors(2000, len(levels))
    values, ids = theirs(z[None])
    ours = finite_scalar(z, levels)
    torch.testing.assert_close(ours, values[0])
    assert torch.equal(scalar_to_index(ours, levels), ids[0].long())


def test_signs_and_the_entropy_of_all_their_combinations() -> None:
    theirs = peer.LFQ(codebook_size=16, dim=4)
    signs = index_to_signs(torch.arange(16), 4)
    _, ids, _ = theirs(signs[None])
    # Their first bit is the greatest, ours the least.
    turned = (ids[0].long()[:, None] >> torch.arange(3, -1, -1)) & 1
    assert torch.equal(turned @ 2 ** torch.arange(4), torch.arange(16))
    # Referee for the first term: entropy of a choice among all 16 by <z, c> / t.
    z, t = vectors(40, 4).double(), 0.7
    p = torch.softmax(z @ signs.double().T / t, dim=1)
    bits = torch.stack(
        [(p * (signs[:, k] > 0)).sum(dim=1) for k in range(4)], dim=1
    ).mean(dim=0)
    each = -(p * p.log()).sum(dim=1).mean()
    mean = -(bits * bits.log() + (1 - bits) * (1 - bits).log()).sum()
    torch.testing.assert_close(lookup_free_penalty(z, temperature=t), each - mean)
