"""Matrices into lanes and out again, and what is done to them besides.

Every function works on the same step of several matrices at once (see `_lanes`
and `_tridiagonal`, whose words for places in the array `w` hold here, too).
"""

from __future__ import annotations

import math

from numpy.typing import NDArray

from eegtensor.geometry._lanes import (
    absolute,
    larger,
    load,
    peek,
    poke,
    select,
    store,
    zeros,
)
from eegtensor.geometry._tridiagonal import compiled


@compiled
def interleave(
    X: NDArray, first: int, count: int, n: int, w: NDArray, a: int, L: int, stride: int
) -> None:
    """Put the lower triangles of `count` matrices into as many of L lanes."""
    if count < L:
        for k in range(a, a + n * stride):
            poke(w, k, 0.0)
    for i in range(n):
        for k in range(count):
            at = a + i * stride + k
            start = (first + k) * n * n + i * n
            for j in range(start, start + i + 1):
                poke(w, at, peek(X, j))
                at += L


@compiled
def same_places(places: NDArray, first: int, count: int, L: int) -> bool:
    """Whether these lanes need what the L before them had: trials come in order."""
    if first == 0:
        return False
    for k in range(first, first + count):
        if peek(places, k) != peek(places, k - L):
            return False
    return True


@compiled
def interleave_left(
    V: NDArray,
    places: NDArray,
    first: int,
    count: int,
    n: int,
    w: NDArray,
    a: int,
    L: int,
    stride: int,
) -> None:
    """Put the matrix that `places` names for each lane there, all its entries."""
    for k in range(count):
        entry = peek(places, first + k) * n * n
        for i in range(n):
            for at in range(a + i * stride + k, a + i * stride + k + n * L, L):
                poke(w, at, peek(V, entry))
                entry += 1


@compiled
def multiply_tile(
    w: NDArray,
    n: int,
    out: int,
    out_down: int,
    out_across: int,
    left: int,
    left_down: int,
    left_on: int,
    right: int,
    right_across: int,
    right_on: int,
) -> None:
    """Write two rows and four columns of a product: each load serves several terms.

    A factor's places are those of its first entry, of the next row or column
    and of the next term.
    """
    s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = zeros(w)
    for _ in range(n):
        x, y = load(w, left), load(w, left + left_down)
        z0, z1 = load(w, right), load(w, right + right_across)
        s0 += x * z0
        s1 += x * z1
        t0 += y * z0
        t1 += y * z1
        z2 = load(w, right + 2 * right_across)
        z3 = load(w, right + 3 * right_across)
        s2 += x * z2
        s3 += x * z3
        t2 += y * z2
        t3 += y * z3
        left += left_on
        right += right_on
    store(w, out, s0)
    store(w, out + out_across, s1)
    store(w, out + 2 * out_across, s2)
    store(w, out + 3 * out_across, s3)
    out += out_down
    store(w, out, t0)
    store(w, out + out_across, t1)
    store(w, out + 2 * out_across, t2)
    store(w, out + 3 * out_across, t3)


@compiled
def congruence(w: NDArray, a: int, n: int, L: int, stride: int, v: int, p: int) -> None:
    """Replace the lower triangle of A by that of V A V', with V at `v`.

    `p` has room for one more matrix, (V A)'. As in `rebuild`, tiles reach up to
    three rows and columns beyond the matrices, where there is scratch.
    """
    for i in range(n):
        column = a + i * L
        for k in range(a + i * stride, a + i * (stride + L), L):
            store(w, column, load(w, k))
            column += stride
    for j in range(0, n, 4):
        for i in range(0, n, 2):
            multiply_tile(w, n, p + j * stride + i * L, L, stride,
                          v + i * stride, stride, L, a + j * L, L, stride)  # fmt: skip
    for j in range(0, n, 4):
        for i in range(j, n, 2):
            multiply_tile(w, n, a + i * stride + j * L, stride, L,
                          p + i * L, L, stride, v + j * stride, stride, L)  # fmt: skip


@compiled
def subtract_identity(
    w: NDArray, a: int, n: int, L: int, stride: int, shifts: int
) -> None:
    """Subtract I from matrices near it, and note 1 for these and 0 for others.

    I + E loses the digits of E in its eigenvalues; E has them all.
    """
    zero = zeros(w)
    far = zero
    for i in range(n):
        row = a + i * stride
        for k in range(row, row + i * L, L):
            far = larger(far, absolute(load(w, k)))
        far = larger(far, absolute(load(w, row + i * L) - 1.0))
    shift = select(zero + 0.5 > n * far, zero + 1.0, zero)
    store(w, shifts, shift)
    for k in range(a, a + n * (stride + L), stride + L):
        store(w, k, load(w, k) - shift)


