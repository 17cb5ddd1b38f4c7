"""Contraction of tensor networks in the order that costs least."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

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
    sums : (list of int, list of int) | None
        Where no axis is common to both and kept: the axes summed over.
    views : (tuple of int | None, tuple of int | None)
        Then, orders of axes to bring the two to before.
    order : tuple of int | None
        Then, of the axes left, where the result wants another.
    """

    first: int
    second: int
    equation: str
    sums: tuple[list[int], list[int]] | None
    views: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    order: tuple[int, ...] | None


class Plan(NamedTuple):
    """An order of contraction.

    Attributes
    ----------
    steps : tuple of Step
    terms : tuple of str
        Letters of the tensors it was made for.
    out : str
        Letters of the result.
    flops : float
        Multiplications and additions.
    cost : float
        With what steps and moved numbers cost, in flops.
    """

    steps: tuple[Step, ...]
    terms: tuple[str, ...]
    out: str
    flops: float
    cost: float


def contract(plan: Plan, tensors: Iterable[Tensor]) -> Tensor:
    """Return the contraction of tensors, one for each of the plan's terms."""
    rest = list(tensors)
    if not plan.steps:
        return torch.einsum(f"{plan.terms[0]}->{plan.out}", rest[0])
    for first, second, equation, sums, views, order in plan.steps:
        b = rest.pop(second)
        a = rest.pop(first)
        # Under autocast the two may differ, which tensordot refuses.
        if sums is None or a.dtype != b.dtype:
            c = torch.einsum(equation, a, b)
        else:
            # One matrix product: einsum's batched one takes half as long again.
            a = a if views[0] is None else a.permute(views[0])
            b = b if views[1] is None else b.permute(views[1])
            c = torch.tensordot(a, b, sums)
            c = c if order is None else c.permute(order)
        rest.append(c)
    return rest[0]


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
        return Plan((), terms, out, 0.0, 0.0)
    network = _Network(terms, out, dict(sizes))
    tree = network.exact() if len(terms) <= EXACT else network.greedy()
    return _linear(network, tree)


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

    def volume(self, letters: frozenset[str]) -> float:
        """Return the product of the letters' sizes."""
        if letters not in self._volume:
            self._volume[letters] = math.prod(self.sizes[c] for c in letters)
        return self._volume[letters]

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
    nodes = [1 << n for n in range(len(network.terms))]
    letters = dict(zip(nodes, network.terms, strict=True))
    steps, flops, cost = [], 0.0, 0.0
    whole = (1 << len(nodes)) - 1
    for a, b in _post_order(split, whole):
        flops += network.flops(a, b)
        cost += network.cost(a, b)
        first, second = sorted((nodes.index(a), nodes.index(b)))
        x, y = letters[nodes[first]], letters[nodes[second]]
        wanted = network.out if a | b == whole else None
        step, letters[a | b] = _step(network, a | b, first, second, x, y, wanted)
        steps.append(step)
        nodes = [s for s in nodes if s not in (a, b)]
        nodes.append(a | b)
    return Plan(tuple(steps), network.terms, network.out, flops, cost)


def _step(
    network: _Network,
    nodes: int,
    first: int,
    second: int,
    x: str,
    y: str,
    wanted: str | None,
) -> tuple[Step, str]:
    """Return how tensors of letters x and y are joined, and the result's letters."""
    kept = network.kept(nodes)
    both = [c for c in x if c in y]
    equal = [c for c in both if c in kept]
    equation = f"{x},{y}->"
    if equal or not both:
        own = [c for c in x + y if c not in both]
        result = "".join(equal + own) if wanted is None else wanted
        return Step(first, second, equation + result, None, (None, None), None), result
    # The larger is used as it is. The smaller's own axes come in the alphabet's
    # order, which is the output's: what would be copied later is larger.
    large = max((x, y), key=lambda term: network.volume(frozenset(term)))
    terms = [
        term if term == large else "".join(sorted(term, key=lambda c: (c in both, c)))
        for term in (x, y)
    ]
    natural = "".join(c for term in terms for c in term if c not in both)
    result = natural if wanted is None else wanted
    summed = [c for c in large if c in both]
    return Step(
        first,
        second,
        equation + result,
        ([terms[0].index(c) for c in summed], [terms[1].index(c) for c in summed]),
        (_order(x, terms[0]), _order(y, terms[1])),
        _order(natural, result),
    ), result


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
