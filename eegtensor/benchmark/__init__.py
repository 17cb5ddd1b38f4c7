"""Benchmarks of decoders on people they have not seen.

The package is itself callable: ``eegtensor.benchmark(trials, pipelines)`` runs
`benchmark`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from eegtensor.benchmark.modes import Mode, Part, parse_mode, split_session
from eegtensor.benchmark.results import Results
from eegtensor.benchmark.runner import benchmark
from eegtensor.benchmark.splits import PROTOCOLS, Fold, make_folds
from eegtensor.benchmark.statistics import bootstrap_interval, sign_flip_test

_LAZY = {"TrustCard", "trust_card"}

__all__ = [
    "PROTOCOLS",
    "Fold",
    "Mode",
    "Part",
    "Results",
    "TrustCard",
    "benchmark",
    "bootstrap_interval",
    "make_folds",
    "parse_mode",
    "sign_flip_test",
    "split_session",
    "trust_card",
]


def __getattr__(name: str) -> Any:
    # Attacks and certificates need torch, which a benchmark of MDM does not.
    if name in _LAZY:
        return getattr(importlib.import_module("eegtensor.benchmark.trustcard"), name)
    raise AttributeError(f"module 'eegtensor.benchmark' has no attribute {name!r}")


# The contract names both a function and a package `benchmark`, and importing the
# package rebinds the attribute: only a module that can be called is both.
class _Callable(ModuleType):
    """A package that runs its main function when called."""

    def __call__(self, trials: Any, pipelines: Any, **options: Any) -> Results:
        """Run `benchmark`; see there."""
        return benchmark(trials, pipelines, **options)


sys.modules[__name__].__class__ = _Callable
