"""How often codes are used, and how well masked ones are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from eegtensor.tokens._objective import MaskedScores, masked_part
from eegtensor.tokens.masking import draw_mask
from eegtensor.training import Batch, device_of, evaluating
from eegtensor.training.network import chunks

_ROWS = 4096


def usage(
    ids: Tensor, present: Tensor, alphabet: ArrayLike
) -> tuple[Tensor, Tensor, Tensor]:
    """Return how often slots are sent, the shares of their codes, and which occur.

    Parameters
    ----------
    ids : Tensor, shape (n, n_units, n_frames, n_slots)
    present : Tensor of bool, shape (n, n_units, n_frames)
    alphabet : array, shape (n_slots,)

    Returns
    -------
    rates : Tensor, shape (n_slots,)
    shares : Tensor, shape (n_slots, largest alphabet)
        With half a code added to each; zero beyond a slot's alphabet.
    seen : Tensor of bool, shape (n_slots, largest alphabet)
        All of a slot that is never sent.
    """
    sizes = torch.as_tensor(alphabet)
    n_slots, rows = len(sizes), int(sizes.max()) + 1
    first = torch.arange(n_slots) * rows + 1
    counts = torch.zeros(n_slots * rows, dtype=torch.int64)
    for part in ids[present].split(_ROWS):
        counts += torch.bincount((part + first).flatten(), minlength=len(counts))
    table = counts.view(n_slots, rows).double()
    rates = 1 - table[:, 0] / table.sum(dim=1).clamp_min(1)
    codes = torch.where(torch.arange(rows - 1) < sizes[:, None], table[:, 1:] + 0.5, 0)
    seen = (table[:, 1:] > 0) | (rates == 0)[:, None]
    return rates.float(), (codes / codes.sum(dim=1, keepdim=True)).float(), seen


def masked_batch(x: Mapping[str, Tensor], kind: str, ratio: float, seed: int) -> Batch:
    """Return sequences with a mask that the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    return Batch({**x, "masked": draw_mask(kind, x, ratio, generator)})


def evaluate(
    model: Any, batch: Batch, shares: Tensor, *, batch_size: int = 64
) -> MaskedScores:
    """Return how well the masked tokens of a batch are told."""
    device = device_of(model)
    total = torch.zeros(5, dtype=torch.float64)
    logs = shares.clamp_min(1e-30).log()
    best = shares.argmax(dim=1)
    slots = torch.arange(len(shares))
    with torch.no_grad(), evaluating(model):
        for part in chunks(batch, batch_size):
            here = part.to(device)
            found = masked_part(model, here, model(here.x)).losses
            ids = part.x["ids"][part.x["masked"]].long()
            sent = ids >= 0
            told = logs[slots, ids.clamp_min(0)]
            total += torch.tensor(
                [
                    float(found.codes.double().sum()),
                    float(found.hits.double().sum()),
                    float(-told[sent].double().sum()),
                    float((ids == best)[sent].sum()),
                    float(sent.sum()),
                ],
                dtype=torch.float64,
            )
    n = max(float(total[4]), 1.0)
    loss, hits, plain_loss, plain_hits = (total[:4] / n).tolist()
    return MaskedScores(loss, hits, plain_loss, plain_hits, int(total[4]))
