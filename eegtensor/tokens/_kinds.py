"""Kinds of tokenizers: what every codec has, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from eegtensor.tokens._band_kind import BandKind, fit_band_kind
from eegtensor.tokens._coded import Coded
from eegtensor.tokens._fit_learned import fit_learned
from eegtensor.tokens._signals import Signals
from eegtensor.tokens.learned import LearnedCodec
from eegtensor.tokens.neural import NeuralBackend


class Codec(Protocol):
    """Scaled signals to ids and back.

    Attributes
    ----------
    alphabet : ndarray of int, shape (n_slots,)
    bits_per_second : float
        Of a channel, at most, or on the training data where codes cost what they
        are worth.
    mixing : ndarray, shape (n_bands, n_units, n_channels) | None
        Of a spatial tokenizer.
    """

    alphabet: NDArray
    bits_per_second: float
    mixing: NDArray | None

    def encode(
        self,
        X: NDArray,
        sfreq: float,
        ch_names: Sequence[str],
        *,
        step: float | None = None,
    ) -> Coded:
        """Return the ids of signals (n_trials, n_channels, n_times)."""

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
        """Return the signals of ids (n_trials, n_units, n_frames, n_slots)."""

    def state(self) -> dict[str, Any]:
        """Return tensors, arrays and plain values."""


class Kind(NamedTuple):
    """A kind of tokenizer.

    Attributes
    ----------
    fit : callable
        Of recordings, scaled signals, and keywords.
    load : callable
        From a state to a codec.
    takes : tuple of str
        Keywords beyond bits_per_second and random_state.
    """

    fit: Callable[..., Any]
    load: Callable[[dict[str, Any]], Any]
    takes: tuple[str, ...]


def _neural(network: str) -> Kind:
    def fit(recordings: Sequence[Signals], X: Sequence[NDArray], **options: Any) -> Any:
        given = {k: v for k, v in options.items() if v is not None}
        return NeuralBackend(network).fit(recordings, X, **given)

    return Kind(
        fit, NeuralBackend.codec.from_state, ("size", "fixes", "n_codes", "n_steps")
    )


KINDS: dict[str, Kind] = {
    "band-rvq": Kind(fit_band_kind, BandKind.from_state, ("spatial", "n_states")),
    "learned": Kind(fit_learned, LearnedCodec.from_state, ("spatial",)),
    "neurorvq": _neural("neurorvq"),
    "labram": _neural("labram"),
}
