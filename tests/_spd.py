"""Matrices on which geometry is tried: easy, ill-conditioned, degenerate."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor import geometry

KINDS = ("easy", "cond 1e6", "near identity", "repeated", "volts")


def generator(seed: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def symmetric(n: int, size: tuple[int, ...], seed: int) -> Tensor:
    """Symmetric normal matrices in float64."""
    X = torch.randn(*size, n, n, generator=generator(seed), dtype=torch.float64)
    return X + X.mT


def matrices(kind: str, n: int, size: tuple[int, ...], seed: int) -> Tensor:
    """SPD matrices of a kind, in float64.

    Those of condition some 1e6 share their bad directions, as trials of one montage.
    """
    if kind == "near identity":
        return torch.eye(n, dtype=torch.float64) + 1e-6 * symmetric(n, size, seed)
    if kind == "repeated":
        Q = geometry.expm(symmetric(n, size, seed))
        Q = torch.linalg.qr(Q)[0]
        values = torch.tensor([1.0] * (n // 2) + [3.0] * (n - n // 2)).to(Q)
        return geometry.symmetrize((Q * values) @ Q.mT)
    X = geometry.random_spd(n, size, condition=50.0, random_state=generator(seed))
    if kind == "cond 1e6":
        W = geometry.random_spd(n, condition=150.0, random_state=generator(99))
        return geometry.congruence(W, X)
    if kind == "singular":
        # An average reference: all matrices lack the same direction.
        P = torch.eye(n, dtype=torch.float64) - 1.0 / n
        return geometry.congruence(P, X)
    return X * (1e-12 if kind == "volts" else 1.0)


def spd(
    rng: np.random.Generator, n_matrices: int, n: int, *, unit: float = 1.0
) -> NDArray:
    """Random matrices of condition about 1e3, in a unit squared of `unit`."""
    A = rng.standard_normal((n_matrices, n, 3 * n)) * np.logspace(0, -1, n)[:, None]
    mix = np.eye(n) + 0.3 * rng.standard_normal((n, n))
    return unit * (mix @ A) @ np.swapaxes(mix @ A, 1, 2) / (3 * n)
