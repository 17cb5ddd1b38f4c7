"""Bands of a second's cosine spectrum, shared by the kinds."""

from __future__ import annotations

import numpy as np

# In 0.5 Hz bins: delta, theta, alpha and low beta by 2 Hz, then wider up to 46 Hz.
EDGES = (0, 4, 8, 12, 16, 20, 26, 36, 48, 64, 92)
N_BINS = EDGES[-1]
# Up to 100 Hz, for rates that pay for what little is there.
_HIGHER = (100, 112, 128, 160, 200)


def edges_to(n_bins: int) -> tuple[int, ...]:
    """Return the edges of bands up to a number of bins, one of the edges."""
    return tuple(edge for edge in (*EDGES, *_HIGHER) if edge <= n_bins)


def widths() -> list[int]:
    """Return how many bins each band has."""
    return np.diff(EDGES).tolist()
