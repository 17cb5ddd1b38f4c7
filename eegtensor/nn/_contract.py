"""Contraction of tensor networks in the order that costs least."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.nn._orders import Join, arrange

# One step costs about as much time as so many flops, one number moved as these.
STEP = 1e6
MOVE = 40.0
# Networks of more nodes are ordered greedily: the exact search takes 3^n steps.
EXACT = 10

Sizes = tuple[tuple[str, int], ...]


class Step(NamedTuple):
    """Contract two tensors of the list: they leave it, the result joins its end.

    Attributes
    ----------
    first, second : int
        Places in the list.
    equation : str
        What to do, in einsum's words.
    n_summed : int
        Where no axis is common to both and kept: how many are summed over, the last
        ones of the first tensor and the first ones of the second; else 0.
    views : (tuple of int | None, tuple of int | None)
        Then, orders of axes to bring the two to before.
    """

    first: int
    second: int
    equation: str
    n_summed: int
    views: tuple[tuple[int, ...] | None, tuple[int, ...] | None]


class Plan(NamedTuple):
    """An order of contraction.

    Attributes
    ----------
    steps : tuple of Step
    terms : tuple of str
        Letters of the tensors it was made for.
    out : str
        Letters of the result.
    order : tuple of int | None
        In which the last step's axes make the result.
    flops : float
        Multiplications and additions.
    cost : float
        With what steps, moved numbers and copies cost, in flops.
    """

    steps: tuple[Step, ...]
    terms: tuple[str, ...]
    out: str
    order: tuple[int, ...] | None
    flops: float
    cost: float


def dense_cost(rows: float, summed: float, columns: float) -> float:
    """Return what one matrix product costs, in flops as `Plan.cost`."""
    moved = rows * summed + summed * columns + rows * columns
    return 2.0 * rows * summed * columns + MOVE * moved + STEP


def contract(plan: Plan, tensors: Iterable[Tensor]) -> Tensor:
    """Return the contraction of tensors, one for each of the plan's terms.

    It may lie in memory in another order than that of its axes.
    """
    rest = list(tensors)
    if not plan.steps:
        return torch.einsum(f"{plan.terms[0]}->{plan.out}", rest[0])
    for first, second, equation, k, views in plan.steps:
        a, b = rest[first], rest[second]
        del rest[max(first, second)], rest[min(first, second)]
        # Under autocast the two may differ, which a product refuses.
        if k == 0 or a.dtype != b.dtype:
            rest.append(torch.einsum(equation, a, b))
            continue
        # One matrix product: einsum's batched one takes half as long again, and
        # tensordot looks at its axes for as long as a small product takes.
        a = a if views[0] is None else a.permute(views[0])
        b = b if views[1] is None else b.permute(views[1])
        summed = math.prod(b.shape[:k])
        product = a.reshape(-1, summed) @ b.reshape(summed, -1)
        rest.append(product.reshape(a.shape[:-k] + b.shape[k:]))
    return rest[0] if plan.order is None else rest[0].permute(plan.order)


@lru_cache(maxsize=4096)
def plan(terms: tuple[str, ...], out: str, sizes: Sizes) -> Plan:
    """Return the cheapest order in which a network contracts, pair by pair.

    Parameters
    ----------
    terms : tuple of str
        Letters of each tensor's axes; a letter may be in any number of them.
    out : str
        Letters of the result. All others are summed over.
    sizes : tuple of (str, int)
        Of each letter.
    """
    if len(terms) == 1:
        return Plan((), terms, out, None, 0.0, 0.0)
    network = _Network(terms, out, dict(sizes))
    if len(terms) > EXACT:
        return _linear(network, network.greedy())
    tree, whole = network.exact(), (1 << len(terms)) - 1
    # Copies are counted once the tree is known. They may make it dearer than to
    # contract the rest first and the first tensor with that, in one product.
    other = {**tree, whole: (1, whole - 1)}
    return min((_linear(network, t) for t in (tree, other)), key=lambda p: p.cost)


class _Network:
    """Sets of tensors, as bit masks, and the letters their contractions keep."""

    def __init__(self, terms: Sequence[str], out: str, sizes: dict[str, int]) -> None:
        self.terms, self.out, self.sizes = tuple(terms), out, sizes
        self._kept: dict[int, frozenset[str]] = {}
        self._volume: dict[frozenset[str], float] = {}

    def kept(self, nodes: int) -> frozenset[str]:
        """Return the letters that the contraction of these nodes still has."""
        if nodes not in self._kept:
            inside: set[str] = set()
            outside = set(self.out)
            for n, term in enumerate(self.terms):
                (inside if nodes >> n & 1 else outside).update(term)
            self._kept[nodes] = frozenset(inside & outside)
        return self._kept[nodes]

    def volume(self, letters: Iterable[str]) -> float:
        """Return the product of the letters' sizes."""
        key = frozenset(letters)
        if key not in self._volume:
            self._volume[key] = math.prod(self.sizes[c] for c in key)
        return self._volume[key]

    def flops(self, a: int, b: int) -> float:
        """Return multiplications and additions that join two sets."""
        return 2.0 * self.volume(self.kept(a) | self.kept(b))

    def cost(self, a: int, b: int) -> float:
        """Return what joining two sets costs, in flops."""
        moved = sum(self.volume(self.kept(nodes)) for nodes in (a, b, a | b))
        return self.flops(a, b) + MOVE * moved + STEP

    def exact(self) -> dict[int, tuple[int, int]]:
        """Return the best split of each set of nodes (dynamic programming)."""
        n = len(self.terms)
        best = {1 << k: 0.0 for k in range(n)}
        split: dict[int, tuple[int, int]] = {}
        for nodes in sorted(range(1, 1 << n), key=lambda s: s.bit_count()):
            if nodes in best:
                continue
            best[nodes] = math.inf
            low = nodes & -nodes
            # Each pair once: `a` has the lowest node.
            rest = nodes ^ low
            part = (rest - 1) & rest
            while True:
                a, b = part | low, rest ^ part
                known = best[a] + best[b]
                if known < best[nodes]:
                    total = known + self.cost(a, b)
                    if total < best[nodes]:
                        best[nodes], split[nodes] = total, (a, b)
                if part == 0:
                    break
                part = (part - 1) & rest
        return split

    def greedy(self) -> dict[int, tuple[int, int]]:
        """Return splits that join, each time, the pair that costs least."""
        alive = [1 << n for n in range(len(self.terms))]
        split: dict[int, tuple[int, int]] = {}
        while len(alive) > 1:
            pairs = itertools.combinations(alive, 2)
            a, b = min(pairs, key=lambda pair: self.cost(*pair))
            alive = [s for s in alive if s not in (a, b)]
            alive.append(a | b)
            split[a | b] = (a, b)
        return split


