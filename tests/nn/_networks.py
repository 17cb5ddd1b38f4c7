"""Tensor networks built the slow way: dense cores, Kronecker products and loops."""

from __future__ import annotations

import itertools

import numpy as np

KINDS = ["tt", "tr", "tucker", "cp", "stt", "str", "sttu"]
SEMI = {"stt": "tt", "str": "tr", "sttu": "tucker"}


def _whole(core: np.ndarray, left: int, mode: int) -> np.ndarray:
    """A chain's core (a, i, b) as (left, mode, b): core times identity, Kronecker."""
    a, i, b = core.shape
    t = left // a
    if t == 1 and i == mode:
        return core
    assert i * t == mode
    # Left semi-tensor product: (a x i b) times I_t on both sides.
    kron = np.kron(core.reshape(a, i * b), np.eye(t))
    return kron.reshape(left, i, b, t).transpose(0, 1, 3, 2).reshape(left, mode, b)


def dense(kind: str, modes: tuple[int, ...], cores: list[np.ndarray]) -> np.ndarray:
    """The tensor that a layer's cores stand for.

    Chains' cores come as (a, i, [next t,] next a): the last two are one rank.
    """
    base = SEMI.get(kind, kind)
    N = len(modes)
    if base == "cp":
        out = cores[0]
        for U in cores[1:]:
            out = np.einsum("...r,ir->...ir", out, U)
        return out.sum(axis=-1)
    if base == "tucker":
        core, factors = cores[0], cores[1:]
        sizes = []
        axes = iter(core.shape)
        for n, U in enumerate(factors):
            size = next(axes)
            assert size == U.shape[1]
            if len(U) != modes[n]:
                size *= next(axes)
            sizes.append(size)
        out = core.reshape(sizes)
        for n, U in enumerate(factors):
            t = modes[n] // len(U)
            whole = np.kron(U, np.eye(t))
            out = np.moveaxis(np.tensordot(whole, out, axes=(1, n)), 0, n)
        return out
    if base == "tt":
        cores = [cores[0][None], *cores[1:-1], cores[-1][..., None]]
    # The rank comes before the identity where they are one index.
    cores = [G.swapaxes(2, 3) if G.ndim == 4 else G for G in cores]
    merged = [G.reshape(G.shape[0], G.shape[1], -1) for G in cores]
    lefts = [merged[n - 1].shape[2] for n in range(N)]
    full = [
        _whole(G, left, mode)
        for G, left, mode in zip(merged, lefts, modes, strict=True)
    ]
    out = np.empty(modes)
    for index in itertools.product(*(range(m) for m in modes)):
        product = np.eye(lefts[0])
        for G, i in zip(full, index, strict=True):
            product = product @ G[:, i]
        out[index] = np.trace(product)
    return out
