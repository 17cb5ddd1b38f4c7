"""Runs that are more than one plain loop, and callbacks."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

RECIPES: dict[str, Method] = {}
