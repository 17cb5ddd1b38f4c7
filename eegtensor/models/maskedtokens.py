"""A transformer over the tokens of EEG that fills in those that are masked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.models._base import as_generator
from eegtensor.models._codehead import CodeLosses, CodeTeller
from eegtensor.nn.axial import AxialBlock
from eegtensor.nn.positions import N_FEATURES

# Units without a place, such as components, that have a vector of their own.
_MAX_INDEX = 512
PRECISIONS = ("float32", "bfloat16")


class TokenStates(NamedTuple):
    """What a network makes of tokens.

    Attributes
    ----------
    states : Tensor, shape (batch, n_units, n_frames, width)
    difficulty : Tensor, shape (batch, n_units, n_frames)
        A score: the higher, the harder to fill in if masked.
    """

    states: Tensor
    difficulty: Tensor


class MaskedTokenNetwork(nn.Module):
    """Read the tokens of some channels and seconds, and tell those that are masked.

    A position, one unit (channel or component) in one frame, enters as the sum of
    the embeddings of its slots, of where its electrode lies and of its frame.
    Attention is among the units of a frame, then among the frames of a unit. At
    every position a slot is told in two steps: whether it is sent, and if so, which
    of its codes. The vectors of codes that are read and those that are told are the
    same: learned ones, or those that the codes stand for, which takes far less data.

    Parameters
    ----------
    alphabet : sequence of int, one a slot
        Codes of each slot.
    n_code_features : int | None
        Length of vectors that codes stand for, to be given to `start_at`; they are
        not trained. None for learned ones.
    width, depth, n_heads : int
        Of the transformer.
    dropout : float
    precision : "float32" | "bfloat16"
        Of the products; weights are float32 either way.
    random_state : int | torch.Generator | None
        Of the initial weights.

    Attributes
    ----------
    table : Parameter, shape (n_slots, 1 + largest alphabet, n_features)
        Row 0 of a slot stands for nothing sent.

    References
    ----------
    Devlin et al., "BERT", NAACL, 2019; Jiang et al., "Large brain model", ICLR,
    2024 (symmetric masking of EEG tokens); Press and Wolf, "Using the output
    embedding to improve language models", EACL, 2017.
    """

    def __init__(
        self,
        alphabet: Sequence[int],
        *,
        n_code_features: int | None = None,
        width: int = 64,
        depth: int = 3,
        n_heads: int = 4,
        dropout: float = 0.0,
        precision: str = "float32",
        random_state: int | torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.precision = check_option("precision", precision, PRECISIONS)
        self.alphabet = tuple(int(n) for n in alphabet)
        if not self.alphabet or min(self.alphabet) < 1:
            fail(f"alphabet={alphabet!r}", fix="give at least one code for every slot")
        if width < 2 or width % 2 or width % n_heads or depth < 1:
            fail(
                f"width={width}, depth={depth}, n_heads={n_heads}",
                fix="give an even width that heads divide, and at least one layer",
            )
        n_slots, most = len(self.alphabet), max(self.alphabet)
        self.width = width
        n = width if n_code_features is None else n_code_features
        self.table = nn.Parameter(
            torch.zeros(n_slots, 1 + most, n), requires_grad=n_code_features is None
        )
        self.codes = nn.Linear(n, width)
        self.pattern = nn.Linear(n_slots, width, bias=False)
        self.mask_vector = nn.Parameter(torch.empty(width))
        self.place = nn.Linear(N_FEATURES, width)
        # Row 0 is for units whose place is known.
        self.index = nn.Parameter(torch.empty(1 + _MAX_INDEX, width))
        self.time = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            AxialBlock(width, n_heads, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.teller = CodeTeller(self.alphabet, width, n)
        self.hard = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
        )
        self._initialise(as_generator(random_state))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                size = module.in_features**-0.5
                module.weight.normal_(0, size, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        for module in self.modules():
            if isinstance(module, AxialBlock):
                # The sum over layers starts no larger than one of them.
                module.start_near_mean(len(self.blocks) ** -0.5)
        if self.table.requires_grad:
            size = len(self.alphabet) ** -0.5
            self.table.normal_(0, size, generator=generator)
        self.mask_vector.normal_(0, 0.1, generator=generator)
        self.index.normal_(0, 0.3, generator=generator)
        for layer in (self.place, self.time, self.pattern):
            layer.weight.mul_(0.3)
        # A masked token is told as the mean of its frame from the first step on:
        # what else enters starts smaller than codes do.
        self.teller.start_from(self.codes)

    @torch.no_grad()
    def start_at(
        self,
        rates: Tensor,
        shares: Tensor,
        vectors: Tensor | None = None,
        *,
        seen: Tensor | None = None,
    ) -> None:
        """Start from how often codes are used, and what they stand for.

        Parameters
        ----------
        rates : Tensor, shape (n_slots,)
            Share of positions where a slot is sent.
        shares : Tensor, shape (n_slots, largest alphabet)
            Of a slot's codes.
        vectors : Tensor, shape (n_slots, largest alphabet, n_code_features) | None
            That codes stand for.
        seen : Tensor of bool, shape (n_slots, largest alphabet) | None
            Codes that may be drawn; None for all.
        """
        self.teller.start_at(rates, shares, seen)
        if vectors is not None:
            self.table[:, 1:] = vectors

    def forward(self, x: Mapping[str, Tensor]) -> TokenStates:
        """Return a state for every position.

        Parameters
        ----------
        x : mapping
            ``ids``, integers (batch, n_units, n_frames, n_slots), -1 where nothing
            is sent; ``present``, bool (batch, n_units, n_frames), False where rows
            are filled up; ``places``, (batch, n_units, 23), see
            `electrode_features`; ``index``, int64 (batch, n_units), the number of
            a unit without a place, -1 of others; and ``masked``, bool as
            ``present``, if some are to be told.
        """
        device = self.table.device.type
        with torch.autocast(
            device, torch.bfloat16, enabled=self.precision == "bfloat16"
        ):
            h = self._enter(x)
            for block in self.blocks:
                h = block(h, x["present"])
            h = self.norm(h)
            difficulty = self.hard(h)[..., 0]
        return TokenStates(h.float(), difficulty.float())

    def _enter(self, x: Mapping[str, Tensor]) -> Tensor:
        ids = x["ids"]
        n_slots, rows, _ = self.table.shape
        first = torch.arange(n_slots, device=ids.device) * rows + 1
        flat = (ids.long() + first).flatten(0, 2)
        h = F.embedding_bag(flat, self.table.flatten(0, 1), mode="sum")
        h = self.codes(h.view(*ids.shape[:3], -1))
        h = h + self.pattern((ids >= 0).to(h.dtype))
        if "masked" in x:
            h = torch.where(x["masked"][..., None], self.mask_vector.to(h.dtype), h)
        place = self.place(x["places"].to(h.dtype))
        place = place + self.index[(x["index"] + 1).clamp_max(_MAX_INDEX)]
        return h + place[:, :, None] + self.time(self._frames(h))

    def _frames(self, h: Tensor) -> Tensor:
        """Return sines and cosines of the frames' numbers, (n_frames, width)."""
        half = torch.arange(self.width // 2, device=h.device)
        speed = torch.exp(-half * (math.log(1e3) / max(self.width // 2 - 1, 1)))
        angle = torch.arange(h.shape[2], device=h.device)[:, None] * speed
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(h.dtype)

    def losses(self, states: Tensor, ids: Tensor) -> CodeLosses:
        """Return how well states tell tokens.

        Parameters
        ----------
        states : Tensor, shape (n, width)
        ids : Tensor of int, shape (n, n_slots)
        """
        with self._cast(states):
            losses: CodeLosses = self.teller(states, self.table, ids)
        return losses

    def _cast(self, states: Tensor) -> torch.autocast:
        return torch.autocast(
            states.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    def draw(
        self, states: Tensor, generator: torch.Generator, *, temperature: float = 1.0
    ) -> Tensor:
        """Return tokens drawn as states tell them, int64 (n, n_slots).

        Parameters
        ----------
        states : Tensor, shape (n, width)
        generator : torch.Generator
            On their device.
        temperature : float
            Below one the likely ones become likelier.
        """
        with self._cast(states):
            return self.teller.draw(
                states, self.table, generator, temperature=temperature
            )
