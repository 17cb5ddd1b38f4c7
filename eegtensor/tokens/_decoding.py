"""From tokens to signals."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail, listing
from eegtensor.tokens._kinds import Codec
from eegtensor.tokens._signals import frame_length
from eegtensor.tokens.tokens import Tokens


def decode_tokens(
    codec: Codec, tokens: Tokens, known: tuple[str, ...], fill: Any
) -> NDArray:
    """Return the signal of tokens; see `EEGTokenizer.decode`.

    Parameters
    ----------
    codec : Codec
    tokens : Tokens
    known : tuple of str
        Channels of a spatial tokenizer, where it has names.
    fill : float
    """
    if not isinstance(fill, Real) or not 0 <= float(fill) <= 1:
        fail(f"fill={fill!r}", fix="give a share from 0 to 1")
    ids = np.asarray(tokens.ids)
    single = ids.ndim == 3
    ids = ids[None] if single else ids
    n_channels = len(tokens.scale)
    check_channels(codec, known, tokens.ch_names, n_channels)
    if ids.shape[1] != n_channels or ids.shape[3] != len(codec.alphabet):
        fail(
            f"tokens have {ids.shape[1]} units of {ids.shape[3]} slots and "
            f"{n_channels} scales, the tokenizer {len(codec.alphabet)} slots",
            fix="decode with the tokenizer that encoded",
        )
    most = ids.shape[2] * frame_length(tokens.sfreq)
    if tokens.n_times > most:
        fail(
            f"n_times={tokens.n_times}, and {ids.shape[2]} frames of {most} samples",
            fix="change n_times with the ids",
        )
    x = codec.decode(
        ids,
        tokens.sfreq,
        tokens.ch_names,
        tokens.n_times,
        fill=float(fill),
        step=tokens.step,
    )
    x = x * tokens.scale[:, None]
    return np.asarray(x[0] if single else x)


def check_channels(
    codec: Codec, known: tuple[str, ...], names: tuple[str, ...], n_channels: int
) -> None:
    """Raise if channels are not those that a spatial codec mixes."""
    if codec.mixing is None:
        return
    n = codec.mixing.shape[-1]
    if n_channels != n or (names and known and names != known):
        fail(
            f"{n_channels} channels ({listing(names) or 'unnamed'}) for a spatial "
            f"tokenizer of {n} ({listing(known) or 'unnamed'})",
            why="Its components are sums of exactly those channels, in that order",
            fix="pick and order the channels so, or fit with spatial=False",
        )
