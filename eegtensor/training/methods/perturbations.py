"""Perturbations of inputs, features and weights."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

PERTURBATIONS: dict[str, Method] = {
    "sam": Method(
        "perturbation",
        "Foret et al., ICLR 2021",
        "2",
        (),
        "eegtensor.training.perturbations:SAM",
    ),
}
