"""EEGTokenizer: recordings to tokens and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from eegtensor._check import check_option, fail, listing
from eegtensor.tokens._fit import (
    States,
    candidates,
    choose_states,
    fit_bands,
    levels_for,
)
from eegtensor.tokens._saving import read_tokenizer, write_tokenizer
from eegtensor.tokens._signals import read_signals, scale_of
from eegtensor.tokens._units import (
    by_frame,
    by_unit,
    check_scale,
    components,
    from_frames,
    scaled,
    to_frames,
)
from eegtensor.tokens.bandrvq import BandCodec, decode_bands, encode_bands
from eegtensor.tokens.tokens import Tokens

KINDS = ("band-rvq",)
# Every fifth second, or recording where there are five, chooses the states.
_HELD = 5


class EEGTokenizer(BaseEstimator):
    """Turn EEG of any unit and rate into tokens, and tokens into EEG.

    Parameters
    ----------
    kind : str
        "band-rvq": cosine spectrum of every second in ten bands up to 46 Hz, each
        coded by levels of codebooks; bits go where they lower the error most.
    bits_per_second : float
        Of a channel, at most.
    spatial : bool
        Whether principal components of the channels are coded instead of channels:
        a third of the error at equal bits, for the channels of the fit alone.
        Without it any channels can be coded, each by itself.
    n_states : int | None
        Alphabet of the token that says how a second's energy is spread; 0 for
        none; None for what is best on held-out seconds.
    random_state : int

    Attributes
    ----------
    bits_per_second_ : float
        Bits a second and channel that are spent, at most.
    n_states_ : int
        As given or chosen.
    sfreq_ : float
        Hertz, of the first recording of the fit.
    ch_names_ : tuple of str
        Channels of the fit; empty where unknown or without `spatial`.
    """

    def __init__(
        self,
        kind: str = "band-rvq",
        *,
        bits_per_second: float = 104,
        spatial: bool = False,
        n_states: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.kind = kind
        self.bits_per_second = bits_per_second
        self.spatial = spatial
        self.n_states = n_states
        self.random_state = random_state

    def fit(
        self,
        recordings: Any,
        y: object = None,
        *,
        sfreq: float | None = None,
        ch_names: Sequence[str] | None = None,
    ) -> Self:
        """Learn transform, states and codebooks.

        Parameters
        ----------
        recordings : recording or list of recordings
            Arrays (n_channels, n_times) or (n_trials, n_channels, n_times), `Trials`,
            or MNE's Raw or Epochs.
        y : object
            Not used.
        sfreq : float | None
            Hertz, of arrays.
        ch_names : sequence of str | None
            Of arrays.

        Raises
        ------
        EEGTensorError
            If signals cannot be read, channels differ though `spatial`, or the
            bits are fewer than one code's.
        """
        check_option("kind", self.kind, KINDS)
        many = recordings if isinstance(recordings, (list, tuple)) else [recordings]
        names = tuple(ch_names) if ch_names is not None else None
        read = [read_signals(x, sfreq, names) for x in many]
        if not read:
            fail("there are no recordings", fix="give at least one")
        X = [scaled(s, scale_of(s)) for s in read]
        self.mixing_ = components(read, X) if self.spatial else None
        self.ch_names_ = read[0].ch_names if self.spatial else ()
        self.sfreq_ = read[0].sfreq
        frames = [
            to_frames(x, s.sfreq, self.mixing_) for x, s in zip(X, read, strict=True)
        ]
        n_units = frames[0].shape[1]
        bits = float(self.bits_per_second) * n_units
        n_levels = levels_for(float(self.bits_per_second), n_units)
        states = self._states(frames, bits, n_levels)
        self.codec_ = fit_bands(
            torch.cat(frames),
            bits,
            states,
            n_levels=n_levels,
            random_state=self.random_state,
        )
        self.n_states_ = states.n_states
        self.bits_per_second_ = self.codec_.bits_per_frame / n_units
        return self

    def encode(
        self,
        x: Any,
        *,
        scale: NDArray | float | None = None,
        sfreq: float | None = None,
        ch_names: Sequence[str] | None = None,
    ) -> Tokens:
        """Return the tokens of a recording or of trials.

        Parameters
        ----------
        x : recording
            See `fit`.
        scale : array, shape (n_channels,), or float | None
            What one means in the unit of x; None for the standard deviation of
            each channel. With a scale given, seconds can be encoded one by one.
        sfreq : float | None
            Hertz, of arrays; that of the fit if not given.
        ch_names : sequence of str | None
            Of arrays.

        Returns
        -------
        Tokens
        """
        codec = self._fitted()
        rate = self.sfreq_ if sfreq is None else sfreq
        signals = read_signals(x, rate, tuple(ch_names) if ch_names else None)
        n_trials, n_channels, n_times = signals.X.shape
        self._check_channels(signals.ch_names, n_channels)
        scale = scale_of(signals) if scale is None else check_scale(scale, n_channels)
        frames = to_frames(scaled(signals, scale), signals.sfreq, self.mixing_)
        ids = by_unit(
            encode_bands(frames, codec), n_trials, n_channels, spatial=self.spatial
        )
        alphabet = np.full(codec.n_slots, codec.books[0].shape[1])
        alphabet[0] = max(len(codec.states), 1)
        return Tokens(
            ids[0] if signals.single else ids,
            scale,
            signals.sfreq,
            signals.ch_names,
            n_times,
            alphabet,
        )

    def decode(self, tokens: Tokens, *, fill: float = 0.0) -> NDArray:
        """Return the signal, in the unit that was encoded.

        Parameters
        ----------
        tokens : Tokens
        fill : float
            Noise where no bits were spent, from 0 (the least error) to 1 (the
            energy of the training data in every band). It depends on the tokens
            alone.

        Returns
        -------
        x : ndarray, shape ([n_trials,] n_channels, n_times)
        """
        codec = self._fitted()
        if not 0 <= fill <= 1:
            fail(f"fill={fill!r}", fix="give a share from 0 to 1")
        ids = np.asarray(tokens.ids)
        single = ids.ndim == 3
        ids = ids[None] if single else ids
        n_trials, n_units = ids.shape[:2]
        n_channels = len(tokens.scale)
        self._check_channels(tokens.ch_names, n_channels)
        if n_units != n_channels:
            fail(
                f"tokens have {n_units} units and {n_channels} scales",
                fix="give the tokens that encode() returned",
            )
        sent = by_frame(ids, spatial=self.spatial)
        coefs = decode_bands(sent, codec, fill=fill).numpy()
        shape = (n_trials, n_channels, tokens.n_times)
        x = from_frames(coefs, shape, tokens.sfreq, self.mixing_)
        x = x * tokens.scale[:, None]
        return np.asarray(x[0] if single else x)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to one safetensors file."""
        codec = self._fitted()
        fields = {f"codec.{k}": v for k, v in codec._asdict().items()}
        own = {name: getattr(self, name) for name in _LEARNED}
        write_tokenizer(Path(path), {**self.get_params(), **own, **fields})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return a tokenizer that `save` wrote.

        Raises
        ------
        EEGTensorError
            If the file is damaged, changed, or not a tokenizer in full.
        """
        fields = {f"codec.{k}" for k in BandCodec._fields}
        params = set(cls().get_params())
        state = read_tokenizer(Path(path), params | set(_LEARNED) | fields)
        check_option("kind", state["kind"], KINDS)
        found = cls(**{name: state[name] for name in params})
        for name in _LEARNED:
            setattr(found, name, state[name])
        found.codec_ = BandCodec(**{k: state[f"codec.{k}"] for k in BandCodec._fields})
        return found

    def _fitted(self) -> BandCodec:
        if not hasattr(self, "codec_"):
            fail("The tokenizer is not fitted", fix="call fit(recordings) first")
        return self.codec_

    def _states(self, frames: list[torch.Tensor], bits: float, n_levels: int) -> States:
        n_units = frames[0].shape[1]
        if self.n_states is not None:
            n = int(self.n_states)
            return States(n, n_units if n else 0)
        whole = len(frames) >= _HELD
        cut = len(frames) - len(frames) // _HELD
        train = (
            frames[:cut] if whole else [f[: -(len(f) // _HELD) or None] for f in frames]
        )
        held = (
            frames[cut:] if whole else [f[len(f) - len(f) // _HELD :] for f in frames]
        )
        return choose_states(
            torch.cat(train),
            torch.cat(held),
            bits,
            candidates(n_units),
            n_levels=n_levels,
            random_state=self.random_state,
        )

    def _check_channels(self, names: tuple[str, ...], n_channels: int) -> None:
        if self.mixing_ is None:
            return
        n = self.mixing_.shape[1]
        known = self.ch_names_
        if n_channels != n or (names and known and names != known):
            fail(
                f"{n_channels} channels ({listing(names) or 'unnamed'}) for a spatial "
                f"tokenizer of {n} ({listing(known) or 'unnamed'})",
                why="Its components are sums of exactly those channels, in that order",
                fix="pick and order the channels so, or fit with spatial=False",
            )


_LEARNED = ("mixing_", "ch_names_", "sfreq_", "n_states_", "bits_per_second_")
