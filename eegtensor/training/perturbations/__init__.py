"""Perturbations of inputs, features and weights, one file each."""

from eegtensor.training.perturbations.sam import SAM

__all__ = ["SAM"]
