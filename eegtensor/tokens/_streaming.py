"""Tokens of a stream: second by second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._signals import frame_length
from eegtensor.tokens.tokens import Tokens


def stream_tokens(
    encode: Callable[[NDArray], Tokens], chunks: Iterable[NDArray], sfreq: float
) -> Iterator[Tokens]:
    """Yield the tokens of every whole second, and at the end of what is left.

    Parameters
    ----------
    encode : callable
        From a second (n_channels, n_times) to its tokens.
    chunks : iterable of ndarray, shape (n_channels, n_times)
    sfreq : float
        Hertz.
    """
    length = frame_length(sfreq)
    held: list[NDArray] = []
    n_held = 0
    for k, chunk in enumerate(chunks):
        found = np.asarray(chunk)
        if found.ndim != 2 or (held and len(found) != len(held[0])):
            fail(
                f"chunk {k} has shape {found.shape}",
                fix="give (n_channels, n_times), of the same channels each time",
            )
        held.append(found)
        n_held += found.shape[1]
        if n_held < length:
            continue
        x = np.concatenate(held, axis=1)
        last = n_held // length * length
        for start in range(0, last, length):
            yield encode(x[:, start : start + length])
        held, n_held = [x[:, last:]], n_held - last
    if n_held:
        yield encode(np.concatenate(held, axis=1))
