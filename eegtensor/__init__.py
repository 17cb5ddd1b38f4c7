"""From EEG recordings of many people to decoders for people never seen.

Names load on first use, so that ``import eegtensor`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from eegtensor._check import EEGTensorError, EEGTensorWarning
from eegtensor._version import __version__

# Public name -> module that defines it.
_NAMES = {
    "PIPELINES": "eegtensor.pipelines",
    "Pipeline": "eegtensor.pipelines",
    "Results": "eegtensor.benchmark",
    "Trials": "eegtensor.trials",
    "concatenate": "eegtensor.trials",
    "make_pipeline": "eegtensor.pipelines",
    "open_card": "eegtensor.io",
    "read_trials": "eegtensor.io",
    "simulate_trials": "eegtensor.simulate",
}
# `eegtensor.benchmark` is a package that can be called: et.benchmark(trials, ...).
_MODULES = (
    "auto",
    "benchmark",
    "codebook",
    "compress",
    "domains",
    "features",
    "geometry",
    "io",
    "lifelong",
    "models",
    "nn",
    "tensor",
    "tokens",
    "training",
    "transfer",
    "trust",
)

__all__ = [
    "EEGTensorError",
    "EEGTensorWarning",
    "__version__",
    *sorted(_NAMES),
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"eegtensor.{name}")
    raise AttributeError(f"module 'eegtensor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
