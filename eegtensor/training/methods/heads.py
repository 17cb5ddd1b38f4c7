"""Heads that are fitted in closed form, and ways to decode."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

HEADS: dict[str, Method] = {}
