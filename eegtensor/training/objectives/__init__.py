"""Losses, one file each, and their weighted sum."""

from eegtensor.training.objectives.aggregate import AggregateResponses
from eegtensor.training.objectives.aldr import ALDR
from eegtensor.training.objectives.anyloss import AnyLoss
from eegtensor.training.objectives.backwardcompatible import BackwardCompatible
from eegtensor.training.objectives.beliefproportions import BeliefProportions
from eegtensor.training.objectives.compsum import CompSum, comp_sum
from eegtensor.training.objectives.crossentropy import CrossEntropy
from eegtensor.training.objectives.d2r import D2R
from eegtensor.training.objectives.decoupledcontrastive import (
    DecoupledContrastive,
    decoupled_contrastive,
)
from eegtensor.training.objectives.deepcca import DeepCCA, eckart_young
from eegtensor.training.objectives.doublyrobust import DoublyRobust
from eegtensor.training.objectives.dualheadkd import DualHeadKD, binary_kl
from eegtensor.training.objectives.ensloss import EnsLoss
from eegtensor.training.objectives.grouporder import GroupOrder
from eegtensor.training.objectives.hessianalignment import HessianAlignment
from eegtensor.training.objectives.ldr import LDR
from eegtensor.training.objectives.logitadjusted import LogitAdjusted
from eegtensor.training.objectives.loki import LokiLoss
from eegtensor.training.objectives.mealv2 import MEALV2
from eegtensor.training.objectives.meow import MeoW
from eegtensor.training.objectives.multisimilarity import (
    MultiSimilarity,
    multi_similarity,
)
from eegtensor.training.objectives.nnpu import NNPU
from eegtensor.training.objectives.pani import Pani
from eegtensor.training.objectives.selfsimilarity import SelfSimilarity
from eegtensor.training.objectives.smoothadversarial import SmoothAdversarial
from eegtensor.training.objectives.softhardkd import SoftHardKD, teacher_share
from eegtensor.training.objectives.stochasticcca import Correlated, stochastic_cca
from eegtensor.training.objectives.subjectdro import SubjectDRO
from eegtensor.training.objectives.tnar import TNAR
from eegtensor.training.objectives.unpg import UNPG
from eegtensor.training.objectives.vat import VAT
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.objectives.weightshape import WeightShape
from eegtensor.training.objectives.zloss import ZLoss, z_loss_of_features

__all__ = [
    "ALDR",
    "D2R",
    "LDR",
    "MEALV2",
    "NNPU",
    "TNAR",
    "UNPG",
    "VAT",
    "AggregateResponses",
    "AnyLoss",
    "BackwardCompatible",
    "BeliefProportions",
    "CompSum",
    "Correlated",
    "CrossEntropy",
    "DecoupledContrastive",
    "DeepCCA",
    "DoublyRobust",
    "DualHeadKD",
    "EnsLoss",
    "GroupOrder",
    "HessianAlignment",
    "LogitAdjusted",
    "LokiLoss",
    "MeoW",
    "MultiSimilarity",
    "Pani",
    "SelfSimilarity",
    "SmoothAdversarial",
    "SoftHardKD",
    "SubjectDRO",
    "WeightShape",
    "WeightedSum",
    "ZLoss",
    "binary_kl",
    "comp_sum",
    "decoupled_contrastive",
    "eckart_young",
    "multi_similarity",
    "stochastic_cca",
    "teacher_share",
    "z_loss_of_features",
]