def _linear(network: _Network, split: dict[int, tuple[int, int]]) -> Plan:
    """Return the tree's joins one after the other, as equations."""
    alive = [1 << n for n in range(len(network.terms))]
    letters = dict(zip(alive, network.terms, strict=True))
    whole = (1 << len(alive)) - 1
    tree = list(_post_order(split, whole))
    products = {}
    for a, b in tree:
        x, y = letters[a], letters[b]
        both = "".join(c for c in x if c in y)
        rows = "".join(c for c in x if c not in both)
        columns = "".join(c for c in y if c not in both)
        equal = "".join(c for c in both if c in network.kept(a | b))
        if both and not equal:
            products[a | b] = Join(a, b, rows, both, columns)
            letters[a | b] = rows + columns
        else:
            last = a | b == whole
            letters[a | b] = network.out if last else equal + rows + columns
    ordered, copies = arrange(products, letters, network.out, network.volume)
    steps = []
    for a, b in tree:
        join = ordered.get(a | b, Join(a, b, "", "", ""))
        x, y = letters[join.left], letters[join.right]
        equation = f"{x},{y}->{letters[a | b]}"
        place = alive.index(join.left), alive.index(join.right)
        if a | b not in ordered:
            steps.append(Step(*place, equation, 0, (None, None)))
        else:
            left, right = join.rows + join.summed, join.summed + join.columns
            views = (_order(x, left), _order(y, right))
            steps.append(Step(*place, equation, len(join.summed), views))
        alive = [nodes for nodes in alive if nodes not in (a, b)]
        alive.append(a | b)
    return Plan(
        tuple(steps),
        network.terms,
        network.out,
        _order(letters[whole], network.out),
        sum(network.flops(a, b) for a, b in tree),
        sum(network.cost(a, b) for a, b in tree) + copies,
    )


def _order(before: str, after: str) -> tuple[int, ...] | None:
    return None if before == after else tuple(before.index(c) for c in after)


def _post_order(
    split: dict[int, tuple[int, int]], nodes: int
) -> Iterable[tuple[int, int]]:
    if nodes in split:
        a, b = split[nodes]
        yield from _post_order(split, a)
        yield from _post_order(split, b)
        yield a, b
