"""EEGTokenizer: recordings to tokens and back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from eegtensor._check import check_option, fail, listing
from eegtensor.tokens._files import check_alike, is_path, only_file, open_files
from eegtensor.tokens._kinds import KINDS, Codec
from eegtensor.tokens._packing import pack_tokens, unpack_tokens
from eegtensor.tokens._saving import read_tokenizer, write_tokenizer
from eegtensor.tokens._scaling import check_rate, check_scale, scaled
from eegtensor.tokens._signals import read_signals, scale_of
from eegtensor.tokens._streaming import stream_tokens
from eegtensor.tokens.tokens import Tokens
from eegtensor.training.seeds import as_seed

# What kinds take beside a rate and a seed, with the values that say nothing.
_OPTIONS: dict[str, Any] = {
    "spatial": False,
    "n_states": None,
    "size": None,
    "fixes": None,
    "n_codes": None,
    "n_steps": None,
}


class EEGTokenizer(BaseEstimator):
    """Turn EEG of any unit and rate into tokens, and tokens into EEG.

    Parameters
    ----------
    kind : str
        "band-rvq": cosine spectrum of every second in ten bands up to 46 Hz, each
        coded by levels of codebooks; bits go where they lower the error most, and
        no second has more than its share.
        "learned": the same spectrum rounded to steps; a small network says what
        every code costs, and a recording gets the least step that its rate pays
        for. The least error at a rate; `compress` writes those bits.
        "neurorvq": the multi-scale network of NeuroRVQ (arXiv:2510.13068).
        "labram": the neural spectrum tokenizer of LaBraM (ICLR 2024).
    bits_per_second : float
        Of a channel, at most.
    spatial : bool
        Whether principal components of the channels, band by band, are coded
        instead of channels ("band-rvq", "learned"): a third of the error at equal
        bits, for the channels of the fit alone. Without it any channels can be
        coded, each by itself.
    n_states : int | None
        "band-rvq": alphabet of the token that says how a second's energy is
        spread; 0 for none; None for what is best on held-out seconds.
    size : str | None
        "neurorvq", "labram": "small" (the default) or "published".
    fixes : tuple of str | None
        "neurorvq", "labram": faults of the published method that are mended, see
        `eegtensor.models.NeuroRVQ`; None for all, () for the published method.
    n_codes : int | None
        "neurorvq", "labram": codes of a codebook; None for those of the size.
    n_steps : int | None
        "neurorvq", "labram": steps of training; None for 1500.
    random_state : int | None

    Attributes
    ----------
    bits_per_second_ : float
        Bits a second and channel that are spent, at most.
    codec_ : object
        What was fitted.
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
        size: str | None = None,
        fixes: tuple[str, ...] | None = None,
        n_codes: int | None = None,
        n_steps: int | None = None,
        random_state: int | None = 0,
    ) -> None:
        self.kind = kind
        self.bits_per_second = bits_per_second
        self.spatial = spatial
        self.n_states = n_states
        self.size = size
        self.fixes = fixes
        self.n_codes = n_codes
        self.n_steps = n_steps
        self.random_state = random_state

    def fit(
        self,
        recordings: Any,
        y: object = None,
        *,
        sfreq: float | None = None,
        ch_names: Sequence[str] | None = None,
    ) -> Self:
        """Learn what the kind learns.

        Parameters
        ----------
        recordings : recording or list of recordings
            Arrays (n_channels, n_times) or (n_trials, n_channels, n_times), `Trials`,
            MNE's Raw or Epochs, or paths of recordings or of folders of them, which
            are high-passed at 0.5 Hz.
        y : object
            Not used.
        sfreq : float | None
            Hertz, of arrays.
        ch_names : sequence of str | None
            Of arrays.

        Raises
        ------
        EEGTensorError
            If signals cannot be read, channels differ though `spatial`, the bits
            are fewer than one code's, or an option is not the kind's.
        """
        kind = KINDS[check_option("kind", self.kind, tuple(KINDS))]
        options = {name: getattr(self, name) for name in _OPTIONS}
        idle = [
            name
            for name, nothing in _OPTIONS.items()
            if name not in kind.takes and options[name] != nothing
        ]
        if idle:
            fail(
                f"{listing(idle)} with kind={self.kind!r}",
                why="It has no such option",
                fix="leave it out, or choose another kind",
            )
        bits_per_second = check_rate(self.bits_per_second)
        many = recordings if isinstance(recordings, (list, tuple)) else [recordings]
        check_alike(many)
        if many and is_path(many[0]):
            many = list(open_files(many))
        names = tuple(ch_names) if ch_names is not None else None
        read = [read_signals(x, sfreq, names) for x in many]
        if not read:
            fail("there are no recordings", fix="give at least one")
        codec: Codec = kind.fit(
            read,
            [scaled(s, scale_of(s)) for s in read],
            bits_per_second=bits_per_second,
            random_state=as_seed(self.random_state),
            **{name: options[name] for name in kind.takes},
        )
        self.codec_ = codec
        self.ch_names_ = read[0].ch_names if codec.mixing is not None else ()
        self.sfreq_ = read[0].sfreq
        self.bits_per_second_ = codec.bits_per_second
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
            See `fit`; one.
        scale : array, shape (n_channels,), or float | None
            What one means in the unit of x; None for the standard deviation of
            each channel. With a scale given, seconds can be encoded one by one:
            nothing is looked up in the rest of the recording, so that "learned"
            takes the step of its fit and spends what that costs.
        sfreq : float | None
            Hertz, of arrays; that of the fit if not given.
        ch_names : sequence of str | None
            Of arrays.

        Returns
        -------
        Tokens
        """
        codec = self._fitted()
        if is_path(x):
            x = only_file(x)
        rate = self.sfreq_ if sfreq is None else sfreq
        signals = read_signals(x, rate, None if ch_names is None else tuple(ch_names))
        n_channels, n_times = signals.X.shape[1:]
        self._check_channels(signals.ch_names, n_channels)
        step = None if scale is None else getattr(codec, "step", None)
        scale = scale_of(signals) if scale is None else check_scale(scale, n_channels)
        coded = codec.encode(
            scaled(signals, scale), signals.sfreq, signals.ch_names, step=step
        )
        ids, bits = coded.ids, coded.bits
        if signals.single:
            ids, bits = ids[0], None if bits is None else bits[0]
        return Tokens(
            ids,
            scale,
            signals.sfreq,
            signals.ch_names,
            n_times,
            codec.alphabet,
            bits,
            coded.step,
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
        if not isinstance(tokens, Tokens):
            fail(
                f"decode got {type(tokens).__name__}",
                fix="give the Tokens of encode(); they have the scale and rate",
            )
        if not 0 <= fill <= 1:
            fail(f"fill={fill!r}", fix="give a share from 0 to 1")
        ids = np.asarray(tokens.ids)
        single = ids.ndim == 3
        ids = ids[None] if single else ids
        n_channels = len(tokens.scale)
        self._check_channels(tokens.ch_names, n_channels)
        if ids.shape[1] != n_channels or ids.shape[3] != len(codec.alphabet):
            fail(
                f"tokens have {ids.shape[1]} units of {ids.shape[3]} slots and "
                f"{n_channels} scales, the tokenizer {len(codec.alphabet)} slots",
                fix="decode with the tokenizer that encoded",
            )
        x = codec.decode(
            ids,
            tokens.sfreq,
            tokens.ch_names,
            tokens.n_times,
            fill=fill,
            step=tokens.step,
        )
        x = x * tokens.scale[:, None]
        return np.asarray(x[0] if single else x)

    def stream(
        self,
        chunks: Any,
        *,
        scale: NDArray | float,
        sfreq: float | None = None,
        ch_names: Sequence[str] | None = None,
    ) -> Iterator[Tokens]:
        """Yield the tokens of every second as soon as it is whole.

        Parameters
        ----------
        chunks : iterable of array, shape (n_channels, n_times)
            Of any lengths, in the order of time.
        scale : array, shape (n_channels,), or float
            See `encode`: a stream has no end that a scale could be taken from.
        sfreq, ch_names
            See `encode`.

        Yields
        ------
        Tokens
            Of one second; of what is left at the end. `join` makes them the tokens
            that `encode` gives of the whole.
        """
        self._fitted()
        rate = self.sfreq_ if sfreq is None else sfreq

        def encode(x: NDArray) -> Tokens:
            return self.encode(x, scale=scale, sfreq=rate, ch_names=ch_names)

        return stream_tokens(encode, chunks, rate)

    def compress(self, tokens: Tokens) -> bytes:
        """Return tokens of kind "learned" in the bytes that they cost.

        Raises
        ------
        EEGTensorError
            If the kind has no model of costs.
        """
        return pack_tokens(self._fitted(), tokens)

    def decompress(self, data: bytes) -> Tokens:
        """Return the tokens that `compress` wrote, with their names and scale."""
        return unpack_tokens(self._fitted(), data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to one safetensors file."""
        codec = self._fitted().state()
        own = {name: getattr(self, name) for name in _LEARNED}
        state = {"codec": codec, **self.get_params(), **own}
        write_tokenizer(Path(path), state)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return a tokenizer that `save` wrote.

        Raises
        ------
        EEGTensorError
            If the file is damaged, changed, or not a tokenizer in full.
        """
        params = set(cls().get_params())
        state = read_tokenizer(Path(path), params | {"codec", *_LEARNED})
        kind = KINDS[check_option("kind", state["kind"], tuple(KINDS))]
        found = cls(**{name: state[name] for name in params})
        for name in _LEARNED:
            setattr(found, name, state[name])
        found.codec_ = kind.load(state["codec"])
        return found

    def _fitted(self) -> Codec:
        if not hasattr(self, "codec_"):
            fail("The tokenizer is not fitted", fix="call fit(recordings) first")
        return self.codec_

    def _check_channels(self, names: tuple[str, ...], n_channels: int) -> None:
        mixing = self.codec_.mixing
        if mixing is None:
            return
        n = mixing.shape[-1]
        known = self.ch_names_
        if n_channels != n or (names and known and names != known):
            fail(
                f"{n_channels} channels ({listing(names) or 'unnamed'}) for a spatial "
                f"tokenizer of {n} ({listing(known) or 'unnamed'})",
                why="Its components are sums of exactly those channels, in that order",
                fix="pick and order the channels so, or fit with spatial=False",
            )


_LEARNED = ("ch_names_", "sfreq_", "bits_per_second_")
