"""Trust: attacks, scores of novelty, calibration, certificates, explanations.

Subpackages load on first use, or by their own name:
``from eegtensor.trust import attacks``.
"""

from __future__ import annotations

import importlib
from typing import Any

_PARTS = ("attacks", "calibration", "certificates", "explain", "scorers")
_NAMES = {
    "CalibratedDecoder": "eegtensor.trust.calibration",
    "RejectingClassifier": "eegtensor.trust.rejecting",
    "SmoothedClassifier": "eegtensor.trust.certificates",
}

__all__ = [*_NAMES, *_PARTS]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _PARTS:
        return importlib.import_module(f"eegtensor.trust.{name}")
    raise AttributeError(f"module 'eegtensor.trust' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
