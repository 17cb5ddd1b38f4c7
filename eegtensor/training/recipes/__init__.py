"""Runs that are more than one plain loop, one file each."""

from eegtensor.training.recipes.assembling import assemble
from eegtensor.training.recipes.augment import (
    Augment,
    Policy,
    augmented,
    uniform_policy,
)
from eegtensor.training.recipes.augmentations import OPERATIONS
from eegtensor.training.recipes.augmentationsearch import (
    Searched,
    search_augmentation,
)
from eegtensor.training.recipes.condensation import condense, gradient_distance
from eegtensor.training.recipes.hypergradients import (
    Hypergradient,
    forward_hypergradient,
    gradient_step,
    tune,
)
from eegtensor.training.recipes.multifidelity import MultiFidelity
from eegtensor.training.recipes.naturalgradient import AdaptiveNaturalGradient
from eegtensor.training.recipes.selftraining import SelfTraining
from eegtensor.training.recipes.stagekd import StageKD
from eegtensor.training.recipes.stages import Stages, hybrid

__all__ = [
    "OPERATIONS",
    "AdaptiveNaturalGradient",
    "Augment",
    "Hypergradient",
    "MultiFidelity",
    "Policy",
    "Searched",
    "SelfTraining",
    "StageKD",
    "Stages",
    "assemble",
    "augmented",
    "condense",
    "forward_hypergradient",
    "gradient_distance",
    "gradient_step",
    "hybrid",
    "search_augmentation",
    "tune",
    "uniform_policy",
]
