"""Tell tokens from states: which slots are sent, and which code in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor.geometry.spectral import _eager_cpu


class CodeLosses(NamedTuple):
    """How well tokens are told, one row a position.

    Attributes
    ----------
    sent : Tensor, shape (n,)
        Nats for which slots are sent.
    codes : Tensor, shape (n,)
        Nats for the codes in those slots.
    n_codes : Tensor, shape (n,)
        Slots that are sent.
    hits : Tensor, shape (n,)
        Codes that were the likeliest one of their slot.
    """

    sent: Tensor
    codes: Tensor
    n_codes: Tensor
    hits: Tensor


class CodeTeller(nn.Module):
    """A vector from every state, and how near it is to each code of a slot.

    Parameters
    ----------
    alphabet : sequence of int, one a slot
    width : int
        Of states.
    n_features : int
        Of the vectors of codes.
    """

    rates: Tensor
    bias: Tensor
    seen: Tensor

    def __init__(self, alphabet: Sequence[int], width: int, n_features: int) -> None:
        super().__init__()
        self.alphabet = tuple(alphabet)
        n_slots = len(self.alphabet)
        self.last = nn.Linear(width, n_features)
        self.first = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.sent = nn.Linear(width, n_slots)
        # Codes of finer levels are shorter, but may be as sure.
        self.gain = nn.Parameter(torch.ones(n_slots))
        # Counted, not trained: rare codes would be learned by heart.
        self.register_buffer("bias", torch.zeros(n_slots, max(self.alphabet)))
        # How often a slot was sent: those always or never sent are not drawn.
        self.register_buffer("rates", torch.full((n_slots,), 0.5))
        # Nor are codes that never occurred: of hundreds, some would come, and be wild.
        self.register_buffer(
            "seen", torch.ones(n_slots, max(self.alphabet), dtype=torch.bool)
        )

    @torch.no_grad()
    def start_from(self, reader: nn.Linear) -> None:
        """Start by telling what a state was read from, with little weight."""
        self.last.weight.copy_(0.3 * reader.weight.mT)
        second = self.first[2]
        assert isinstance(second, nn.Linear)
        second.weight.zero_()

    @torch.no_grad()
    def start_at(
        self, rates: Tensor, shares: Tensor, seen: Tensor | None = None
    ) -> None:
        """Take over how often slots are sent, their codes' shares, and which occur."""
        if seen is not None:
            self.seen.copy_(seen)
        self.rates.copy_(rates)
        self.sent.bias.copy_(rates.clamp(1e-4, 1 - 1e-4).logit())
        self.bias.copy_(shares.clamp_min(1e-6).log())

    def forward(self, states: Tensor, table: Tensor, ids: Tensor) -> CodeLosses:
        """Return how well states tell tokens.

        Parameters
        ----------
        states : Tensor, shape (n, width)
        table : Tensor, shape (n_slots, 1 + largest alphabet, n_features)
        ids : Tensor of int, shape (n, n_slots)
        """
        ids = ids.long()
        sent = ids >= 0
        h, flags = self._vectors(states), self.sent(states)
        told = self._each if _eager_cpu(h) else self._all
        codes, hits = told(h, table, ids, sent)
        flag_loss = F.binary_cross_entropy_with_logits(
            flags.float(), sent.float(), reduction="none"
        )
        return CodeLosses(flag_loss.sum(1), codes, sent.sum(1), hits)

    def _vectors(self, states: Tensor) -> Tensor:
        vectors: Tensor = self.last(states + self.first(states))
        return vectors

    def _each(
        self, h: Tensor, table: Tensor, ids: Tensor, sent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tell slot by slot what is sent: most slots are not."""
        at, row = sent.T.nonzero(as_tuple=True)
        counts = torch.bincount(at, minlength=sent.shape[1]).tolist()
        parts = zip(
            h[row].split(counts),
            ids[row, at].split(counts),
            table.unbind(0),
            self.gain.unbind(0),
            self.bias.unbind(0),
            self.alphabet,
            strict=True,
        )
        loss, hit = [], []
        for mine, truth, codes, gain, bias, n in parts:
            if len(mine):
                logits = F.linear(mine * gain, codes[1 : 1 + n]).float() + bias[:n]
                loss.append(F.cross_entropy(logits, truth, reduction="none"))
                hit.append((logits.argmax(dim=1) == truth).float())
        zero = h.new_zeros(len(h), dtype=torch.float32)
        if not loss:
            return zero, zero
        return (
            zero.index_add(0, row, torch.cat(loss)),
            zero.index_add(0, row, torch.cat(hit)),
        )

    def _all(
        self, h: Tensor, table: Tensor, ids: Tensor, sent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tell all slots, sent or not: shapes that no value decides."""
        loss: Tensor = h.new_zeros(len(h), dtype=torch.float32)
        hits = loss
        for slot, n in enumerate(self.alphabet):
            logits = F.linear(h * self.gain[slot], table[slot, 1 : 1 + n])
            logits = logits.float()
            logits = logits + self.bias[slot, :n]
            truth, here = ids[:, slot].clamp_min(0), sent[:, slot]
            part = F.cross_entropy(logits, truth, reduction="none")
            loss = loss + torch.where(here, part, 0.0)
            hits = hits + (here & (logits.argmax(dim=1) == truth)).float()
        return loss, hits

    @torch.no_grad()
    def draw(
        self,
        states: Tensor,
        table: Tensor,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Return tokens drawn as states tell them, int64 (n, n_slots)."""
        h, flags = self._vectors(states), self.sent(states)
        flags = flags.float()
        p = (flags / temperature).sigmoid()
        p = torch.where(self.rates <= 0, 0.0, torch.where(self.rates >= 1, 1.0, p))
        sent = torch.rand(p.shape, generator=generator, device=p.device) < p
        drawn = []
        for slot, n in enumerate(self.alphabet):
            logits = F.linear(h.float() * self.gain[slot], table[slot, 1 : 1 + n])
            logits = (logits + self.bias[slot, :n]) / temperature
            logits = logits.masked_fill(~self.seen[slot, :n], -torch.inf)
            q = logits.softmax(dim=1)
            drawn.append(torch.multinomial(q, 1, generator=generator)[:, 0])
        return torch.where(sent, torch.stack(drawn, dim=1), -1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        # Files of before had no such row.
        state_dict.setdefault(prefix + "seen", torch.ones_like(self.seen))
        super()._load_from_state_dict(state_dict, prefix, *args)
