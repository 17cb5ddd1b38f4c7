"""SPD matrices as EEG gives them, for tests of layers."""

from __future__ import annotations

import torch
from torch import Tensor


def covariances(
    b: int, n: int, *, seed: int = 0, unit: float = 1.0, spread: float = 1.0
) -> Tensor:
    """Covariances of 3 n samples whose channels differ in power tenfold."""
    generator = torch.Generator().manual_seed(seed)
    gain = torch.logspace(0, -spread, n, dtype=torch.float64)[:, None]
    x = gain * torch.randn(b, n, 3 * n, dtype=torch.float64, generator=generator)
    return unit * x @ x.mT / (3 * n)


def shifted(X: Tensor, domain: Tensor, *, seed: int = 1) -> Tensor:
    """The matrices seen through another mixture in each domain."""
    generator = torch.Generator().manual_seed(seed)
    n = X.shape[-1]
    mix = torch.randn(
        int(domain.max()) + 1, n, n, dtype=X.dtype, generator=generator
    ) * 0.3 + torch.eye(n, dtype=X.dtype)
    return mix[domain] @ X @ mix[domain].mT
