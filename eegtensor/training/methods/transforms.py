"""Maps of gradients."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

TRANSFORMS: dict[str, Method] = {}
