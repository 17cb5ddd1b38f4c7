"""Recordings in, domain-labelled trials out."""

from __future__ import annotations

import importlib
from typing import Any

from eegtensor.io.errors import Fault, RecordingError
from eegtensor.io.info import RecordingInfo, recording_info
from eegtensor.io.read import read_trials

__all__ = [
    "Fault",
    "RecordingError",
    "RecordingInfo",
    "fetch_card",
    "list_cards",
    "load_card",
    "open_card",
    "read_trials",
    "recording_info",
]

_LAZY = {
    "fetch_card": "eegtensor.io.fetch",
    "list_cards": "eegtensor.io.cards",
    "load_card": "eegtensor.io.cards",
    "open_card": "eegtensor.io.cards",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'eegtensor.io' has no attribute {name!r}")
