"""What codes stand for."""

from __future__ import annotations

import pytest
import torch
from tokens._given import Given

from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens._bands import edges_to
from eegtensor.tokens._codevectors import code_vectors
from eegtensor.tokens.bandrvq import decode_bands, expected, widths


def test_vectors_of_codes_add_up_to_what_is_decoded(given: Given) -> None:
    bands = given.tokenizer.codec_.bands
    vectors = code_vectors(given.tokenizer)
    assert vectors is not None
    ids = torch.from_numpy(given.tokenizer.encode(given.trials[:5]).ids).long()
    ids = ids.reshape(-1, 1, ids.shape[-1])
    slot = torch.arange(ids.shape[-1])
    each = vectors[slot, ids.clamp_min(0)] * (ids >= 0)[..., None]
    size = expected(ids[..., 0], bands).sqrt()
    size = size.repeat_interleave(torch.tensor(widths()), dim=-1)
    found = each.sum(dim=-2)[..., -size.shape[-1] :].double() * size
    torch.testing.assert_close(found, decode_bands(ids, bands), rtol=1e-5, atol=1e-6)


def test_vectors_say_how_large_codes_are(given: Given) -> None:
    codec = given.tokenizer.codec_.bands
    vectors = code_vectors(given.tokenizer)
    assert vectors is not None
    n = len(codec.books)
    for band, book in enumerate(codec.books):
        first = 1 + band * codec.n_levels
        mine = vectors[first : first + codec.n_levels, : book.shape[1], n : 2 * n]
        sizes = mine[..., band].double()
        # Opposite phases alike, whatever the band and level.
        for level, codes in zip(sizes, book.square().sum(dim=-1), strict=True):
            torch.testing.assert_close(level.mean(), torch.zeros((), dtype=level.dtype))
            assert float(level.std(correction=0)) == pytest.approx(0.3)
            assert float(torch.corrcoef(torch.stack([level, codes]))[0, 1]) > 0.9999
        others = torch.arange(n) != band
        assert not mine[..., others].any()


def test_vectors_of_steps(given: Given) -> None:
    made = EEGTokenizer("learned", bits_per_second=40).fit(given.trials[:40])
    vectors = code_vectors(made)
    assert vectors is not None
    n_bins = made.codec_.n_bins
    edges = edges_to(n_bins)
    n = len(edges) - 1
    for band in range(n):
        for slot in (edges[band], edges[band + 1] - 1):
            # Codes 0, 1, -1, 2, -2, ...
            values = vectors[slot, :, n + slot]
            assert bool((values[1::2] > 0).all())
            assert torch.equal(values[1::2], -values[2::2])
            torch.testing.assert_close(vectors[slot, :, band], 0.3 * values.abs())
            assert int((vectors[slot, 1:] != 0).sum()) == 2 * (len(values) - 1)
