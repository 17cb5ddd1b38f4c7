"""Trials to tokens, with one scale a domain and channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eegtensor.domains import Domain, encode_domains
from eegtensor.tokens._signals import Signals, scale_of
from eegtensor.tokens.tokens import Tokens


class Scales(NamedTuple):
    """What one means in each domain, and where the domain is not known.

    Attributes
    ----------
    by_domain : dict of Domain to ndarray, shape (n_channels,)
    pooled : ndarray, shape (n_channels,)
        Geometric mean of the sources'.
    """

    by_domain: Mapping[Domain, NDArray]
    pooled: NDArray


def learn_scales(signals: Signals, names: Sequence[Domain]) -> Scales:
    """Return the standard deviations of each domain's channels."""
    codes, table = encode_domains(names)
    found = {
        name: scale_of(signals._replace(X=signals.X[codes == k]))
        for k, name in enumerate(table)
    }
    stack = np.stack(list(found.values()))
    # Of those that are not silent: one dead channel is not the end of all.
    logs = np.log(np.where(stack > 0, stack, 1.0)).sum(axis=0)
    count = (stack > 0).sum(axis=0)
    return Scales(found, np.where(count, np.exp(logs / np.maximum(count, 1)), 0.0))


def tokenise(
    tokenizer: Any, signals: Signals, names: Sequence[Domain], scales: Scales
) -> Tokens:
    """Return the tokens of trials, each scaled as its domain is.

    The scale of what is returned is the pooled one: trials of several domains have
    none of their own.
    """
    codes, table = encode_domains(names)
    ids: NDArray | None = None
    for k, name in enumerate(table):
        rows = codes == k
        part = tokenizer.encode(
            signals.X[rows],
            scale=scales.by_domain.get(name, scales.pooled),
            sfreq=signals.sfreq,
            ch_names=signals.ch_names or None,
        )
        if ids is None:
            ids = np.empty((len(codes), *part.ids.shape[1:]), dtype=part.ids.dtype)
        ids[rows] = part.ids
    return replace(part, ids=ids, scale=scales.pooled, bits=None)
