"""Tensor networks that stand for a weight: their cores, ranks and sizes."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from eegtensor._check import check_count, check_option, fail
from eegtensor.nn._contract import Sizes

KINDS = ("tt", "tr", "tucker", "cp", "stt", "str", "sttu")
# What each semi-tensor product kind is with t = 1.
PLAIN = {"stt": "tt", "str": "tr", "sttu": "tucker"}
# Of a ring with a share of the numbers: the two bonds between input and output, as
# a part of the others. The work goes with their square; decompositions of random
# and of decaying weights were as good as with equal ranks, and worse below this.
CUT = 2 / 3
# Letters of a batch and of its positions: no network uses them.
BATCH, PLACE = "Z", "T"
LETTERS = "".join(c for c in string.ascii_letters if c not in BATCH + PLACE)


class Layout(NamedTuple):
    """A tensor network in place of a tensor.

    In the semi-tensor product kinds (STT, STR, STTu) a core acts as itself times
    an identity matrix of size t (Kronecker): its left rank and its mode are t times
    larger than the core. The identity is a letter that the mode shares with the
    core on the other side; it is never built.

    Attributes
    ----------
    kind : str
    modes : tuple of int
        Shape of the tensor.
    ranks : tuple of int
        Chains: before each mode (TT: but the first); Tucker: of each mode; CP: one.
    t : int
        Size of the identities; 1 for the plain kinds.
    terms : tuple of str
        Letters of each core's axes.
    mode_terms : tuple of str
        Letters of each mode; two where it shares an identity, its letter last.
    sizes : tuple of (str, int)
        Of each letter.
    """

    kind: str
    modes: tuple[int, ...]
    ranks: tuple[int, ...]
    t: int
    terms: tuple[str, ...]
    mode_terms: tuple[str, ...]
    sizes: Sizes

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each core."""
        size = dict(self.sizes)
        return tuple(tuple(size[c] for c in term) for term in self.terms)

    @property
    def n_parameters(self) -> int:
        """Numbers in all cores."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def n_paths(self) -> int:
        """Products of core entries that one entry of the tensor sums."""
        free = set("".join(self.mode_terms))
        return math.prod(n for c, n in self.sizes if c not in free)

    def view(self, first: int, stop: int) -> tuple[int, ...]:
        """Return sizes of the letters of some modes."""
        size = dict(self.sizes)
        return tuple(size[c] for c in "".join(self.mode_terms[first:stop]))


@lru_cache(maxsize=1024)
def make_layout(
    kind: str,
    modes: tuple[int, ...],
    ranks: tuple[int, ...],
    t: int = 1,
    whole: tuple[int, ...] = (),
) -> Layout:
    """Return the network of a kind.

    Parameters
    ----------
    kind : one of `KINDS`
    modes : tuple of int, 2 or more
    ranks : tuple of int
        As in `Layout`.
    t : int
        Used by the semi-tensor product kinds, for modes that, with their rank, it
        divides.
    whole : tuple of int
        Modes that never share an identity, such as a kernel's taps.
    """
    t = t if kind in PLAIN else 1
    base = PLAIN.get(kind, kind)
    N = len(modes)
    letters = iter(LETTERS)
    size: dict[str, int] = {}

    def letter(n: int) -> str:
        c = next(letters)
        size[c] = n
        return c

    before: tuple[int, ...] = ranks
    if base == "tt":
        before = (1, *ranks)
    elif base == "cp":
        before = ranks * N
    shares = [
        t > 1 and n not in whole and modes[n] % t == 0 and before[n] % t == 0
        for n in range(N)
    ]
    main, unit = [], []
    for mode, share in zip(modes, shares, strict=True):
        # In the order of the axes: einsum sums in the alphabet's, and copies a
        # batch whose axes are in another.
        main.append(letter(mode // (t if share else 1)))
        unit.append(letter(t) if share else "")
    if base == "cp":
        bond = [letter(ranks[0])] * N
        terms = [main[n] + bond[n] for n in range(N)]
    else:
        first = 1 if base == "tt" else 0
        bond = [""] * first
        bond += [letter(before[n] // (t if shares[n] else 1)) for n in range(first, N)]
        if base == "tucker":
            terms = ["".join(bond[n] + unit[n] for n in range(N))]
            terms += [main[n] + bond[n] for n in range(N)]
        else:
            after = [(n + 1) % N for n in range(N)]
            terms = [
                bond[n] + main[n] + unit[after[n]] + bond[after[n]] for n in range(N)
            ]
    return Layout(
        kind,
        modes,
        ranks,
        t if any(shares) else 1,
        tuple(terms),
        tuple(a + b for a, b in zip(main, unit, strict=True)),
        tuple(size.items()),
    )


def choose_layout(
    kind: str,
    modes: Sequence[int],
    rank: Any,
    t: int = 2,
    whole: tuple[int, ...] = (),
    cut: int | None = None,
) -> Layout:
    """Return the network of a kind with given ranks, or with a share of the numbers.

    Parameters
    ----------
    rank : int | float | sequence of int
        One rank for all (no larger than it can be), ranks one by one as in
        `Layout`, or, below 1, the largest rank with at most this share of the
        tensor's numbers.
    cut : int | None
        Where the output's modes begin, for a ring with a share of the numbers: the
        bonds between input and output are then narrower than the others.

    Raises
    ------
    EEGTensorError
        If kind, rank or t are not possible.
    """
    check_option("kind", kind, KINDS)
    modes = tuple(int(n) for n in modes)
    if 3 * len(modes) > len(LETTERS):
        fail(f"{len(modes)} modes", fix="give shapes of fewer, larger factors")
    semi = kind in PLAIN
    if semi and (isinstance(t, bool) or not isinstance(t, int) or t < 1):
        fail(f"t={t!r}", fix="give a whole number from 1 up, such as 2")
    if np.ndim(rank) == 1:
        layout = make_layout(kind, modes, _given(kind, modes, rank), t, whole)
    elif isinstance(rank, float) and 0.0 < rank < 1.0:
        layout = _by_share(kind, modes, rank, t, whole, cut)
    elif isinstance(rank, (int, np.integer)) and not isinstance(rank, bool) and rank:
        layout = _uniform(kind, modes, int(rank), t, whole)
    else:
        fail(
            f"rank={rank!r}",
            fix="give a rank from 1 up, one for each bond, or a share such as 0.1",
        )
    if semi and t > 1 and layout.t == 1:
        fail(
            f"t={t} divides no mode of {modes} together with its rank {layout.ranks}",
            why="A semi-tensor product needs both to be multiples of t",
            fix=f"choose another t or shape, ranks that are multiples of {t}, or "
            f"kind={PLAIN[kind]!r}",
        )
    return layout


def _given(kind: str, modes: tuple[int, ...], rank: Any) -> tuple[int, ...]:
    wanted = {"tt": len(modes) - 1, "cp": 1}.get(PLAIN.get(kind, kind), len(modes))
    ranks = tuple(check_count("rank", r) for r in rank)
    if len(ranks) != wanted:
        fail(
            f"rank={ranks} for kind={kind!r} and modes {modes}",
            fix=f"give {wanted} ranks from 1 up, or one number for all",
        )
    return ranks


def _uniform(
    kind: str, modes: tuple[int, ...], rank: int, t: int, whole: tuple[int, ...]
) -> Layout:
    rank = check_count("rank", rank)
    base = PLAIN.get(kind, kind)
    ranks: tuple[int, ...]
    if base == "cp":
        ranks = (rank,)
    elif base == "tr":
        ranks = (rank,) * len(modes)
    elif base == "tucker":
        ranks = tuple(min(rank, n) for n in modes)
    else:
        left = list(itertools.accumulate(modes, lambda a, b: a * b))
        ranks = tuple(min(rank, p, left[-1] // p) for p in left[:-1])
    return make_layout(kind, modes, ranks, t, whole)


def _by_share(
    kind: str,
    modes: tuple[int, ...],
    share: float,
    t: int,
    whole: tuple[int, ...],
    cut: int | None,
) -> Layout:
    step = t if kind in PLAIN else 1
    allowed = share * math.prod(modes)

    def sized(k: int) -> Layout:
        if cut is None or PLAIN.get(kind, kind) != "tr":
            return _uniform(kind, modes, k * step, t, whole)
        narrow = max(1, round(CUT * k))
        ranks = [narrow if n in (0, cut) else k for n in range(len(modes))]
        return make_layout(kind, modes, tuple(r * step for r in ranks), t, whole)

    def fits(k: int) -> bool:
        return sized(k).n_parameters <= allowed

    low, high = 1, 2
    # Ranks stop growing at what the modes allow: then no rank is too large.
    while fits(high) and high * step <= math.prod(modes):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    layout = sized(low)
    # Tucker's core grows with the product of the ranks, in large steps: what is left
    # goes to one mode after the other.
    grown: Layout | None = layout if PLAIN.get(kind, kind) == "tucker" else None
    while grown is not None:
        layout, grown = grown, None
        for n in sorted(range(len(modes)), key=lambda n: layout.ranks[n] / modes[n]):
            ranks = list(layout.ranks)
            ranks[n] += step
            wider = make_layout(kind, modes, tuple(ranks), t, whole)
            if ranks[n] <= modes[n] and wider.n_parameters <= allowed:
                grown = wider
                break
    return layout
