"""Eigendecomposition of many small symmetric matrices, compiled by numba.

Matrices are interleaved, entry by entry, and decomposed 8 (float64) or 16
(float32) at a time on one core (see `_lanes` and `_tridiagonal`). Each matrix's
result is the same to the last bit whatever stands beside it in the batch.

Importing this module needs numba (the extra ``fast``); the first call for a
dtype compiles for some seconds, and numba keeps the result on disk.
"""

from __future__ import annotations

import functools
import math
import threading
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor._optional import need
from eegtensor.geometry._lanes import (
    BYTES,
    DOUBLE,
    absolute,
    larger,
    load,
    numba,
    peek,
    poke,
    select,
    store,
    zeros,
)
from eegtensor.geometry._tridiagonal import (
    CONVERGED,
    MORE,
    compiled,
    form_q,
    ql_steps,
    rotate,
    tridiagonalize,
)

llvm = need("llvmlite.binding", "the compiled eigendecomposition", extra="fast")

_SOURCES = ("_lanes", "_tridiagonal", "_eigh_kernel")
# Two steps an eigenvalue are usual; LAPACK gives up after 30.
STEPS_PER_VALUE = 30
# Rotations are noted and applied in portions that stay in the nearer caches.
_PORTION_BYTES = 2**17
# Scratch up to this size is kept between calls, one piece a thread.
_KEPT_BYTES = 2**22


@compiled
def pack(
    X: NDArray,
    first: int,
    total: int,
    n: int,
    w: NDArray,
    a: int,
    L: int,
    stride: int,
    scales: int,
    factors: int,
    infinity: float,
    lowest: int,
) -> None:
    """Interleave the lower triangles of L matrices, each scaled to about 1.

    The scale is a power of two, so that scaling rounds nothing; it is NaN where
    an entry is not finite, and the matrix is then set to zero.
    """
    count = min(L, total - first)
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
def unpack(
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
    total: int,
    values: NDArray,
    vectors: NDArray,
    wanted: bool,
) -> None:
    """Write values, ascending, and their vectors; `ranks` has room for n vectors."""
    count = min(L, total - first)
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


