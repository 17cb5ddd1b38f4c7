"""Perturbations of inputs, features and weights, one file each."""

from eegtensor.training.perturbations.advstyle import AdvStyle
from eegtensor.training.perturbations.arwp import ARWP
from eegtensor.training.perturbations.fsam import FSAM
from eegtensor.training.perturbations.gradientnorm import GradientNorm
from eegtensor.training.perturbations.mrwp import MRWP
from eegtensor.training.perturbations.noisygradient import NoisyGradient
from eegtensor.training.perturbations.panimixup import PaniMixUp
from eegtensor.training.perturbations.rwp import RWP
from eegtensor.training.perturbations.sam import SAM

__all__ = [
    "ARWP",
    "FSAM",
    "MRWP",
    "RWP",
    "SAM",
    "AdvStyle",
    "GradientNorm",
    "NoisyGradient",
    "PaniMixUp",
]
