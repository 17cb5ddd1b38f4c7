"""What codes stand for."""

from __future__ import annotations

import torch
from tokens._given import Given

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
