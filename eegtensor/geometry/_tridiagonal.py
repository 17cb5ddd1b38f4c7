"""Symmetric eigenproblems in lanes: to tridiagonal form, then QL.

Every function works on the same step of several matrices at once (see
`_lanes`). All data lie in one flat array `w`; the other arguments are places
in it, counted in scalars. Vectors of one matrix are `L` apart, rows of a matrix
`stride`. The mathematics is EISPACK's: Householder reflections from the last
row upwards, their product Q, and QL steps with Wilkinson's shift
(J. H. Wilkinson and C. Reinsch, "Linear Algebra", 1971, II/2 and II/4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from eegtensor.geometry._lanes import (
    absolute,
    any_lane,
    load,
    load_double,
    numba,
    root,
    select,
    store,
    with_sign,
    zeros,
    zeros_double,
)

# What QL answers after a call.
MORE, CONVERGED, GAVE_UP = 0, 1, 2


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a step; only the driver, which calls them all, has a wrapper."""
    options = {"nogil": True, "error_model": "numpy"}
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**options, **wrappers)(function)  # type: ignore[no-any-return]


@compiled
def tridiagonalize(
    w: NDArray,
    a: int,
    n: int,
    L: int,
    stride: int,
    d: int,
    e: int,
    W: int,
    inverses: int,
    before: int,
    p: int,
    tiny: float,
) -> None:
    """Reduce A to tridiagonal form T = Q' A Q, reading its lower triangle.

    The reflection of row i is I - u u' / h; u stays in row i of A, 1 / h goes
    to `inverses`. T's diagonal goes to `d`, its subdiagonal to `e`, entries `W`
    apart. `before` and `p` are scratch: the update A - u q' - q u' of one
    reflection is done in the same pass as the product A u of the next.
    """
    zero = zeros(w)
    for k in range(0, n * L, L):
        store(w, before + k, zero)
    u = a
    for i in range(n - 1, 0, -1):
        row = a + i * stride
        ui, qi = load(w, u + i * L), load(w, before + i * L)
        rest = zero
        for k in range(0, (i - 1) * L, L):
            x = load(w, row + k) - ui * load(w, before + k) - qi * load(w, u + k)
            store(w, row + k, x)
            rest += x * x
        k = (i - 1) * L
        alpha = load(w, row + k) - ui * load(w, before + k) - qi * load(w, u + k)
        store(w, d + i * W, load(w, row + k + L) - 2.0 * ui * qi)
        # A rest that squares to almost nothing would give a reflection that is
        # not orthogonal; beside the matrix, scaled to 1, it is nothing.
        some = rest > tiny
        g = with_sign(root(rest + alpha * alpha), zero - alpha)
        g = select(some, g, alpha)
        store(w, e + (i - 1) * W, g)
        h = select(some, g * (g - alpha), 1.0)
        inverse = select(some, 1.0 / h, zero)
        store(w, inverses + i * L, inverse)
        store(w, row + k, alpha - g)
        if i % 2:
            x = load(w, a) - 2.0 * load(w, u) * load(w, before)
            store(w, a, x)
            store(w, p, x * load(w, row))
        # Two rows at a time: each load of u, q and p serves both.
        for j in range(i % 2, i, 2):
            at = j * L
            low = a + j * stride
            high = low + stride
            u0, u1 = load(w, row + at), load(w, row + at + L)
            v0, v1 = load(w, u + at), load(w, u + at + L)
            q0, q1 = load(w, before + at), load(w, before + at + L)
            sum0, sum1 = zero, zero
            for k in range(0, at, L):
                v, q = load(w, u + k), load(w, before + k)
                x = load(w, low + k) - v0 * q - q0 * v
                y = load(w, high + k) - v1 * q - q1 * v
                store(w, low + k, x)
                store(w, high + k, y)
                z = load(w, row + k)
                sum0 += x * z
                sum1 += y * z
                store(w, p + k, load(w, p + k) + x * u0 + y * u1)
            x = load(w, low + at) - 2.0 * v0 * q0
            y = load(w, high + at) - v1 * q0 - q1 * v0
            z = load(w, high + at + L) - 2.0 * v1 * q1
            store(w, low + at, x)
            store(w, high + at, y)
            store(w, high + at + L, z)
            store(w, p + at, sum0 + x * u0 + y * u1)
            store(w, p + at + L, sum1 + y * u0 + z * u1)
        half = zero
        for k in range(0, i * L, L):
            x = load(w, p + k) * inverse
            store(w, p + k, x)
            half += x * load(w, row + k)
        half = 0.5 * half * inverse
        for k in range(0, i * L, L):
            store(w, p + k, load(w, p + k) - half * load(w, row + k))
        before, p = p, before
        u = row
    store(w, d, load(w, a) - 2.0 * load(w, u) * load(w, before))


