"""Eigendecomposition of many small symmetric matrices, compiled by numba.

Matrices are interleaved, entry by entry, and decomposed 8 (float64) or 16
(float32) at a time on one core (see `_lanes` and `_tridiagonal`). Each matrix's
result is the same to the last bit whatever stands beside it in the batch.

Importing this module needs numba (the extra ``fast``); the first call for a
dtype compiles for some seconds, and numba keeps the result on disk.
"""

from __future__ import annotations

import functools
import threading
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor._optional import need
from eegtensor.geometry._interleave import (
    congruence,
    definite,
    interleave,
    interleave_left,
    rebuild,
    rescale,
    same_places,
    subtract_identity,
    take_logarithms,
    write_eigen,
    write_matrices,
)
from eegtensor.geometry._lanes import BYTES, DOUBLE, numba, peek, poke
from eegtensor.geometry._tridiagonal import (
    CONVERGED,
    MORE,
    form_q,
    ql_steps,
    rotate,
    tridiagonalize,
)

llvm = need("llvmlite.binding", "the compiled eigendecomposition", extra="fast")

_SOURCES = ("_lanes", "_tridiagonal", "_interleave", "_eigh_kernel")
# What the driver is to find.
VALUES, VECTORS, LOGARITHMS = 0, 1, 2
_NOTHING = np.empty(0, np.int64)
# Two steps an eigenvalue are usual; LAPACK gives up after 30.
STEPS_PER_VALUE = 30
# Rotations are noted and applied in portions that stay in the nearer caches.
_PORTION_BYTES = 2**17
# So many pieces of scratch, up to this size, are kept between a thread's calls.
_KEPT, _KEPT_BYTES = 4, 2**22