@compiled
def rescale(
    w: NDArray,
    a: int,
    n: int,
    L: int,
    stride: int,
    scales: int,
    factors: int,
    infinity: float,
    lowest: int,
) -> None:
    """Scale each matrix to about 1, so that thresholds can be numbers.

    The scale is a power of two, so that scaling rounds nothing; it is NaN where
    an entry is not finite, and the matrix is then set to zero.
    """
    zero = zeros(w)
    top, wrong = zero, zero
    for i in range(n):
        row = a + i * stride
        for k in range(row, row + (i + 1) * L, L):
            size = absolute(load(w, k))
            top = larger(top, size)
            wrong = select(infinity > size, wrong, 1.0)
    store(w, scales, top)
    store(w, factors, wrong)
    for k in range(L):
        power = max(math.frexp(peek(w, scales + k))[1] - 1, lowest)
        finite = peek(w, factors + k) == 0.0
        poke(w, scales + k, math.ldexp(1.0, power) if finite else math.nan)
        poke(w, factors + k, math.ldexp(1.0, -power))
    factor = load(w, factors)
    for i in range(n):
        row = a + i * stride
        for k in range(row, row + (i + 1) * L, L):
            store(w, k, select(wrong == 0.0, load(w, k) * factor, zero))


@compiled
def write_eigen(
    w: NDArray,
    a: int,
    n: int,
    L: int,
    stride: int,
    d: int,
    W: int,
    scales: int,
    ranks: int,
    places: NDArray,
    first: int,
    count: int,
    values: NDArray,
    vectors: NDArray,
    wanted: bool,
) -> None:
    """Write values, ascending, and their vectors; `ranks` has room for n vectors."""
    zero = zeros(w)
    for i in range(n):
        di, rank = load(w, d + i * W), zero
        for j in range(i):
            after = load(w, d + j * W) > di
            rank += select(after, zero, 1.0)
            moved = load(w, ranks + j * L) + select(after, 1.0, zero)
            store(w, ranks + j * L, moved)
        store(w, ranks + i * L, rank)
    for k in range(count):
        scale = peek(w, scales + k)
        for i in range(n):
            rank = int(peek(w, ranks + i * L + k))
            poke(places, k * n + i, rank)
            poke(values, (first + k) * n + rank, peek(w, d + i * W + k) * scale)
    if wanted:
        for i in range(n):
            for k in range(count):
                at = a + i * stride + k
                out = ((first + k) * n + i) * n
                for j in range(k * n, k * n + n):
                    poke(vectors, out + peek(places, j), peek(w, at))
                    at += L


@compiled
def take_logarithms(
    w: NDArray,
    n: int,
    L: int,
    d: int,
    W: int,
    scales: int,
    shifts: int,
    rounding: float,
    first: int,
    count: int,
    largest: NDArray,
) -> None:
    """Replace eigenvalues by their logarithms, and write the largest of each matrix.

    Those that are rounding of the largest, or negative, are raised to it first.
    """
    scale, shift = load(w, scales), load(w, shifts)
    top = load(w, d) * scale + shift
    for i in range(d, d + n * W, W):
        value = load(w, i) * scale + shift
        top = select(value > top, value, top)
    store(w, scales, top)
    for i in range(d, d + n * W, W):
        value = load(w, i) * scale
        value = select(shift > 0.0, value, larger(value, top * rounding))
        store(w, i, value)
    for k in range(count):
        near = peek(w, shifts + k) > 0.0
        poke(largest, first + k, peek(w, scales + k))
        for i in range(d + k, d + k + n * W, W):
            x = peek(w, i)
            poke(w, i, math.log1p(x) if near else math.log(x))


@compiled
def rebuild(
    w: NDArray, a: int, n: int, L: int, stride: int, d: int, W: int, p: int, out: int
) -> None:
    """Put the lower triangle of Q diag(d) Q' at `out`, with Q at `a`.

    `p` has room for one more matrix, Q diag(d).
    """
    for j in range(n):
        factor = load(w, d + j * W)
        for k in range(j * L, j * L + n * stride, stride):
            store(w, p + k, load(w, a + k) * factor)
    for j in range(0, n, 4):
        for i in range(j, n, 2):
            multiply_tile(w, n, out + i * stride + j * L, stride, L, p + i * stride,
                          stride, L, a + j * stride, stride, L)  # fmt: skip


@compiled
def write_matrices(
    w: NDArray,
    a: int,
    n: int,
    L: int,
    stride: int,
    first: int,
    count: int,
    out: NDArray,
) -> None:
    """Write symmetric matrices of which the lower triangles are in lanes."""
    for k in range(count):
        matrix = (first + k) * n * n
        for i in range(n):
            at = a + i * stride + k
            column = matrix + i
            for j in range(matrix + i * n, matrix + i * n + i + 1):
                x = peek(w, at)
                poke(out, j, x)
                poke(out, column, x)
                column += n
                at += L


@compiled
def definite(
    w: NDArray, a: int, n: int, L: int, stride: int, share: float, answer: int
) -> None:
    """Note 1 where A - share tr(A) I is positive definite, else 0; A is lost.

    By elimination: its pivots are the squares of Cholesky's. NaN is not definite.
    """
    zero = zeros(w)
    trace, good = zero, zero + 1.0
    for k in range(a, a + n * (stride + L), stride + L):
        trace += load(w, k)
    low = share * trace
    for j in range(n):
        column = a + j * L
        pivot = load(w, column + j * stride) - low
        good = select(pivot > 0.0, good, zero)
        inverse = 1.0 / pivot
        for i in range(j + 1, n):
            at = a + i * stride
            factor = load(w, at + j * L) * inverse
            from_row = column + (j + 1) * stride
            for k in range(at + (j + 1) * L, at + (i + 1) * L, L):
                store(w, k, load(w, k) - factor * load(w, from_row))
                from_row += stride
    store(w, answer, good)
