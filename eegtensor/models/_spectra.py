"""Spectra of patches as networks rebuild them, and back to signals."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpectralTarget(nn.Module):
    """What a decoder's heads are held against, and the signal that they mean.

    Heads are the amplitude and, by `kind`, cosine and sine of the phase or the
    phase itself. Amplitudes (and phases, which have no other scale) are standardised
    by the training data's mean and deviation, see `fit`; the published models take
    both from the patch that they rebuild, as side information that no token codes.

    Parameters
    ----------
    n_times : int
        Of a patch.
    kind : {"circle", "angle"}
        "circle": log(1 + |X|), cos arg X, sin arg X (NeuroRVQ). "angle": |X|, arg X
        (LaBraM).
    n_bins : int | None
        None: all n_times bins of the complex spectrum, of which half say the same,
        with one mean and deviation for all. Else the first bins of the one-sided
        spectrum, each with its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_times: int, kind: str, n_bins: int | None) -> None:
        super().__init__()
        self.n_times, self.kind, self.one_sided = n_times, kind, n_bins is not None
        self.n_bins = n_times if n_bins is None else min(n_bins, n_times // 2 + 1)
        self.n_heads = 3 if kind == "circle" else 2
        scaled = 1 if kind == "circle" else 2
        size = self.n_bins if self.one_sided else 1
        self.register_buffer("mean", torch.zeros(scaled, size))
        self.register_buffer("std", torch.ones(scaled, size))

    def complex_spectrum(self, patches: Tensor) -> Tensor:
        """Return the bins of patches (..., n_times)."""
        if self.one_sided:
            return torch.fft.rfft(patches)[..., : self.n_bins]
        return torch.fft.fft(patches)

    def forward(self, patches: Tensor) -> Tensor:
        """Return targets (n_heads, ..., n_bins) of patches (..., n_times)."""
        X = self.complex_spectrum(patches)
        size, angle = X.abs(), X.angle()
        if self.kind == "angle":
            parts = [size, angle]
        else:
            parts = [size.log1p(), angle.cos(), angle.sin()]
        scaled = [
            (part - mean) / std
            for part, mean, std in zip(parts, self.mean, self.std, strict=False)
        ]
        return torch.stack(scaled + parts[len(scaled) :])

    def signal(self, heads: Tensor) -> Tensor:
        """Return patches (..., n_times) from heads (n_heads, ..., n_bins)."""
        size = heads[0] * self.std[0] + self.mean[0]
        if self.kind == "angle":
            angle = heads[1] * self.std[1] + self.mean[1]
            X = torch.complex(size * angle.cos(), size * angle.sin())
        else:
            size = size.expm1()
            X = torch.complex(size * heads[1], size * heads[2])
        if self.one_sided:
            # Bins beyond the last one given are taken as zero.
            return torch.fft.irfft(X, n=self.n_times)
        return torch.fft.ifft(X).real

    @torch.no_grad()
    def fit(self, patches: Tensor) -> None:
        """Take mean and deviation from patches (..., n_times)."""
        self.mean.zero_()
        self.std.fill_(1.0)
        heads = self(patches)[: len(self.mean)].flatten(1, -2)
        if not self.one_sided:
            heads = heads.flatten(1)[..., None]
        self.mean.copy_(heads.mean(dim=1))
        std = heads.std(dim=1, correction=0)
        self.std.copy_(torch.where(std > 1e-6 * std.max(), std, 1.0))