@compiled
def form_q(
    w: NDArray, a: int, n: int, L: int, stride: int, inverses: int, image: int
) -> None:
    """Put Q, the product of the reflections, where A was.

    Two reflections u u' / h0 and v v' / h1 at a time: Z - u f' - v g' with
    f = Z' u / h0 and g = (Z' v - (v'u) f) / h1. Columns are taken in fours; up
    to three beyond the block are scratch that a later step sets. `image` has
    room for n + 3 vectors.
    """
    zero = zeros(w)
    one = zero + 1.0
    first = 2 - n % 2
    for i in range(first):
        for j in range(first):
            store(w, a + i * stride + j * L, one if i == j else zero)
    for i in range(first, n - 1, 2):
        u = a + i * stride
        end = u + i * L
        h0, h1 = load(w, inverses + i * L), load(w, inverses + (i + 1) * L)
        last = load(w, end + stride)
        overlap = zero
        for k in range(u, end, L):
            overlap += load(w, k) * load(w, k + stride)
        for j in range(0, i * L, 4 * L):
            f0, f1, f2, f3 = zero, zero, zero, zero
            g0, g1, g2, g3 = zero, zero, zero, zero
            z = a + j
            for k in range(u, end, L):
                x, y = load(w, k), load(w, k + stride)
                v0, v1 = load(w, z), load(w, z + L)
                f0 += x * v0
                g0 += y * v0
                f1 += x * v1
                g1 += y * v1
                v2, v3 = load(w, z + 2 * L), load(w, z + 3 * L)
                f2 += x * v2
                g2 += y * v2
                f3 += x * v3
                g3 += y * v3
                z += stride
            f0, f1, f2, f3 = f0 * h0, f1 * h0, f2 * h0, f3 * h0
            g0, g1 = (g0 - overlap * f0) * h1, (g1 - overlap * f1) * h1
            g2, g3 = (g2 - overlap * f2) * h1, (g3 - overlap * f3) * h1
            store(w, image + j, g0)
            store(w, image + j + L, g1)
            store(w, image + j + 2 * L, g2)
            store(w, image + j + 3 * L, g3)
            z = a + j
            for k in range(u, end, L):
                x, y = load(w, k), load(w, k + stride)
                store(w, z, load(w, z) - x * f0 - y * g0)
                store(w, z + L, load(w, z + L) - x * f1 - y * g1)
                store(w, z + 2 * L, load(w, z + 2 * L) - x * f2 - y * g2)
                store(w, z + 3 * L, load(w, z + 3 * L) - x * f3 - y * g3)
                z += stride
        # Row and column i, which the first reflection leaves alone, and the
        # unit row and column that the next pair finds.
        column = a + i * L
        for k in range(0, i * L, L):
            store(w, u + k, zero - last * load(w, image + k))
            store(w, column, zero - last * h1 * load(w, u + stride + k))
            store(w, column + L, zero)
            store(w, u + stride + k, zero)
            column += stride
        store(w, end, one - last * last * h1)
        store(w, end + L, zero)
        store(w, end + stride, zero)
        store(w, end + stride + L, one)


