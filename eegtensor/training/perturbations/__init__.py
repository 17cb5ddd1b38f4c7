"""Perturbations of inputs, features and weights, one file each."""

from eegtensor.training.perturbations.advstyle import AdvStyle
from eegtensor.training.perturbations.amata import Amata
from eegtensor.training.perturbations.arwp import ARWP
from eegtensor.training.perturbations.fast import Fast
from eegtensor.training.perturbations.fsam import FSAM
from eegtensor.training.perturbations.gradientnorm import GradientNorm
from eegtensor.training.perturbations.mrwp import MRWP
from eegtensor.training.perturbations.noisygradient import NoisyGradient
from eegtensor.training.perturbations.panimixup import PaniMixUp
from eegtensor.training.perturbations.pgd import PGD
from eegtensor.training.perturbations.rwp import RWP
from eegtensor.training.perturbations.sam import SAM
from eegtensor.training.perturbations.yopo import YOPO

__all__ = [
    "ARWP",
    "FSAM",
    "MRWP",
    "PGD",
    "RWP",
    "SAM",
    "YOPO",
    "AdvStyle",
    "Amata",
    "Fast",
    "GradientNorm",
    "NoisyGradient",
    "PaniMixUp",
]
