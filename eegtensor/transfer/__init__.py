"""Transfer: scikit-learn estimators that adapt to people they have never seen."""

from eegtensor.transfer._network import NetworkClassifier
from eegtensor.transfer._perdomain import PerDomain
from eegtensor.transfer.balanced import BalancedRecenter
from eegtensor.transfer.boosted import BoostedHead
from eegtensor.transfer.gda import GaussianDiscriminant
from eegtensor.transfer.gopsa import GOPSARegressor
from eegtensor.transfer.label_shift import balance_classes, maximise_information
from eegtensor.transfer.loki import LokiClassifier, frechet_decode
from eegtensor.transfer.mdm import MDM
from eegtensor.transfer.multitask import (
    TensorMultitaskLSSVC,
    TensorMultitaskSVC,
    TensorMultitaskSVR,
)
from eegtensor.transfer.naivebayes import SharedNaiveBayes
from eegtensor.transfer.probe import LearningCurve, ProbeChooser
from eegtensor.transfer.recenter import Recenter
from eegtensor.transfer.rescale import Rescale
from eegtensor.transfer.rotate import Rotate
from eegtensor.transfer.signals import EuclideanAlignment, SignalAlignment
from eegtensor.transfer.spdnetworks import SPDNetworkClassifier
from eegtensor.transfer.standardize import DomainStandardScaler
from eegtensor.transfer.tsmnet import TSMNetClassifier

__all__ = [
    "MDM",
    "BalancedRecenter",
    "BoostedHead",
    "DomainStandardScaler",
    "EuclideanAlignment",
    "GOPSARegressor",
    "GaussianDiscriminant",
    "LearningCurve",
    "LokiClassifier",
    "NetworkClassifier",
    "PerDomain",
    "ProbeChooser",
    "Recenter",
    "Rescale",
    "Rotate",
    "SPDNetworkClassifier",
    "SharedNaiveBayes",
    "SignalAlignment",
    "TSMNetClassifier",
    "TensorMultitaskLSSVC",
    "TensorMultitaskSVC",
    "TensorMultitaskSVR",
    "balance_classes",
    "frechet_decode",
    "maximise_information",
]
