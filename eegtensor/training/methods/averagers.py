"""Averages of weights."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

AVERAGERS: dict[str, Method] = {}
