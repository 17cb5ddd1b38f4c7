"""Structures of a tensor network: templates, canonical form, size, least error.

Whatever the template, a structure is a table of ranks between modes: rotated and
reflected rings have the same table, and a link of rank 1 is no link.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.geometry.spectral import eigvalsh

TEMPLATES = ("ring", "train", "graph")
# Larger sides of an unfolding are not looked at: their eigenvalues cost too much.
_LARGEST_SIDE = 1024
_MOST_CUTS = 1024


class State(NamedTuple):
    """A point of the search: ranks of the template's links, and modes in its places."""

    ranks: tuple[int, ...]
    permutation: tuple[int, ...]


class Template:
    """Places joined by links; a permutation puts one mode in each place.

    Parameters
    ----------
    name : str
        ring: link k is before place k, link 0 closes the ring. train: link k is
        after place k. graph: a link between any two modes, and no permutation.
    n_modes : int
    permutes : bool
        Whether modes may change places, where there are places.
    """

    def __init__(self, name: str, n_modes: int, *, permutes: bool = True) -> None:
        check_option("template", name, TEMPLATES)
        least = 3 if name == "ring" else 2
        if n_modes < least:
            fail(
                f"X has {n_modes} axes for a {name}",
                fix=f"give an array of {least} or more axes",
            )
        self.name, self.n_modes = name, n_modes
        # Any graph on the modes is reached without moving them.
        self.permutes = permutes and name != "graph"
        if name == "ring":
            links = [((k - 1) % n_modes, k) for k in range(n_modes)]
        elif name == "train":
            links = [(k, k + 1) for k in range(n_modes - 1)]
        else:
            links = list(combinations(range(n_modes), 2))
        self.links = np.array(links)

    def table(self, state: State) -> NDArray[np.int64]:
        """Return the ranks between modes, symmetric, ones where there is no link."""
        out = np.ones((self.n_modes, self.n_modes), dtype=np.int64)
        modes = np.array(state.permutation)[self.links]
        out[modes[:, 0], modes[:, 1]] = state.ranks
        out[modes[:, 1], modes[:, 0]] = state.ranks
        return out

    def place(self, cores: Sequence[Tensor], state: State) -> list[Tensor]:
        """Return cores (r before, I, r after) in places, from axes for all modes."""
        if self.name == "graph":
            return list(cores)
        out = []
        for k, m in enumerate(state.permutation):
            before = [a for a, b in self.links if b == k]
            after = [b for a, b in self.links if a == k]
            near = [state.permutation[j] for j in (*before, *after)]
            near.insert(len(before), m)
            # Modes that are not next to this one have axes of length 1.
            rest = [j for j in range(self.n_modes) if j not in near]
            G = cores[m].permute(*near, *rest)
            sizes = list(G.shape[: len(near)])
            if not before:
                sizes.insert(0, 1)
            if not after:
                sizes.append(1)
            out.append(G.reshape(sizes).contiguous())
        return out


def canonical(table: NDArray[np.int64]) -> str:
    """Return the same text for all states that are the same network."""
    n = len(table)
    return " ".join(str(table[i, j]) for i, j in combinations(range(n), 2))


def relative_size(table: NDArray[np.int64], shape: Sequence[int]) -> float:
    """Return phi: entries of all cores over cells of the tensor."""
    # As floats: ranks of a dense graph multiply beyond int64.
    cores = np.prod(table.astype(float), axis=1) * np.array(shape)
    return float(cores.sum()) / math.prod(shape)


