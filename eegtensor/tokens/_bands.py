"""Bands of a second's cosine spectrum, shared by the kinds."""

from __future__ import annotations

import numpy as np

# In 0.5 Hz bins: delta, theta, alpha and low beta by 2 Hz, then wider up to 46 Hz.
EDGES = (0, 4, 8, 12, 16, 20, 26, 36, 48, 64, 92)
N_BINS = EDGES[-1]


def widths() -> list[int]:
    """Return how many bins each band has."""
    return np.diff(EDGES).tolist()
