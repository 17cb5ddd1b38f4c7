"""Losses, one file each, and their weighted sum."""

from eegtensor.training.objectives.crossentropy import CrossEntropy
from eegtensor.training.objectives.weightedsum import WeightedSum

__all__ = ["CrossEntropy", "WeightedSum"]
