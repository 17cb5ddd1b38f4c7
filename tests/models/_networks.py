"""Small networks of every kind and trials for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor.models import FilterBankTSMNet, SPDNet, TensorCSPNet, TSMNet

CHANNELS, TIMES, CLASSES = 6, 60, 3
PEOPLE = ["ann", "bob", "eve"]
SMALL: dict[str, Any] = {
    "n_temporal_filters": 2,
    "temporal_kernel": 9,
    "n_spatial_filters": 5,
    "subspace": 4,
}
Make = Callable[..., Any]


def _tsmnet(**fixed: Any) -> Make:
    def make(**options: Any) -> TSMNet:
        dtype = options.pop("dtype", torch.float64)
        settings: dict[str, Any] = {
            **SMALL,
            "domains": PEOPLE,
            "random_state": 0,
            "front_dtype": dtype,
            "spd_dtype": dtype,
            **fixed,
            **options,
        }
        return TSMNet(CHANNELS, CLASSES, TIMES, **settings)

    return make


def _other(kind: Any, **fixed: Any) -> Make:
    def make(**options: Any) -> nn.Module:
        settings = {"domains": PEOPLE, "random_state": 0, **fixed, **options}
        network: nn.Module = kind(CHANNELS, CLASSES, TIMES, **settings)
        return network

    return make


NETWORKS: dict[str, Make] = {
    "conv": _tsmnet(),
    "lag": _tsmnet(front="lag"),
    "no domains": _tsmnet(norm="batch", domains=()),
    "no norm": _tsmnet(norm="none", domains=()),
    "constant momentum": _tsmnet(norm_options={"eta": 0.1, "eta_test": 0.1}),
    "log-variance": _tsmnet(features="log-variance"),
    "log-variance, no domains": _tsmnet(
        features="log-variance", norm="batch", domains=()
    ),
    "log-variance, no norm": _tsmnet(features="log-variance", norm="none", domains=()),
    "log-Euclidean": _tsmnet(metric="log-euclidean"),
    "log-Cholesky": _tsmnet(metric="log-cholesky"),
    "Grassmann": _tsmnet(head="grassmann"),
    "simplex": _tsmnet(head="simplex"),
    "orthogonal": _tsmnet(head="orthogonal"),
    "SPDNet": _other(SPDNet),
    "SPDNet, no norm": _other(SPDNet, sizes=(5, 3), norm="none", domains=()),
    "filter bank": _other(FilterBankTSMNet, n_bands=2),
    "Tensor-CSPNet": _other(TensorCSPNet, n_bands=2, n_windows=3, sizes=(3, 2)),
    "Tensor-CSPNet, no domains": _other(TensorCSPNet, norm="batch", domains=()),
}


def trials(batch: int = 24, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Trials in volts with a class effect on power, classes, codes of people."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, CHANNELS, TIMES, generator=generator, dtype=torch.float64)
    mix = torch.randn(
        len(PEOPLE), CHANNELS, CHANNELS, generator=generator, dtype=torch.float64
    )
    mix = torch.eye(CHANNELS, dtype=torch.float64) + 0.3 * mix
    y = torch.arange(batch) % CLASSES
    domain = torch.arange(batch) // CLASSES % len(PEOPLE)
    x = x * (1.0 + torch.eye(CHANNELS, dtype=torch.float64)[y])[:, :, None]
    return 1e-5 * (mix[domain] @ x), y, domain
