"""Patches to ids and back: the network that NeuroRVQ and LaBraM's tokenizer share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.codebook import Quantised, ResidualQuantizer, Usage
from eegtensor.models._directions import DirectionQuantizer, joined_usage
from eegtensor.models._electrodes import OTHER, places
from eegtensor.models._patches import (
    PatchTransformer,
    Size,
    TemporalFront,
    draw_weights,
)
from eegtensor.models._spectra import SpectralTarget

FIXES = ("residual", "revival", "spectrum", "norms", "alone", "channels")
# Hertz at patches of a second: the highest bin that "spectrum" keeps.
_HIGHEST = 45
# Of unit variance: patches below are equally silent.
_SILENT = 1e-2


class Reconstruction(NamedTuple):
    """What a tokenizer network returns for samples.

    Attributes
    ----------
    ids : Tensor of int64, shape (batch, n_channels, n_patches, n_slots)
        Levels of the first branch, of the second, and so on.
    signal : Tensor, shape (batch, n_channels, n_times)
        Rebuilt from the ids.
    heads : Tensor, shape (n_heads, batch, n_channels, n_patches, n_bins)
        What the decoder says of the spectrum, see `SpectralTarget`.
    code_loss : Tensor, shape ()
        Of the codebooks, summed over branches.
    usage : Usage | None
        Of this batch, one entry a slot; None where nothing was quantised.
    """

    ids: Tensor
    signal: Tensor
    heads: Tensor
    code_loss: Tensor
    usage: Usage | None


class PatchTokenizer(nn.Module):
    """Base of `NeuroRVQ` and `VQNSP`.

    Parameters
    ----------
    fronts : sequence of TemporalFront
        One a branch, each giving n_patch_times features.
    n_patch_times : int
    size : Size
    fixes : sequence of str
    kind : str
        Of the spectrum, see `SpectralTarget`.
    transformer : dict
        Options of both `PatchTransformer`.
    activation : callable
        Of the amplitude head's hidden layer.
    generator : torch.Generator
        Of all weights.
    """

    def __init__(
        self,
        fronts: Sequence[TemporalFront],
        n_patch_times: int,
        size: Size,
        fixes: Sequence[str],
        *,
        kind: str,
        transformer: dict[str, Any],
        activation: type[nn.Module],
        generator: torch.Generator,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        for fix in fixes:
            check_option("fixes", fix, FIXES)
        self.fixes, self.size = tuple(fixes), size
        self.n_patch_times, self.n_branches = n_patch_times, len(fronts)
        self.n_slots = self.n_branches * size.n_levels
        # Off while a network warms up: latents then reach the decoder as they are.
        self.quantises = True
        width, eps = size.width, transformer["eps"]
        seed = int(torch.randint(2**31, (), generator=generator))
        self.fronts = nn.ModuleList(fronts)
        self.widen = nn.Linear(n_patch_times, width) if width != n_patch_times else None
        # A patch's own norm takes its amplitude away, which the encoder gets back.
        self.loudness = nn.Parameter(torch.zeros(width)) if "norms" in fixes else None
        self.encoder = PatchTransformer(width, size.depth, size.n_heads, **transformer)
        self.norms = self._branches(lambda: nn.LayerNorm(width, eps=eps))
        self.code_heads = self._branches(
            lambda: nn.Sequential(
                nn.Linear(width, width), nn.Tanh(), nn.Linear(width, size.dim)
            )
        )
        exact = "residual" in self.fixes
        rule = ResidualQuantizer if exact else DirectionQuantizer
        self.quantizers = nn.ModuleList(
            rule(
                size.dim,
                size.n_codes,
                size.n_levels,
                random_state=seed + 1000 * branch,
                unit=not exact,
                commitment=0.25 if exact else 1.0,
                revive=2.0 if "revival" in self.fixes else 0.0,
            )
            for branch in range(self.n_branches)
        )
        self.code_inputs = self._branches(lambda: nn.Linear(size.dim, width))
        self.decoder = PatchTransformer(
            width, size.decoder_depth, size.n_heads, **transformer
        )
        self.decoder_norms = self._branches(lambda: nn.LayerNorm(width, eps=eps))
        self.spectrum = (
            SpectralTarget(n_patch_times, "circle", _HIGHEST + 1)
            if "spectrum" in self.fixes
            else SpectralTarget(n_patch_times, kind, None)
        )
        self.heads = nn.ModuleList(
            self._head(activation if head == 0 else nn.Tanh, bounded=head > 0)
            for head in range(self.spectrum.n_heads)
        )
        draw_weights(self, generator)
        if self.loudness is not None:
            nn.init.normal_(self.loudness, std=0.3, generator=generator)
        self.to(device)

    def _branches(self, make: Any) -> nn.ModuleList:
        return nn.ModuleList(make() for _ in range(self.n_branches))

    def _head(self, activation: type[nn.Module], *, bounded: bool) -> nn.Sequential:
        layers = [
            nn.Linear(self.n_branches * self.size.width, self.n_patch_times),
            activation(),
            nn.Linear(self.n_patch_times, self.spectrum.n_bins),
        ]
        if bounded and self.spectrum.kind == "circle":
            layers.append(nn.Tanh())
        return nn.Sequential(*layers)

    def places(self, channels: Sequence[str] | Tensor | None, x: Tensor) -> Tensor:
        """Return the place of every channel, int64 (batch, n_channels).

        Parameters
        ----------
        channels : sequence of str, Tensor of int64 ([batch,] n_channels), or None
            Names, or places of them; None where unknown, which needs the fix
            "channels".
        x : Tensor, shape (batch, n_channels, ...)
        """
        batch, n_channels = x.shape[:2]
        known = "channels" in self.fixes
        if channels is None:
            if not known:
                fail(
                    "the network as published needs channel names",
                    fix="give channels, or fixes that have 'channels'",
                )
            found = torch.full((n_channels,), OTHER)
        elif isinstance(channels, Tensor):
            found = channels
        else:
            found = places(channels, others=known)
        if found.shape[-1] != n_channels:
            fail(
                f"{found.shape[-1]} channel names for {n_channels} channels",
                fix="give one name a channel",
            )
        return found.to(x.device).expand(batch, n_channels)

    def cut(self, x: Tensor) -> Tensor:
        """Return the patches of samples, (batch, n_channels, n_patches, n_times)."""
        if x.ndim != 3 or x.shape[-1] % self.n_patch_times or not x.shape[-1]:
            fail(
                f"samples have shape {tuple(x.shape)}",
                fix="give (batch, n_channels, n_times), n_times a multiple of "
                f"{self.n_patch_times}",
            )
        return x.unflatten(-1, (-1, self.n_patch_times))

    def latents(self, patches: Tensor, where: Tensor) -> Tensor:
        """Return what is quantised, (n_branches, batch, n_channels, n_patches, dim)."""
        batch, n_channels, n_patches, _ = patches.shape
        most = len(self.encoder.seconds)
        if n_patches > most:
            fail(
                f"samples of {n_patches} patches",
                why=f"The network knows the places of {most}",
                fix=f"cut samples to {most} patches or fewer",
            )
        flat = patches.flatten(1, 2)
        features = torch.stack([front(flat) for front in self.fronts])
        features = features.view(self.n_branches, batch, n_channels, n_patches, -1)
        if self.widen is not None:
            features = self.widen(features)
        if self.loudness is not None:
            rms = patches.square().mean(dim=-1).sqrt()
            features = features + (rms + _SILENT).log()[..., None] * self.loudness
        # One pass for all branches, which share the blocks.
        tokens = self.encoder(features, where, alone="alone" in self.fixes)
        parts = zip(self.code_heads, self.norms, tokens, strict=True)
        return torch.stack([head(norm(part)) for head, norm, part in parts])

    def rebuild(self, values: Tensor, where: Tensor) -> Tensor:
        """Return the heads for codes of the shape of `latents`."""
        tokens = torch.stack(
            [layer(part) for layer, part in zip(self.code_inputs, values, strict=True)]
        )
        tokens = self.decoder(tokens, where)
        joined = torch.cat(
            [norm(part) for norm, part in zip(self.decoder_norms, tokens, strict=True)],
            dim=-1,
        )
        return torch.stack([head(joined) for head in self.heads])

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        channels: Sequence[str] | Tensor | None = None,
    ) -> Reconstruction:
        """Return ids, the signal rebuilt from them, and what a loss needs.

        Parameters
        ----------
        x : Tensor, shape (batch, n_channels, n_times), or (x, channels)
            In one unit, about unit variance.
        channels : sequence of str, Tensor of int64 or None
            See `places`.
        """
        if not isinstance(x, Tensor):
            x, channels = x
        where = self.places(channels, x)
        z = self.latents(self.cut(x), where)
        if self.quantises:
            coded = [
                cast(Quantised, quantizer(part))
                for quantizer, part in zip(self.quantizers, z, strict=True)
            ]
            values = torch.stack([c.values for c in coded])
            ids = torch.cat([c.ids for c in coded], dim=-1)
            loss = torch.stack([c.loss for c in coded]).sum()
            usage = joined_usage([c.usage for c in coded])
        else:
            values, loss, usage = z, z.new_zeros(()), None
            ids = torch.full((*z.shape[1:4], self.n_slots), -1, device=z.device)
        heads = self.rebuild(values, where)
        signal = self.spectrum.signal(heads).flatten(-2)
        return Reconstruction(ids, signal, heads, loss, usage)

    def encode(
        self, x: Tensor, channels: Sequence[str] | Tensor | None = None
    ) -> Tensor:
        """Return the ids of samples, (batch, n_channels, n_patches, n_slots).

        Parameters
        ----------
        x : Tensor, shape (batch, n_channels, n_times)
        channels : sequence of str, Tensor of int64 or None
            See `places`.
        """
        z = self.latents(self.cut(x), self.places(channels, x))
        parts = [q(part).ids for q, part in zip(self.quantizers, z, strict=True)]
        return torch.cat(parts, dim=-1)

    def decode(
        self, ids: Tensor, channels: Sequence[str] | Tensor | None = None
    ) -> Tensor:
        """Return the signal of ids, (batch, n_channels, n_times).

        Parameters
        ----------
        ids : Tensor of int64, shape (batch, n_channels, n_patches, n_slots)
            -1 adds nothing.
        channels : sequence of str, Tensor of int64 or None
            See `places`.
        """
        if ids.ndim != 4 or ids.shape[-1] != self.n_slots:
            fail(
                f"ids have shape {tuple(ids.shape)}",
                fix=f"give (batch, n_channels, n_patches, {self.n_slots})",
            )
        parts = ids.split(self.size.n_levels, dim=-1)
        books = [cast(ResidualQuantizer, q) for q in self.quantizers]
        values = torch.stack([q.decode(p) for q, p in zip(books, parts, strict=True)])
        heads = self.rebuild(values, self.places(channels, ids))
        return self.spectrum.signal(heads).flatten(-2)
