"""Eigendecomposition of batches of small symmetric matrices.

LAPACK, and `torch.linalg.eigh` with it, takes one matrix after the other on one
core. Here a batch on the CPU is shared among torch's threads, and where numba
is installed (the extra ``fast``) a compiled kernel decomposes several matrices
with each instruction. On a GPU and in traced code it is `torch.linalg.eigh`.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.geometry._eager import refuse_tangents

logger = logging.getLogger(__name__)

# Measured by tests/benchmarks/bench_eigh.py: LAPACK is as fast or faster for
# larger matrices, and for fewer of them than `_kernel_pays` says.
KERNEL_MAX_SIZE = 256
# Batches with fewer than this many n^3 are done sooner than handed to a thread.
_MIN_SHARED_WORK = 200_000
# Before version 2.12 torch gives cuSOLVER matrices larger than this one by one
# (pytorch #175585: 128 of 64 x 64 in 229 ms), so that the CPU is faster.
_TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
_CUDA_BATCHED_SIZE = 32 if _TORCH < (2, 12) else None

_enabled = os.environ.get("EEGTENSOR_KERNEL", "1") != "0"


def eigh(X: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, ascending, and eigenvectors of symmetric matrices.

    Not differentiable by itself: callers supply the derivative, by backward
    passes. Forward-mode derivatives are refused: they would silently be zero.

    Parameters
    ----------
    X : Tensor, shape (..., n, n), float32 or float64
        The lower triangle is read.

    Returns
    -------
    values : Tensor, shape (..., n)
        NaN for matrices that are not finite.
    vectors : Tensor, shape (..., n, n)
        Orthonormal columns, of arbitrary sign.
    """
    refuse_tangents(X)
    return _solve(X, vectors=True)


def eigvalsh(X: Tensor) -> Tensor:
    """Return the eigenvalues alone, ascending, shape (..., n); see `eigh`."""
    refuse_tangents(X)
    return _solve(X, vectors=False)[0]


