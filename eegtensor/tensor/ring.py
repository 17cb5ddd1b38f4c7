"""Tensor ring decomposition: TR-SVD, then alternating least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._alternate import solve
from eegtensor.tensor._missing import impute, squared_error
from eegtensor.tensor._momentum import settle
from eegtensor.tensor._shapes import as_tensor, check_start, check_sweeps
from eegtensor.tensor.kernels import leading_vectors, split_modes, squared_norm
from eegtensor.tensor.train import chain, check_links, rows_of


class TensorRing(NamedTuple):
    """A closed chain of cores: X[i_1, ..., i_N] = tr(G_1[:, i_1] ... G_N[:, i_N]).

    Attributes
    ----------
    cores : tuple of array, shape (r_{n-1}, I_n, r_n), r_0 = r_N
        Of equal Frobenius norm.
    fit : float
        1 - ||X - reconstruction|| / ||X|| over the observed cells.
    n_iter : int
        Sweeps of least squares.
    """

    cores: tuple[Array, ...]
    fit: float
    n_iter: int

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks r_0, ..., r_{N-1}, each before its mode."""
        return tuple(core.shape[0] for core in self.cores)

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, shape (I_1, ..., I_N)."""
        return _rebuild(*self.cores)


@bridged
def _rebuild(*cores: Tensor) -> Tensor:
    return close(cores).reshape([core.shape[1] for core in cores])


def close(cores: Sequence[Tensor]) -> Tensor:
    """Return the traces of the cores' products, shape (prod I_n,)."""
    k = max(1, len(cores) // 2)
    first = chain(cores[:k])
    if k == len(cores):
        return torch.einsum("aia->i", first)
    second = chain(cores[k:])
    a, i, b = first.shape
    left = first.permute(1, 0, 2).reshape(i, a * b)
    right = second.permute(2, 0, 1).reshape(a * b, -1)
    return (left @ right).reshape(-1)


@bridged
def tensor_ring(
    X: Array,
    ranks: int | Sequence[int],
    *,
    mask: Array | None = None,
    start: Sequence[Array] | None = None,
    ridge: float = 1e-9,
    max_iter: int = 100,
    tol: float = 1e-6,
) -> TensorRing:
    """Return the tensor ring of a tensor.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N), N >= 2
        NaN are missing cells.
    ranks : int | sequence of int, one for each mode
        Rank r_{n-1} before each mode; the first closes the ring.
    mask : array of bool, shape as X | None
        True for observed cells; missing ones are imputed by the model in turn.
    start : sequence of array | None
        Cores (r_{n-1}, I_n, r_n) to start from, in place of TR-SVD.
    ridge : float
        On the normal equations, relative to their mean diagonal: without it the
        sweeps may raise the error.
    max_iter : int
        Sweeps of least squares; 0 keeps TR-SVD.
    tol : float
        Change of the relative error that ends the sweeps.

    Returns
    -------
    TensorRing

    Raises
    ------
    EEGTensorError
        If X holds infinity, or shapes, ranks or mask do not fit.

    References
    ----------
    Q. Zhao et al., "Tensor ring decomposition", arXiv:1606.05535, 2016.
    """
    X, observed, total = as_tensor(X, mask)
    options: dict[str, Any] = {"ridge": ridge, "max_iter": max_iter, "tol": tol}
    return decompose(X, observed, total, ranks, start=start, **options)


def decompose(
    X: Tensor,
    observed: Tensor | None,
    total: float,
    ranks: int | Sequence[int],
    *,
    start: Sequence[Array] | None = None,
    ridge: float = 1e-9,
    max_iter: int = 100,
    tol: float = 1e-6,
) -> TensorRing:
    """Return what `tensor_ring` does, of what `as_tensor` returns.

    Missing cells of X are overwritten.
    """
    check_sweeps(max_iter, tol, ridge)
    sizes = [r if r is not None else 1 for r in check_links(ranks, X.ndim)]
    first = None
    if start is not None:
        after = [*sizes[1:], sizes[0]]
        first = check_start(start, list(zip(sizes, X.shape, after, strict=True)), X)

    def model(Z: Tensor, before: TensorRing | None) -> TensorRing:
        if before is not None:
            norm = squared_norm(Z)
            return _fit(Z, list(before.cores), norm, ridge, 1, tol)
        cores = tr_svd(Z, sizes) if first is None else list(first)
        return _fit(Z, cores, squared_norm(Z), ridge, max_iter, tol)

    if observed is None:
        cores = tr_svd(X, sizes) if first is None else list(first)
        return _fit(X, cores, total, ridge, max_iter, tol)
    turns = 20 * max(max_iter, 1)
    return impute(X, observed, model, max_iter=turns, tol=tol, rows=rows_of)


def tr_svd(X: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """Return cores of the ranks given by singular vectors, from left to right.

    The first cut has rank r_0 r_1; where it has fewer singular vectors the cores
    are filled with zeros.
    """
    N = X.ndim
    after = [*ranks[1:], ranks[0]]
    rest = X.reshape(X.shape[0], -1)
    first = _cut(rest, ranks[0] * after[0])
    remaining = (first.mT @ rest).reshape(ranks[0], after[0], -1)
    cores = [first.reshape(-1, ranks[0], after[0]).permute(1, 0, 2)]
    # The index that closes the ring travels to the end.
    rest = remaining.permute(1, 2, 0).reshape(after[0], -1)
    for n in range(1, N - 1):
        rest = rest.reshape(ranks[n] * X.shape[n], -1)
        U = _cut(rest, after[n])
        cores.append(U.reshape(ranks[n], X.shape[n], after[n]))
        rest = U.mT @ rest
    cores.append(rest.reshape(ranks[-1], X.shape[-1], ranks[0]))
    return cores


def _cut(M: Tensor, rank: int) -> Tensor:
    """Return leading left singular vectors, (rows, rank), padded with zeros."""
    U = leading_vectors(M, 0, min(rank, len(M)))[0].to(M.dtype)
    return torch.nn.functional.pad(U, (0, rank - U.shape[1]))


def _fit(
    X: Tensor,
    cores: list[Tensor],
    total: float,
    ridge: float,
    max_iter: int,
    tol: float,
) -> TensorRing:
    if total == 0.0:
        return TensorRing(tuple(torch.zeros_like(G) for G in cores), 1.0, 0)
    error, n_iter = _error(X, cores, total), 0

    def step(before: list[Tensor]) -> tuple[list[Tensor], float]:
        after = list(before)
        _sweep(X, after, ridge)
        balance(after)
        return after, _error(X, after, total)

    balance(cores)
    if max_iter > 0:
        cores, error, n_iter = settle(
            step, cores, max_iter=max_iter, tol=tol, error=error
        )
    return TensorRing(tuple(cores), 1.0 - math.sqrt(error), n_iter)


def _error(X: Tensor, cores: Sequence[Tensor], total: float) -> float:
    def estimate(part: slice) -> Tensor:
        return close([cores[0][:, part], *cores[1:]]).reshape(X[part].shape)

    return squared_error(X, None, estimate) / total


def balance(cores: list[Tensor]) -> None:
    """Give all cores the same norm, in place of their entries of the list."""
    norms = [float(G.double().norm()) for G in cores]
    if min(norms) == 0.0:
        return
    level = math.exp(sum(math.log(v) for v in norms) / len(norms))
    cores[:] = [G * (level / v) for G, v in zip(cores, norms, strict=True)]


def _sweep(X: Tensor, cores: list[Tensor], ridge: float) -> None:
    """Update every core by least squares, in two passes over the tensor."""
    k = split_modes(X.shape)
    flat = X.reshape(math.prod(X.shape[:k]), -1)
    right = chain(cores[k:])
    rows = right.permute(0, 2, 1).reshape(-1, right.shape[1])
    # (b, c, left): what the right half says about each cell of the left half.
    part = (rows @ flat.mT).reshape(right.shape[0], right.shape[2], -1)
    _update_half(part, range(k), cores, ridge)
    left = chain(cores[:k])
    rows = left.permute(2, 0, 1).reshape(-1, left.shape[1])
    part = (rows @ flat).reshape(left.shape[2], left.shape[0], -1)
    # Seen from the right half: c closes it, b opens it.
    _update_half(part.transpose(0, 1), range(k, X.ndim), cores, ridge)


def _update_half(part: Tensor, modes: range, cores: list[Tensor], ridge: float) -> None:
    """Update the cores of neighbouring modes.

    Parameters
    ----------
    part : Tensor, shape (r_end, r_start, prod I_n)
        X contracted with the chain of all other cores, which begins where these
        end and ends where these start.
    """
    for n in modes:
        before = _chain_or_eye(cores, range(modes.start, n), cores[n].shape[0], part)
        after = _chain_or_eye(cores, range(n + 1, modes.stop), cores[n].shape[2], part)
        size = cores[n].shape[1]
        Z = part.reshape(part.shape[0], part.shape[1], before.shape[1], size, -1)
        # M[i, a, b] = sum of Z[e, s, p, i, q] before[s, p, a] after[b, q, e].
        half = torch.einsum("espiq,spa->eaiq", Z, before)
        M = torch.einsum("eaiq,bqe->iab", half, after).reshape(size, -1)
        V = _subchain_gram(cores, n)
        A = solve(V, M.double(), ridge)
        shape = (size, cores[n].shape[0], cores[n].shape[2])
        cores[n] = A.reshape(shape).permute(1, 0, 2).contiguous().to(part.dtype)


def _chain_or_eye(cores: list[Tensor], modes: range, rank: int, like: Tensor) -> Tensor:
    if len(modes):
        return chain([cores[m] for m in modes])
    return torch.eye(rank, dtype=like.dtype, device=like.device)[:, None, :]


def _subchain_gram(cores: list[Tensor], n: int) -> Tensor:
    """Return the Gram of all other cores' chain: (r_{n-1} r_n, r_{n-1} r_n), float64.

    Entry ((a, b), (a', b')) sums, over all cells of the other modes, the products
    of the chain's entries [b, a] and [b', a'].
    """
    order = [*range(n + 1, len(cores)), *range(n)]
    rank = cores[n].shape[2]
    eye = torch.eye(rank, dtype=torch.float64, device=cores[n].device)
    # T[b, b', x, x']: of the chain so far, from b to x.
    T = torch.einsum("bx,cy->bcxy", eye, eye)
    for m in order:
        G = cores[m].double()
        pair = torch.einsum("xiz,yiw->xyzw", G, G)
        T = torch.einsum("bcxy,xyzw->bczw", T, pair)
    b, _, a, _ = T.shape
    return T.permute(2, 0, 3, 1).reshape(a * b, a * b)