def _decompose(
    X: NDArray,
    values: NDArray,
    matrices: NDArray,
    task: int,
    left: NDArray,
    lefts: NDArray,
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
    rounding: float,
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
    shifts = scales + W
    factors = shifts + W
    v = factors + L
    rotations = v + (block if len(lefts) > 0 else 0)
    good = True
    for first in range(0, total, W):
        used = min(DOUBLE, (total - first + L - 1) // L)
        if used < DOUBLE:
            for k in range(d, inverses):
                poke(w, k, 0.0)
        for s in range(used):
            a, at = s * block, s * L
            count = min(L, total - first - at)
            interleave(X, first + at, count, n, w, a, L, stride)
            if len(lefts) > 0:
                if not same_places(lefts, first + at, count, L):
                    interleave_left(left, lefts, first + at, count, n, w, v, L, stride)
                # Rotations come later and leave their room to the product.
                congruence(w, a, n, L, stride, v, rotations)
            if task == LOGARITHMS:
                subtract_identity(w, a, n, L, stride, shifts + at)
            rescale(w, a, n, L, stride, scales + at, factors, infinity, lowest)
            tridiagonalize(w, a, n, L, stride, d + at, e + at, W, inverses, q, p,
                           tiny)  # fmt: skip
            if task != VALUES:
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
            a, at = s * block, s * L
            count = min(L, total - first - at)
            if task == LOGARITHMS:
                take_logarithms(w, n, L, d + at, W, scales + at, shifts + at, rounding,
                                first + at, count, values)  # fmt: skip
                # Rotations are over.
                out = rotations + block
                rebuild(w, a, n, L, stride, d + at, W, rotations, out)
                write_matrices(w, out, n, L, stride, first + at, count, matrices)
            else:
                write_eigen(w, a, n, L, stride, d + at, W, scales + at, q, places,
                            first + at, count, values, matrices,
                            task != VALUES)  # fmt: skip
    return good


def _find_definite(
    X: NDArray,
    answers: NDArray,
    n: int,
    total: int,
    L: int,
    w: NDArray,
    share: float,
) -> None:
    stride = (n + 2 | 1) * L
    answer = n * stride
    for first in range(0, total, L):
        count = min(L, total - first)
        interleave(X, first, count, n, w, 0, L, stride)
        definite(w, 0, n, L, stride, share, answer)
        for k in range(count):
            poke(answers, first + k, peek(w, answer + k))


@functools.cache
def _compiled(function: Callable[..., Any], dtype: np.dtype[Any]) -> Any:
    """Return a driver for a dtype, from numba's cache on disk where it is."""
    # numba notices changes in the file of the cached function alone, and two
    # processes that write one cache together can file code under the wrong
    # signature, which crashes whoever loads it. So each source, machine and
    # dtype has a file of its own.
    folder = Path(__file__).parent
    sources = [folder / f"{name}.py" for name in _SOURCES]
    identity = b"".join(path.read_bytes() for path in sources if path.exists())
    identity += repr((numba.__version__, *_machine())).encode()
    name = f"{function.__name__[1:]}_{dtype.name}_{zlib.crc32(identity):08x}"
    driver = types.FunctionType(function.__code__, globals(), name)
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
    """The scratch of a thread's last calls: most calls are like those before."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Any, ...], tuple[Any, ...]] = {}


_work = _Work()


def _workspace(n: int, dtype: np.dtype[Any], vectors: bool) -> tuple[Any, ...]:
    """Return the driver's scratch w, places and bottoms, and its room."""
    key = (n, dtype, vectors)
    if key in _work.kept:
        return _work.kept[key]
    L = BYTES // dtype.itemsize
    W = DOUBLE * L
    room = 0
    if vectors:
        step_bytes = 2 * n * W * dtype.itemsize
        room = max(4, min(_PORTION_BYTES // step_bytes // 2 * 2, 4 * n))
    stride = (n + 2 | 1) * L
    block = (n + 3) // 4 * 4 * stride
    size = DOUBLE * block + 2 * n * W + (3 * n + 6) * L + 2 * W
    size += block + max((room + 1) * 2 * n * W, 2 * block)
    # Zeros: what a first matrix leaves untouched is multiplied by zero, and
    # must not be NaN.
    raw = np.zeros(size + L, dtype)
    start = -raw.ctypes.data % BYTES // dtype.itemsize
    places, bottoms = np.zeros(n * L, np.int64), np.zeros(room + 1, np.int64)
    arrays = (raw[start : start + size], places, bottoms, room)
    if raw.nbytes <= _KEPT_BYTES:
        if len(_work.kept) == _KEPT:
            _work.kept.clear()
        _work.kept[key] = arrays
    return arrays


@functools.cache
def _constants(dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return eps, floor, tiny, infinity and lowest for the driver."""
    info = np.finfo(dtype)
    rounding = info.eps / 2
    # Beside entries of 1 what is below rounding is nothing. Without this floor QL
    # turns the zeros of a rank-deficient matrix among themselves: twice the steps,
    # and a loss of orthogonality that grows with them.
    numbers = (rounding, rounding, info.tiny / info.eps, np.inf)
    return (*(dtype.type(x) for x in numbers), int(info.minexp) + 2)


def _check(*arrays: tuple[NDArray, tuple[int, ...], np.dtype[Any]]) -> None:
    # The drivers write where they are told to.
    for array, shape, dtype in arrays:
        fits = array.shape == shape and array.dtype == dtype
        if not (fits and array.flags.c_contiguous):
            fail(
                f"An array of {array.dtype}, shape {array.shape}, does not fit {shape}"
            )


def _run(
    X: NDArray,
    values: NDArray,
    matrices: NDArray,
    task: int,
    left: NDArray | None = None,
    lefts: NDArray = _NOTHING,
    rounding: float = 0.0,
) -> bool:
    total, n = X.shape[:2]
    w, places, bottoms, room = _workspace(n, X.dtype, task != VALUES)
    arrays = (X, values, matrices, X if left is None else left)
    X, values, matrices, left = (array.reshape(-1) for array in arrays)
    driver = _compiled(_decompose, X.dtype)
    sizes = (n, total, BYTES // X.itemsize)
    constants = (STEPS_PER_VALUE * n, *_constants(X.dtype), X.dtype.type(rounding))
    return bool(
        driver(X, values, matrices, task, left, lefts, *sizes, w, places, bottoms,
               room, *constants)
    )  # fmt: skip


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
    _check((X, (total, n, n), X.dtype), (values, (total, n), X.dtype))
    if vectors is None:
        return _run(X, values, values, VALUES)
    _check((vectors, (total, n, n), X.dtype))
    return _run(X, values, vectors, VECTORS)


def logarithms(
    X: NDArray,
    largest: NDArray,
    out: NDArray,
    rounding: float,
    left: NDArray | None = None,
    lefts: NDArray = _NOTHING,
) -> bool:
    """Take logarithms of V X V' on the calling thread, without the GIL.

    Parameters
    ----------
    X : ndarray, shape (n_matrices, n, n), float32 or float64, C-contiguous
        SPD; their lower triangle is read.
    largest : ndarray, shape (n_matrices,)
        Filled with the largest eigenvalues; NaN where V X V' is not finite.
    out : ndarray, shape (n_matrices, n, n)
        Filled with logarithms; anything where the largest is not positive.
    rounding : float
        Eigenvalues are raised to this multiple of the largest.
    left : ndarray, shape (n_left, n, n) | None
        Matrices V; without them V is I.
    lefts : ndarray of int64, shape (n_matrices,)
        Which of them is each matrix's.

    Returns
    -------
    good : bool
        As for `decompose`, which raises the same errors.
    """
    total, n = X.shape[:2]
    shape = (total, n, n)
    _check((X, shape, X.dtype), (largest, (total,), X.dtype), (out, shape, X.dtype))
    if left is not None:
        _check((left, (len(left), n, n), X.dtype), (lefts, (total,), _NOTHING.dtype))
        if total and not (lefts.min() >= 0 and lefts.max() < len(left)):
            fail(f"Places {lefts.min()} to {lefts.max()} of {len(left)} matrices")
    return _run(X, largest, out, LOGARITHMS, left, lefts, rounding)


def are_definite(X: NDArray, answers: NDArray, share: float) -> None:
    """Tell which X - share tr(X) I are positive definite.

    Parameters
    ----------
    X : ndarray, shape (n_matrices, n, n), float32 or float64, C-contiguous
        Their lower triangle is read.
    answers : ndarray of bool, shape (n_matrices,)
        Filled; False where X is not finite.
    share : float
    """
    total, n = X.shape[:2]
    _check((X, (total, n, n), X.dtype), (answers, (total,), np.dtype(bool)))
    w = _workspace(n, X.dtype, True)[0]
    driver = _compiled(_find_definite, X.dtype)
    sizes = (n, total, BYTES // X.itemsize)
    driver(X.reshape(-1), answers.view(np.uint8), *sizes, w, X.dtype.type(share))