class Bounds:
    """Least squared relative error of a structure, from the unfoldings alone.

    Cutting the modes in two, no network has a rank above the product of the ranks
    that are cut: what the unfolding holds beyond is lost, whatever the cores.

    Parameters
    ----------
    X : Tensor of float64, shape (I_1, ..., I_N)
    """

    def __init__(self, X: Tensor) -> None:
        total = float(X.square().sum())
        sides: list[list[bool]] = []
        lost: list[NDArray[np.float64]] = []
        for k in range(1, X.ndim // 2 + 1):
            for side in combinations(range(X.ndim), k):
                # The other half is the same cut.
                if 2 * k == X.ndim and 0 not in side:
                    continue
                rows = math.prod(X.shape[m] for m in side)
                small = min(rows, X.numel() // rows)
                if small > _LARGEST_SIDE or len(sides) == _MOST_CUTS:
                    continue
                M = X.permute(*side, *(m for m in range(X.ndim) if m not in side))
                M = M.reshape(rows, -1)
                energy = eigvalsh(M @ M.mT if rows == small else M.mT @ M)
                kept = energy.clamp_min(0.0).flip(0).cumsum(0) / max(total, 1e-300)
                # Rounding must not make the bound too high.
                lost.append((1.0 - 1e-12 - kept).clamp_min(0.0).numpy())
                sides.append([m in side for m in range(X.ndim)])
        member = np.array(sides, dtype=bool).reshape(-1, X.ndim)
        self._across = member[:, :, None] & ~member[:, None, :]
        width = max((len(v) for v in lost), default=0)
        self._lost = np.zeros((len(lost), width + 1))
        for row, v in zip(self._lost, lost, strict=True):
            row[1 : len(v) + 1] = v
        self._width = width

    def __call__(self, table: NDArray[np.int64]) -> float:
        """Return the bound of a table of ranks."""
        if not len(self._lost):
            return 0.0
        cut = np.where(self._across, table.astype(float), 1.0)
        # Ranks beyond the last column lose nothing.
        rank = np.minimum(cut.prod(axis=(1, 2)), self._width).astype(int)
        return float(self._lost[np.arange(len(rank)), rank].max())


def first_guess(
    template: Template,
    order: tuple[int, ...],
    max_rank: int,
    least: Callable[[State], float],
) -> State:
    """Return a state where no single change lowers the least possible score.

    It costs no fit. Ranks 1 in the order given are changed one at a time to the
    best of all ranks, places by the best exchange.
    """
    state = State((1,) * len(template.links), order)
    score = least(state)
    while True:
        before = score
        for k in range(len(state.ranks) + template.permutes):
            if k == len(state.ranks):
                tried = transpositions(state)
            else:
                tried = [with_rank(state, k, r) for r in range(1, max_rank + 1)]
            scores = [least(s) for s in tried]
            if min(scores) < score:
                score = min(scores)
                state = tried[scores.index(score)]
        if score == before:
            return state


def best_guess(
    template: Template,
    max_rank: int,
    least: Callable[[State], float],
    random: np.random.Generator,
    n_orders: int = 20,
) -> State:
    """Return the best first guess of the natural order and of some random ones."""
    orders = [tuple(range(template.n_modes))]
    while template.permutes and len(orders) < n_orders:
        orders.append(tuple(random.permutation(template.n_modes).tolist()))
    return min((first_guess(template, o, max_rank, least) for o in orders), key=least)


def random_start(
    template: Template,
    max_rank: int,
    least: Callable[[State], float],
    random: np.random.Generator,
) -> State:
    """Return small ranks in a random order; `least` is not asked, unlike by a guess."""
    low = min(2, max_rank)
    drawn = random.permutation(template.n_modes)
    if template.permutes:
        return State((low,) * len(template.links), tuple(drawn.tolist()))
    if template.name == "graph":
        # A ring in a random order: a full graph of many modes is larger than X.
        near = {frozenset(pair) for pair in zip(drawn, np.roll(drawn, 1), strict=True)}
        ranks = [low if frozenset(p) in near else 1 for p in template.links.tolist()]
    else:
        n_links = len(template.links)
        ranks = random.integers(1, min(3, max_rank) + 1, n_links).tolist()
    return State(tuple(ranks), tuple(range(template.n_modes)))


def with_rank(state: State, k: int, rank: int) -> State:
    """Return the state with one rank replaced."""
    ranks = (*state.ranks[:k], rank, *state.ranks[k + 1 :])
    return State(ranks, state.permutation)


def transpositions(state: State) -> list[State]:
    """Return the state with every two places exchanged."""
    out = []
    for i, j in combinations(range(len(state.permutation)), 2):
        swapped = list(state.permutation)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        out.append(State(state.ranks, tuple(swapped)))
    return out


def as_float64(X: Tensor) -> Tensor:
    """Return X in float64 on the CPU, scaled to norm 1: its unit does not matter."""
    X = X.detach().to("cpu", torch.float64).contiguous()
    norm = float(X.norm())
    return X / norm if norm > 0 else X
