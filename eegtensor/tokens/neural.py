"""The published tokenizers as kinds of `EEGTokenizer`: "neurorvq" and "labram"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.models._patch_tokenizer import FIXES
from eegtensor.models.labram import SIZES as LABRAM_SIZES
from eegtensor.models.neurorvq import SIZES as NEURORVQ_SIZES
from eegtensor.tokens._bands import N_BINS
from eegtensor.tokens._neural_codec import (
    NETWORKS,
    PATCH,
    SAMPLE,
    NeuralCodec,
    patches_of,
)
from eegtensor.tokens._neural_fit import ALL_FIXES, cut_samples, shifted, train_network
from eegtensor.tokens._signals import Signals

__all__ = ["NeuralBackend", "NeuralCodec"]

_SIZES = {"neurorvq": NEURORVQ_SIZES, "labram": LABRAM_SIZES}
_BRANCHES = {"neurorvq": 4, "labram": 1}
# Training patches that say how much energy of each bin the tokens lose.
_MEASURED = 4096
# Training patches, at most, among which no code is dead in the end.
_COUNTED = 50_000


class NeuralBackend:
    """A published tokenizer, to be fitted.

    Parameters
    ----------
    network : {"neurorvq", "labram"}
    """

    codec = NeuralCodec

    def __init__(self, network: str) -> None:
        self.network = check_option("network", network, tuple(NETWORKS))

    def fit(
        self,
        recordings: Sequence[Signals],
        X: Sequence[NDArray],
        *,
        bits_per_second: float,
        random_state: int = 0,
        size: str = "small",
        fixes: Sequence[str] = ALL_FIXES,
        n_codes: int | None = None,
        **training: Any,
    ) -> NeuralCodec:
        """Train a network.

        Parameters
        ----------
        recordings : sequence of Signals
            Rates and channel names.
        X : sequence of ndarray, shape (n_trials, n_channels, n_times)
            Their signals, divided by their scales.
        bits_per_second : float
            Of a channel, at most: as many levels as these pay for, up to eight
            (LaBraM has one).
        random_state : int
        size : {"small", "published"}
        fixes : sequence of str
            See `NeuroRVQ`; "warmup" trains without the quantisers for the first
            sixth of the steps.
        n_codes : int | None
            Of a codebook; None for the size's.
        **training
            See `train_network`.

        Raises
        ------
        EEGTensorError
            If the bits do not pay for one level, or a channel has no name or an
            unlisted one and the fix "channels" is off.
        """
        sizes = _SIZES[self.network]
        base = sizes[check_option("size", size, tuple(sizes))]
        for fix in fixes:
            check_option("fixes", fix, ALL_FIXES)
        n_codes = base.n_codes if n_codes is None else n_codes
        own = tuple(fix for fix in fixes if fix in FIXES)
        options = {
            "size": size,
            "fixes": own,
            "n_codes": n_codes,
            "n_levels": self._levels(bits_per_second, n_codes, base.n_levels),
        }
        model = NETWORKS[self.network](PATCH, random_state=random_state, **options)
        others = "channels" in own
        where = [
            model.places(s.ch_names or None, torch.zeros(1, x.shape[1]))[0]
            for s, x in zip(recordings, X, strict=True)
        ]
        patches = [
            [patches_of(part, s.sfreq) for part in shifted(x, s.sfreq)]
            for s, x in zip(recordings, X, strict=True)
        ]
        samples = cut_samples(
            patches,
            where,
            n_seconds=1 if "alone" in own else len(model.encoder.seconds),
            most=SAMPLE,
            others=others,
            random_state=random_state,
        )
        train_network(
            model,
            samples,
            warmup="warmup" in fixes,
            random_state=random_state,
            **training,
        )
        codec = NeuralCodec(
            self.network, options, model, torch.zeros(N_BINS, dtype=torch.float64)
        )
        if "revival" in own:
            # As the recordings are encoded: with frames from their first sample on.
            share = min(1.0, _COUNTED / sum(math.prod(p[0].shape[:3]) for p in patches))
            codec.use_all_codes(
                [
                    (p[0][:, :, : math.ceil(share * p[0].shape[2])], s.ch_names)
                    for s, p in zip(recordings, patches, strict=True)
                ]
            )
        codec.lost = self._lost(codec, samples)
        return codec

    def _levels(self, bits: float, n_codes: int, most: int) -> int:
        """Return how many levels the bits pay for."""
        a_level = _BRANCHES[self.network] * math.log2(n_codes)
        found = min(int(bits / a_level + 1e-9), most)
        if found < 1:
            fail(
                f"bits_per_second={bits:g} for {self.network!r}",
                why=f"One level of {n_codes} codes costs {a_level:g} bits a second",
                fix=f"give {a_level:g} or more, or fewer codes (n_codes)",
            )
        return found

    @torch.no_grad()
    def _lost(self, codec: NeuralCodec, samples: tuple[Tensor, Tensor]) -> Tensor:
        """Return the energy a bin that training patches lose."""
        x, where = samples
        n = max(1, _MEASURED // (x.shape[1] * (x.shape[2] // PATCH)))
        x, where = x[:n], where[:n]
        rebuilt = codec.model.decode(codec.model.encode(x, where), where)
        energy = [
            np.square(
                scipy.fft.dct(
                    v.unflatten(-1, (-1, PATCH)).double().numpy(), norm="ortho"
                )
            ).mean(axis=(0, 1, 2))[:N_BINS]
            for v in (x, rebuilt)
        ]
        return torch.from_numpy(np.maximum(energy[0] - energy[1], 0.0))
