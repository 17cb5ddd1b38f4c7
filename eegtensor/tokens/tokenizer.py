"""EEGTokenizer: recordings to tokens and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._decoding import check_channels, decode_tokens
from eegtensor.tokens._files import is_path, only_file
from eegtensor.tokens._fitting import OPTIONS, fit_codec
from eegtensor.tokens._makers import check_maker
from eegtensor.tokens._packing import pack_tokens, unpack_tokens
from eegtensor.tokens._savedtokenizer import SavedTokenizer
from eegtensor.tokens._scaling import check_scale, scaled
from eegtensor.tokens._signals import check_sfreq, read_signals, scale_of
from eegtensor.tokens._streaming import stream_tokens
from eegtensor.tokens.tokens import Tokens


class EEGTokenizer(SavedTokenizer):
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
    name_ : str
        Kind, rate and a digest of what was fitted, which tokens bear: another
        tokenizer refuses them.
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
        found = fit_codec(
            recordings,
            kind=self.kind,
            bits_per_second=self.bits_per_second,
            options={name: getattr(self, name) for name in OPTIONS},
            random_state=self.random_state,
            sfreq=sfreq,
            ch_names=ch_names,
        )
        self.codec_, self.ch_names_, self.sfreq_ = found
        self.bits_per_second_ = found.codec.bits_per_second
        self.name_ = self._name()
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
        check_channels(codec, self.ch_names_, signals.ch_names, n_channels)
        step = None if scale is None else getattr(codec, "step", None)
        scale = scale_of(signals) if scale is None else check_scale(scale, signals)
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
            self.name_,
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
        check_maker(tokens.made_by, self.name_, reader="they are to be decoded by")
        return decode_tokens(codec, tokens, self.ch_names_, fill)

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
        rate = self.sfreq_ if sfreq is None else check_sfreq(sfreq)

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
        return pack_tokens(self._fitted(), tokens, self.name_)

    def decompress(self, data: bytes) -> Tokens:
        """Return the tokens that `compress` wrote, with their names and scale."""
        return unpack_tokens(self._fitted(), data, self.name_)