def logarithm(
    X: Tensor, rounding: float, V: Tensor | None = None, slot: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Return log(V X V') where the compiled kernel does it in one go, else None.

    Parameters
    ----------
    X : Tensor, shape (..., n, n)
        SPD matrices; the lower triangle is read.
    rounding : float
        Eigenvalues are raised to this multiple of the largest.
    V : Tensor, shape (K, n, n) | None
        By default I.
    slot : Tensor of int64, shape (...)
        Which V is each matrix's.

    Returns
    -------
    largest : Tensor, shape (..., 1)
        The largest eigenvalues; NaN for matrices that are not finite.
    logarithms : Tensor, shape (..., n, n), symmetric to the last bit
        Anything where the largest eigenvalue is not positive.
    """
    refuse_tangents(X)
    work = _for_kernel(X)
    if work is None:
        return None
    kernel, matrices, parts = work
    largest = np.empty(len(matrices), matrices.dtype)
    out = np.empty_like(matrices)
    left = None if V is None else np.ascontiguousarray(V.detach().numpy())
    lefts = np.zeros(0, np.int64) if slot is None else slot.contiguous().numpy()
    good: list[bool] = []

    def solve(part: slice) -> None:
        arrays = (matrices[part], largest[part], out[part])
        good.append(kernel.logarithms(*arrays, rounding, left, lefts[part]))

    _share(solve, parts, here=1)
    if not all(good):
        return None
    top = torch.from_numpy(largest).view(*X.shape[:-2], 1)
    return top, torch.from_numpy(out).view(X.shape)


def definite(X: Tensor, share: float) -> Tensor | None:
    """Return which X - share tr(X) I are positive definite, bool (...), or None.

    None where the compiled kernel does not do it.
    """
    work = _for_kernel(X)
    if work is None:
        return None
    kernel, matrices, parts = work
    answers = np.empty(len(matrices), np.bool_)
    _share(lambda part: kernel.are_definite(matrices[part], answers[part], share),
           parts, here=1)  # fmt: skip
    return torch.from_numpy(answers).view(X.shape[:-2])


@contextmanager
def use_kernel(enabled: bool) -> Iterator[None]:
    """Switch the compiled kernel on or off inside a ``with``, for comparisons.

    The environment variable ``EEGTENSOR_KERNEL=0`` switches it off for good.
    """
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


def kernel_available(dtype: np.dtype | type = np.float64) -> bool:
    """Return whether the compiled kernel is installed, works and is switched on."""
    return _enabled and _kernel(np.dtype(dtype)) is not None


@functools.cache
def _kernel(dtype: np.dtype) -> ModuleType | None:
    try:
        from eegtensor.geometry import _eigh_kernel

        if _eigh_kernel.numba.config.DISABLE_JIT:
            return None
        one = np.ones((1, 2, 2), dtype)
        _eigh_kernel.decompose(one, np.empty((1, 2), dtype), one.copy())
    except ImportError as error:
        logger.debug("No compiled eigendecomposition: %s", error)
        return None
    except Exception as error:  # numba's errors are of many kinds
        logger.warning(
            "The compiled eigendecomposition does not work here and LAPACK, several "
            "times slower, takes its place: %s. EEGTENSOR_KERNEL=0 silences this.",
            error,
        )
        return None
    return _eigh_kernel


def _one_by_one(X: Tensor) -> bool:
    """Whether this torch would loop over the matrices of a batch on a GPU."""
    return (
        _CUDA_BATCHED_SIZE is not None
        and X.device.type == "cuda"
        and X.ndim > 2
        and X.shape[-1] > _CUDA_BATCHED_SIZE
        and not torch.compiler.is_compiling()
    )


def _memory(X: Tensor) -> NDArray | None:
    """Return the matrices where this process can read them, (n_matrices, n, n)."""
    if (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or X.device.type != "cpu"
        or X.dtype not in (torch.float32, torch.float64)
        or X.ndim < 2
        or X.shape[-1] != X.shape[-2]
    ):
        return None
    try:
        return X.detach().numpy()
    except (RuntimeError, TypeError, NotImplementedError):
        return None  # stands for values that are elsewhere: vmap, fake tensors


def _solve(X: Tensor, *, vectors: bool) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and, if wanted, eigenvectors; else anything."""
    array = _memory(X)
    if array is None:
        if _one_by_one(X):
            values, basis = _solve(X.cpu(), vectors=vectors)
            return values.to(X.device), basis.to(X.device)
        return _lapack(X.detach(), vectors)
    n = X.shape[-1]
    total = array.size // max(n * n, 1)
    kernel = _kernel(array.dtype) if _enabled and _kernel_pays(total, n) else None
    parts = _parts(total, n, 1 if kernel is None else 64 // array.itemsize)
    if kernel is not None or len(parts) > 1:
        return _in_parts(array, kernel, parts, vectors)
    tensor = torch.from_numpy(array)
    try:
        values, basis = _lapack(tensor, vectors)
        if math.isfinite(values.sum()):
            return values, basis
    except torch.linalg.LinAlgError:
        pass
    return _lapack_finite(tensor, vectors)


def _kernel_pays(total: int, n: int) -> bool:
    # A group of lanes costs the same with one matrix in it.
    return 0 < n <= KERNEL_MAX_SIZE and total >= max(4, n // 16, 32 // n)


def _for_kernel(X: Tensor) -> tuple[ModuleType, NDArray, list[slice]] | None:
    """Return the kernel, matrices (n_matrices, n, n) and their parts for threads."""
    array = _memory(X) if _enabled else None
    if array is None:
        return None
    n = X.shape[-1]
    total = array.size // max(n * n, 1)
    kernel = _kernel(array.dtype) if _kernel_pays(total, n) else None
    if kernel is None:
        return None
    matrices = np.ascontiguousarray(array).reshape(-1, n, n)
    return kernel, matrices, _parts(total, n, 64 // array.itemsize)


def _in_parts(
    array: NDArray, kernel: ModuleType | None, parts: list[slice], vectors: bool
) -> tuple[Tensor, Tensor]:
    n = array.shape[-1]
    X = np.ascontiguousarray(array).reshape(-1, n, n)
    values = np.empty(X.shape[:2], X.dtype)
    basis = np.empty_like(X) if vectors else values

    def solve(part: slice) -> None:
        target = basis[part] if vectors else None
        if kernel is None or not kernel.decompose(X[part], values[part], target):
            found, columns = _lapack_finite(torch.from_numpy(X[part]), vectors)
            values[part] = found.numpy()
            if target is not None:
                target[:] = columns.numpy()

    # LAPACK would start threads of its own on this one.
    _share(solve, parts, here=0 if kernel is None else 1)
    values = values.reshape(array.shape[:-1])
    basis = basis.reshape(array.shape) if vectors else values
    return torch.from_numpy(values), torch.from_numpy(basis)


def _lapack(X: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    if X.device.type == "cpu" and not torch.compiler.is_compiling():
        # LAPACK wants columns: what lies so already is copied faster.
        X, triangle = X.mT, "U"
    else:
        triangle = "L"
    if vectors:
        values, basis = torch.linalg.eigh(X, UPLO=triangle)
        return values, basis
    values = torch.linalg.eigvalsh(X, UPLO=triangle)
    return values, values


def _lapack_finite(X: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    """Decompose what is finite; one matrix that is not fails the whole batch."""
    bad = ~X.tril().isfinite().all(dim=-1).all(dim=-1)
    values, basis = _lapack(torch.where(bad[..., None, None], 0.0, X), vectors)
    return values.masked_fill(bad[..., None], math.nan), basis


_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()


def _forget_pool() -> None:
    """Drop the pool in a forked child, where its threads do not exist."""
    global _pool, _pool_size, _pool_lock
    _pool, _pool_size, _pool_lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _use_one_thread(others: int) -> None:
    """Keep LAPACK, called on this thread, from starting threads of its own.

    It does from n = 32 on, to no gain and at twice the time.
    """
    # A thread takes the common number when it first asks, also after it was
    # set to another: so ask first.
    torch.get_num_threads()
    torch.set_num_threads(1)
    # That also sets what threads begin with that start later: set it back.
    restoring = threading.Thread(target=torch.set_num_threads, args=(others,))
    restoring.start()
    restoring.join()


def _helpers(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < size:
            if _pool is not None:
                _pool.shutdown(wait=False)
            _pool = ThreadPoolExecutor(
                size,
                thread_name_prefix="eegtensor-eigh",
                initializer=_use_one_thread,
                initargs=(torch.get_num_threads(),),
            )
            _pool_size = size
            # All start now, so that none resets the number of threads later.
            together = threading.Barrier(size + 1)
            try:
                for _ in range(size):
                    _pool.submit(together.wait)
            except RuntimeError:  # no thread can be started any more
                together.abort()
                raise
            together.wait()
        return _pool


def _parts(total: int, n: int, lanes: int) -> list[slice]:
    """Return a batch's parts for torch's threads, in whole groups of lanes."""
    work = total * n**3
    if work < 2 * _MIN_SHARED_WORK:
        return [slice(0, total)]
    threads = min(torch.get_num_threads(), work // _MIN_SHARED_WORK)
    step = -(-total // threads)
    group = 2 * lanes if step >= 2 * lanes else lanes
    step = -(-step // group) * group
    return [slice(at, min(at + step, total)) for at in range(0, total, step)]


def _share(solve: Callable[[slice], None], parts: list[slice], here: int) -> None:
    """Call `solve` on every part, on a thread each; the last `here` on this one."""
    waiting: list[Future[None]] = []
    left = parts
    if len(parts) > 1:
        try:
            pool = _helpers(len(parts) - here)
            while len(left) > here:
                waiting.append(pool.submit(solve, left[0]))
                left = left[1:]
        except RuntimeError:  # the interpreter is shutting down
            pass
    for part in left:
        solve(part)
    for future in waiting:
        future.result()
