"""Orders of axes with which a planned contraction copies least."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

# In flops: a copy begun; then a number copied, and a run of them at one distance,
# for runs of neighbours in memory and for others.
BEGIN = 2e5
NEIGHBOURS, OTHERS = (14.0, 550.0), (100.0, 750.0)
# Groups of more axes are tried in few orders only.
ALL_ORDERS = 3
SWEEPS = 4

Volume = Callable[[str], float]


class Join(NamedTuple):
    """Two tensors that become one by a matrix product.

    Attributes
    ----------
    left, right : int
        Names of the tensors.
    rows, summed, columns : str
        Letters of the left one alone, of both, of the right one alone. The result
        has rows, then columns.
    """

    left: int
    right: int
    rows: str
    summed: str
    columns: str


def copied(before: str, rows: str, columns: str, volume: Volume) -> float:
    """Return what a tensor costs to become a matrix, in flops; none as it lies."""
    if before in (rows + columns, columns + rows):
        return 0.0
    target = rows + columns
    first = len(target) - 1
    while first and target[first - 1 :] in before:
        first -= 1
    run = target[first:]
    number, loop = NEIGHBOURS if before.endswith(run) else OTHERS
    return BEGIN + volume(before) * (number + loop / volume(run))


def arrange(
    joins: dict[int, Join], letters: dict[int, str], out: str, volume: Volume
) -> tuple[dict[int, Join], float]:
    """Return joins whose axes need few and long copies, and what these cost.

    One join after the other takes the orders that are best for itself and for the
    one that uses it, until none changes.

    Parameters
    ----------
    joins : dict of int to Join
        By the name of the result, in order of work.
    letters : dict of int to str
        Of every tensor, results too; those of joins are written anew.
    out : str
        Letters wanted of the last result.
    volume : callable
        Product of the sizes of letters.
    """
    user = {part: name for name, j in joins.items() for part in (j.left, j.right)}

    def entry(part: int, term: str, join: Join) -> float:
        if part == join.left:
            return copied(term, join.rows, join.summed, volume)
        return copied(term, join.summed, join.columns, volume)

    def cost(name: int, join: Join) -> float:
        total = entry(join.left, letters[join.left], join)
        total += entry(join.right, letters[join.right], join)
        result = join.rows + join.columns
        if name in user:
            return total + entry(name, result, joins[user[name]])
        return total + copied(result, out, "", volume)

    joins = dict(joins)
    for _ in range(SWEEPS):
        changed = False
        for name in reversed(joins):
            now = joins[name]
            best = min(_others(now, letters, out), key=lambda join: cost(name, join))
            # Strictly better only: equal ones would take turns.
            if cost(name, best) < cost(name, now):
                joins[name], changed = best, True
                letters[name] = best.rows + best.columns
        if not changed:
            break
    # What a join has paid for its result the next one does not pay again.
    copies = [
        entry(part, letters[part], join)
        for join in joins.values()
        for part in (join.left, join.right)
    ]
    last = max(letters)
    return joins, sum(copies) + copied(letters[last], out, "", volume)


def _others(join: Join, letters: dict[int, str], out: str) -> list[Join]:
    ends = (letters[join.left], letters[join.right], out)
    choices = [_orders(part, ends) for part in (join.rows, join.summed, join.columns)]
    found = []
    for rows, summed, columns in itertools.product(*choices):
        found.append(Join(join.left, join.right, rows, summed, columns))
        found.append(Join(join.right, join.left, columns, summed, rows))
    return found


def _orders(part: str, ends: Sequence[str]) -> list[str]:
    if len(part) <= ALL_ORDERS:
        return ["".join(order) for order in itertools.permutations(part)]
    natural = ["".join(c for c in term if c in part) for term in ends]
    # The alphabet's order is that of the axes.
    found = [part, "".join(sorted(part)), *(n for n in natural if len(n) == len(part))]
    return list(dict.fromkeys(found))
