"""Scores of novelty and trial quality: high for trials like those of training."""

from eegtensor.trust.scorers.base import Scorer
from eegtensor.trust.scorers.ensemble import ModeEnsemble
from eegtensor.trust.scorers.evidence import Evidence, evidence
from eegtensor.trust.scorers.gradients import LowDimGradients
from eegtensor.trust.scorers.kernelpca import CoP, CoRP
from eegtensor.trust.scorers.logits import Energy, MaximumProbability
from eegtensor.trust.scorers.measures import Interval, auroc, fpr_at_tpr, over_people
from eegtensor.trust.scorers.named import SCORERS, make_scorer
from eegtensor.trust.scorers.neighbours import KNN
from eegtensor.trust.scorers.nystroem import NystroemKPCA
from eegtensor.trust.scorers.potato import RiemannianPotato

__all__ = [
    "KNN",
    "SCORERS",
    "CoP",
    "CoRP",
    "Energy",
    "Evidence",
    "Interval",
    "LowDimGradients",
    "MaximumProbability",
    "ModeEnsemble",
    "NystroemKPCA",
    "RiemannianPotato",
    "Scorer",
    "auroc",
    "evidence",
    "fpr_at_tpr",
    "make_scorer",
    "over_people",
]
