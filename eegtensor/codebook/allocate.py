"""How many levels each band and component is worth."""

from __future__ import annotations

import numpy as np
import torch

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged


@bridged
def allocate_levels(
    errors: Array,
    bits: Array,
    budget: float,
) -> Array:
    """Return how many levels each cell gets under a budget of bits.

    Greedy: the step with the largest fall of error a bit comes next, until none
    fits. Steps of several levels count as one where a later level falls more a bit
    than an earlier one (the lower convex hull), so the result is optimal at every
    budget that the steps spend exactly (Shoham and Gersho 1988).

    Parameters
    ----------
    errors : array, shape (n_cells, n_levels + 1)
        Squared error of a cell (a band of a component) after 0, 1, ... levels, in
        one unit for all cells.
    bits : array, shape (n_cells,)
        What one level of the cell costs.
    budget : float
        Bits in all.

    Returns
    -------
    levels : array of int64, shape (n_cells,)

    Raises
    ------
    EEGTensorError
        If shapes do not fit, an error or a cost is negative or not finite, or the
        budget is not a number.
    """
    if errors.ndim != 2 or errors.shape[1] < 1 or bits.shape != errors.shape[:1]:
        fail(
            f"errors have shape {tuple(errors.shape)}, bits {tuple(bits.shape)}",
            fix="give errors (n_cells, n_levels + 1) and bits (n_cells,)",
        )
    left = errors.detach().cpu().double().numpy()
    cost = bits.detach().cpu().double().numpy()
    known = np.isfinite(left).all() and np.isfinite(cost).all()
    if not known or (left < 0).any() or (cost <= 0).any() or np.isnan(budget):
        fail(
            "errors or bits are negative or not finite",
            fix="give squared errors, positive costs and a budget",
        )
    gains, steps, cells = [], [], []
    for cell, row in enumerate(left):
        for begin, end in _hull(row):
            gains.append((row[begin] - row[end]) / ((end - begin) * cost[cell]))
            steps.append(end - begin)
            cells.append(cell)
    # Falling gains keep a cell's steps in order: its hull is convex.
    order = np.argsort(-np.asarray(gains), kind="stable")
    levels = np.zeros(len(left), dtype=np.int64)
    closed = np.zeros(len(left), dtype=bool)
    spent = 0.0
    for step in order:
        cell = cells[step]
        price = steps[step] * cost[cell]
        if closed[cell] or spent + price > budget * (1 + 1e-12):
            closed[cell] = True
            continue
        levels[cell] += steps[step]
        spent += price
    return torch.from_numpy(levels).to(errors.device)


def _hull(row: np.ndarray) -> list[tuple[int, int]]:
    """Return the edges of the lower convex hull that go down."""
    edges = []
    at = 0
    while at < len(row) - 1:
        ahead = np.arange(at + 1, len(row))
        slope = (row[at] - row[ahead]) / (ahead - at)
        best = int(np.argmax(slope))
        if slope[best] <= 0:
            break
        edges.append((at, int(ahead[best])))
        at = int(ahead[best])
    return edges
