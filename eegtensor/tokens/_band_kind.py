"""The band-rvq kind: spectra of channels or components to the band codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.tokens._bands import N_BINS
from eegtensor.tokens._coded import Coded
from eegtensor.tokens._fit import (
    States,
    candidates,
    choose_states,
    fit_bands,
    levels_for,
)
from eegtensor.tokens._lanes import by_lane, by_unit, lanes_of, spectra_of
from eegtensor.tokens._mixing import fit_mixing
from eegtensor.tokens._saving import check_whole
from eegtensor.tokens._signals import Signals, signals_from, spectra
from eegtensor.tokens.bandrvq import BandCodec, decode_bands, encode_bands

# Every fifth second, or recording where there are five, chooses the states.
_HELD = 5


class BandKind:
    """A band codec with the mixing before it.

    Parameters
    ----------
    bands : BandCodec
    mixing : ndarray, shape (n_bands, n_units, n_channels) | None
    """

    def __init__(self, bands: BandCodec, mixing: NDArray | None) -> None:
        self.bands, self.mixing = bands, mixing

    @property
    def alphabet(self) -> NDArray:
        """How many ids a slot can have, (n_slots,)."""
        found = np.full(self.bands.n_slots, self.bands.books[0].shape[1])
        found[0] = max(len(self.bands.states), 1)
        return found

    @property
    def bits_per_second(self) -> float:
        """Bits of a second and channel, at most."""
        return self.bands.bits_per_frame / len(self.bands.spread)

    @property
    def n_states(self) -> int:
        """Alphabet of the states; 0 where there are none."""
        return len(self.bands.states)

    def encode(
        self,
        X: NDArray,
        sfreq: float,
        ch_names: Sequence[str] = (),
        *,
        step: float | None = None,
    ) -> Coded:
        """Return the ids of scaled signals (n_trials, n_channels, n_times)."""
        lanes = lanes_of(spectra(X, sfreq, N_BINS), self.mixing)
        ids = encode_bands(lanes.flatten(0, 1), self.bands)
        ids = by_unit(ids.view(*lanes.shape[:3], -1), len(X))
        return Coded(np.ascontiguousarray(ids.numpy(), dtype=np.int32))

    def decode(
        self,
        ids: NDArray,
        sfreq: float,
        ch_names: Sequence[str],
        n_times: int,
        *,
        fill: float = 0.0,
        step: float | None = None,
    ) -> NDArray:
        """Return scaled signals, (n_trials, n_channels, n_times)."""
        sent = by_lane(ids, self.mixing)
        coefs = decode_bands(sent.flatten(0, 1), self.bands, fill=fill)
        lanes = coefs.view(*sent.shape[:3], -1)
        return signals_from(spectra_of(lanes, len(ids), self.mixing), sfreq, n_times)

    def state(self) -> dict[str, Any]:
        """Return all that `from_state` needs."""
        return {**self.bands._asdict(), "mixing": self.mixing}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return the codec of a state."""
        fields = check_whole(state, {*BandCodec._fields, "mixing"}, "The band codec")
        mixing = fields.pop("mixing")
        return cls(BandCodec(**fields), mixing)


def fit_band_kind(
    recordings: Sequence[Signals],
    X: Sequence[NDArray],
    *,
    bits_per_second: float,
    spatial: bool,
    n_states: int | None,
    random_state: int,
) -> BandKind:
    """Return a codec for recordings.

    Parameters
    ----------
    recordings : sequence of Signals
    X : sequence of ndarray, shape (n_trials, n_channels, n_times)
        Scaled.
    bits_per_second : float
        Of a channel, at most.
    spatial : bool
    n_states : int | None
        None for what is best on held-out seconds.
    random_state : int
    """
    coefs = [spectra(x, s.sfreq, N_BINS) for s, x in zip(recordings, X, strict=True)]
    mixing = fit_mixing(recordings, coefs) if spatial else None
    frames = [lanes_of(c, mixing).flatten(0, 1) for c in coefs]
    n_units = frames[0].shape[1]
    bits = bits_per_second * n_units
    n_levels = levels_for(bits_per_second, n_units)
    if n_states is not None:
        states = States(n_states, n_units if n_states else 0)
    else:
        train, held = _split(frames)
        states = choose_states(
            train,
            held,
            bits,
            candidates(n_units),
            n_levels=n_levels,
            random_state=random_state,
        )
    bands = fit_bands(
        torch.cat(frames), bits, states, n_levels=n_levels, random_state=random_state
    )
    return BandKind(bands, mixing)


def _split(frames: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return frames to train on, and others that choose."""
    if len(frames) >= _HELD:
        cut = len(frames) - len(frames) // _HELD
        return torch.cat(frames[:cut]), torch.cat(frames[cut:])
    ends = [len(f) - len(f) // _HELD for f in frames]
    pairs = list(zip(frames, ends, strict=True))
    train = torch.cat([f[:end] if end else f for f, end in pairs])
    held = torch.cat([f[end:] for f, end in pairs])
    # A few seconds leave none to choose by.
    return train, held if len(held) else train