def _driver(
    X: NDArray,
    values: NDArray,
    vectors: NDArray,
    wanted: bool,
    n: int,
    total: int,
    L: int,
    w: NDArray,
    places: NDArray,
    bottoms: NDArray,
    room: int,
    steps: int,
    eps: float,
    floor: float,
    tiny: float,
    infinity: float,
    lowest: int,
) -> bool:
    W = DOUBLE * L
    stride = (n + 2 | 1) * L
    block = (n + 3) // 4 * 4 * stride
    d = DOUBLE * block
    e = d + n * W
    inverses = e + n * W
    q = inverses + n * L
    p = q + (n + 3) * L
    scales = p + n * L
    factors = scales + W
    rotations = factors + L
    good = True
    for first in range(0, total, W):
        used = min(DOUBLE, (total - first + L - 1) // L)
        if used < DOUBLE:
            for k in range(d, inverses):
                poke(w, k, 0.0)
        for s in range(used):
            a, at = s * block, s * L
            pack(X, first + at, total, n, w, a, L, stride, scales + at, factors,
                 infinity, lowest)  # fmt: skip
            tridiagonalize(w, a, n, L, stride, d + at, e + at, W, inverses, q, p,
                           tiny)  # fmt: skip
            if wanted:
                form_q(w, a, n, L, stride, inverses, q)
        budget, state = steps, MORE
        while state == MORE:
            done, budget, state = ql_steps(
                w, d, e, n, W, rotations, room, bottoms, budget, eps, floor, tiny
            )
            if done % 2:
                start = rotations + done * n * 2 * W
                for k in range(start, start + n * 2 * W):
                    poke(w, k, 0.0)
                bottoms[done] = n - 2
                done += 1
            for s in range(used):
                rotate(w, s * block, n, L, stride, rotations + s * L, W, bottoms,
                       done)  # fmt: skip
        good = good and state == CONVERGED
        for s in range(used):
            unpack(w, s * block, n, L, stride, d + s * L, W, scales + s * L, q,
                   places, first + s * L, total, values, vectors,
                   wanted)  # fmt: skip
    return good


@functools.cache
def _compiled_driver(dtype: np.dtype[Any]) -> Any:
    """Return the driver for a dtype, from numba's cache on disk where it is."""
    # numba notices changes in the file of the cached function alone, and two
    # processes that write one cache together can file code under the wrong
    # signature, which crashes whoever loads it. So each source, machine and
    # dtype has a file of its own.
    folder = Path(__file__).parent
    sources = [folder / f"{name}.py" for name in _SOURCES]
    identity = b"".join(path.read_bytes() for path in sources if path.exists())
    identity += repr((numba.__version__, *_machine())).encode()
    name = f"eigh_{dtype.name}_{zlib.crc32(identity):08x}"
    driver = types.FunctionType(_driver.__code__, globals(), name)
    driver.__qualname__ = name
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(driver)
    except RuntimeError:  # no folder to write to: compiled anew in each process
        return numba.njit(**options)(driver)


def _machine() -> tuple[str, ...]:
    config = numba.config
    here = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    return (*here, str(config.CPU_NAME), str(config.CPU_FEATURES))


class _Work(threading.local):
    """The scratch of a thread's last call: most calls are like the one before."""

    key: tuple[Any, ...] = ()
    arrays: tuple[Any, ...] = ()


_work = _Work()


def _workspace(n: int, dtype: np.dtype[Any], vectors: bool) -> tuple[Any, ...]:
    """Return the driver's scratch w, places and bottoms, and its room."""
    key = (n, dtype, vectors)
    if _work.key == key:
        return _work.arrays
    L = BYTES // dtype.itemsize
    W = DOUBLE * L
    room = 0
    if vectors:
        step_bytes = 2 * n * W * dtype.itemsize
        room = max(4, min(_PORTION_BYTES // step_bytes // 2 * 2, 4 * n))
    stride = (n + 2 | 1) * L
    size = DOUBLE * ((n + 3) // 4 * 4) * stride + 2 * n * W + (3 * n + 6) * L + W
    size += (room + 1) * 2 * n * W
    # Zeros: what a first matrix leaves untouched is multiplied by zero, and
    # must not be NaN.
    raw = np.zeros(size + L, dtype)
    start = -raw.ctypes.data % BYTES // dtype.itemsize
    places, bottoms = np.zeros(n * L, np.int64), np.zeros(room + 1, np.int64)
    arrays = (raw[start : start + size], places, bottoms, room)
    _work.key, _work.arrays = (key, arrays) if raw.nbytes <= _KEPT_BYTES else ((), ())
    return arrays


@functools.cache
def _constants(dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return eps, floor, tiny, infinity and lowest for the driver."""
    info = np.finfo(dtype)
    # Below the floor an entry's square would lose digits; beside entries of 1
    # it is nothing.
    floor = math.sqrt(info.tiny) / info.eps
    numbers = (info.eps / 2, floor, info.tiny / info.eps, np.inf)
    return (*(dtype.type(x) for x in numbers), int(info.minexp) + 2)


def decompose(X: NDArray, values: NDArray, vectors: NDArray | None) -> bool:
    """Decompose symmetric matrices on the calling thread, without the GIL.

    Parameters
    ----------
    X : ndarray, shape (n_matrices, n, n), float32 or float64, C-contiguous
        Their lower triangle is read.
    values : ndarray, shape (n_matrices, n)
        Filled with eigenvalues, ascending; NaN where X is not finite.
    vectors : ndarray, shape (n_matrices, n, n) | None
        Filled with eigenvectors as columns; None computes values alone.

    Returns
    -------
    good : bool
        False if QL gave up somewhere, which nothing known does.

    Raises
    ------
    EEGTensorError
        If shapes, dtypes or memory layouts differ from these.
    """
    total, n = X.shape[:2]
    wanted = vectors is not None
    target = values if vectors is None else vectors
    # The driver writes where it is told to.
    for array, shape in (
        (X, (total, n, n)),
        (values, (total, n)),
        (target, (total, n, n) if wanted else (total, n)),
    ):
        fits = array.shape == shape and array.dtype == X.dtype
        if not (fits and array.flags.c_contiguous):
            fail(
                f"An array of {array.dtype}, shape {array.shape}, does not fit {shape}"
            )
    w, places, bottoms, room = _workspace(n, X.dtype, wanted)
    driver = _compiled_driver(X.dtype)
    flat = (array.reshape(-1) for array in (X, values, target))
    sizes = (wanted, n, total, BYTES // X.itemsize)
    steps = STEPS_PER_VALUE * n
    constants = _constants(X.dtype)
    return bool(driver(*flat, *sizes, w, places, bottoms, room, steps, *constants))
