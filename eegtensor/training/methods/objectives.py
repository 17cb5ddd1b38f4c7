"""Objectives."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

OBJECTIVES: dict[str, Method] = {
    "cross-entropy": Method(
        "objective",
        "",
        "1",
        ("y",),
        "eegtensor.training.objectives:CrossEntropy",
    ),
}
