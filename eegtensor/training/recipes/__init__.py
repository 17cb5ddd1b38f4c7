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
from eegtensor.training.recipes.featurealignment import (
    AdaptiveFeatures,
    align_features,
)
from eegtensor.training.recipes.free import FreeAdversarial
from eegtensor.training.recipes.hypergradients import (
    Hypergradient,
    forward_hypergradient,
    gradient_step,
    tune,
)
from eegtensor.training.recipes.multifidelity import MultiFidelity
from eegtensor.training.recipes.natmu import NatMU
from eegtensor.training.recipes.naturalgradient import AdaptiveNaturalGradient
from eegtensor.training.recipes.onlinestream import OnlineStream
from eegtensor.training.recipes.rift import RiFT, rift
from eegtensor.training.recipes.selftraining import SelfTraining
from eegtensor.training.recipes.sfron import SFRon
from eegtensor.training.recipes.stagekd import StageKD
from eegtensor.training.recipes.stages import Stages, hybrid
from eegtensor.training.recipes.subat import SubAT
from eegtensor.training.recipes.ugclu import UGCLU

__all__ = [
    "OPERATIONS",
    "UGCLU",
    "AdaptiveFeatures",
    "AdaptiveNaturalGradient",
    "Augment",
    "FreeAdversarial",
    "Hypergradient",
    "MultiFidelity",
    "NatMU",
    "OnlineStream",
    "Policy",
    "RiFT",
    "SFRon",
    "Searched",
    "SelfTraining",
    "StageKD",
    "Stages",
    "SubAT",
    "align_features",
    "assemble",
    "augmented",
    "condense",
    "forward_hypergradient",
    "gradient_distance",
    "gradient_step",
    "hybrid",
    "rift",
    "search_augmentation",
    "tune",
    "uniform_policy",
]