@compiled
def ql_steps(
    w: NDArray,
    d: int,
    e: int,
    n: int,
    W: int,
    rotations: int,
    room: int,
    bottoms: NDArray,
    budget: int,
    eps: float,
    floor: float,
    tiny: float,
) -> tuple[int, int, int]:
    """Take QL steps on T until it is diagonal, and note their rotations.

    Lanes keep step but not pace: each works on its own lowest block, rotations
    elsewhere are the identity. A rotation by (c, s) is noted as t = s / (1 + c)
    and s: three shears that turn two numbers with three operations in place of
    four, and stay closer to orthogonal.

    Parameters
    ----------
    room : int
        Steps that `rotations` has room for; 0 to note none.
    bottoms : ndarray of int, shape (room + 1,)
        Filled with the last column that each step turns.
    budget : int
        Steps left before giving up.

    Returns
    -------
    done, budget, state : int
        Steps noted, steps left; MORE if room ran out, CONVERGED or GAVE_UP.
    """
    zero = zeros_double(w)
    one = zero + 1.0
    done = 0
    bottom = 0
    while room == 0 or done < room:
        # The lowest entry of the subdiagonal that is not negligible begins the
        # block to work on; negligible ones become zero and split T.
        el, dl, dm = one, zero, zero
        last = -1
        below = load_double(w, d + (n - 1) * W)
        for i in range(n - 2, bottom - 1, -1):
            di, ei = load_double(w, d + i * W), load_double(w, e + i * W)
            big = absolute(ei) > eps * (absolute(di) + absolute(below)) + floor
            store(w, e + i * W, select(big, ei, zero))
            el = select(big, ei, el)
            dl = select(big, di, dl)
            dm = select(big, below, dm)
            below = di
            if any_lane(big):
                last = i
        if last < 0:
            return done, budget, CONVERGED
        if budget == 0:
            return done, budget, GAVE_UP
        budget -= 1
        bottom = last
        g = (dm - dl) / (2.0 * el)
        shift = dl - el / (g + with_sign(root(g * g + 1.0), g))
        above = load_double(w, d + (n - 1) * W)
        s, c, p, g = one, one, zero, above - shift
        cut = zero > one
        at = rotations + (done * n + n - 2) * 2 * W
        for i in range(n - 2, bottom - 1, -1):
            ei, di = load_double(w, e + i * W), load_double(w, d + i * W)
            f, b = s * ei, c * ei
            h = f * f + g * g
            # r has the sign of g, so that c >= 0 and 1 + c is never small.
            r = with_sign(root(h), g)
            store(w, e + (i + 1) * W, select(cut, zero, r))
            sum = r + g
            some = h > tiny
            q = select(some, 1.0 / (r * sum), zero)
            s = f * q * sum
            c = select(some, g * (sum * q), one)
            if room > 0:
                store(w, at, f * q * r)
                store(w, at + W, s)
            at -= 2 * W
            above = above - p
            r = (di - above) * s + 2.0 * c * b
            p = s * r
            store(w, d + (i + 1) * W, above + p)
            # Where T is split the step starts afresh in the block below.
            cut = ei == 0.0
            g = select(cut, di - shift, c * r - b)
            s = select(cut, one, s)
            c = select(cut, one, c)
            above = di
        store(w, d + bottom * W, above - p)
        store(w, e + bottom * W, select(cut, zero, g))
        if room > 0:
            start = rotations + done * n * 2 * W
            for k in range(start, start + 2 * bottom * W, W):
                store(w, k, zero)
            bottoms[done] = bottom
            done += 1
    return done, budget, MORE


@compiled
def turn(x: Any, y: Any, t: Any, s: Any) -> tuple[Any, Any]:
    """Return (c x - s y, s x + c y) by three shears, t = s / (1 + c)."""
    x = x - t * y
    y = y + s * x
    return x - t * y, y


@compiled
def rotate(
    w: NDArray,
    a: int,
    n: int,
    L: int,
    stride: int,
    rotations: int,
    W: int,
    bottoms: NDArray,
    done: int,
) -> None:
    """Apply noted rotations, an even number of steps, to the columns of Q.

    Two steps in one pass, the second one column behind the first, and four rows
    at a time: an entry is read and written once for two rotations.
    """
    for k in range(0, n, 4):
        z0 = a + k * stride
        z1, z2, z3 = z0 + stride, z0 + 2 * stride, z0 + 3 * stride
        for j in range(0, done, 2):
            bottom = min(bottoms[j], bottoms[j + 1])
            i = (n - 2) * L
            one = rotations + (j * n + n - 2) * 2 * W
            two = one + n * 2 * W
            t, s = load(w, one), load(w, one + W)
            x0, y0 = turn(load(w, z0 + i), load(w, z0 + i + L), t, s)
            x1, y1 = turn(load(w, z1 + i), load(w, z1 + i + L), t, s)
            x2, y2 = turn(load(w, z2 + i), load(w, z2 + i + L), t, s)
            x3, y3 = turn(load(w, z3 + i), load(w, z3 + i + L), t, s)
            for _ in range(bottom, n - 2):
                i -= L
                one -= 2 * W
                t, s = load(w, one), load(w, one + W)
                u, v = load(w, two), load(w, two + W)
                two -= 2 * W
                x0, out = turn(load(w, z0 + i), x0, t, s)
                y0, out = turn(out, y0, u, v)
                store(w, z0 + i + 2 * L, out)
                x1, out = turn(load(w, z1 + i), x1, t, s)
                y1, out = turn(out, y1, u, v)
                store(w, z1 + i + 2 * L, out)
                x2, out = turn(load(w, z2 + i), x2, t, s)
                y2, out = turn(out, y2, u, v)
                store(w, z2 + i + 2 * L, out)
                x3, out = turn(load(w, z3 + i), x3, t, s)
                y3, out = turn(out, y3, u, v)
                store(w, z3 + i + 2 * L, out)
            u, v = load(w, two), load(w, two + W)
            x0, y0 = turn(x0, y0, u, v)
            x1, y1 = turn(x1, y1, u, v)
            x2, y2 = turn(x2, y2, u, v)
            x3, y3 = turn(x3, y3, u, v)
            store(w, z0 + i, x0)
            store(w, z0 + i + L, y0)
            store(w, z1 + i, x1)
            store(w, z1 + i + L, y1)
            store(w, z2 + i, x2)
            store(w, z2 + i + L, y2)
            store(w, z3 + i, x3)
            store(w, z3 + i + L, y3)
