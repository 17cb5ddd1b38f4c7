"""Codes of a few bits in bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor._check import check_count, fail


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Return codes side by side in bytes, the lowest bit first.

    Parameters
    ----------
    codes : Tensor of int, any shape
        Each from 0 to 2^bits - 1.
    bits : int
        1 to 8.

    Returns
    -------
    packed : Tensor of uint8, shape (ceil(n bits / 8),)
    """
    if check_count("bits", bits) > 8:
        fail(f"bits={bits}", fix="give 1 to 8")
    flat = codes.reshape(-1).to(torch.int16)
    if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < 2**bits:
        fail(f"codes from {int(flat.min())} to {int(flat.max())} in {bits} bits")
    places = torch.arange(bits, device=flat.device, dtype=torch.int16)
    stream = ((flat[:, None] >> places) & 1).to(torch.uint8).reshape(-1)
    stream = torch.nn.functional.pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    weights = 2 ** torch.arange(8, device=flat.device, dtype=torch.uint8)
    return (stream * weights).sum(dim=1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, bits: int, n: int) -> Tensor:
    """Return the first n codes of `pack_bits`, int64."""
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    stream = ((packed[:, None] >> places) & 1).reshape(-1)[: n * bits].view(n, bits)
    weights = 2 ** torch.arange(bits, device=packed.device)
    return (stream.long() * weights).sum(dim=1)
