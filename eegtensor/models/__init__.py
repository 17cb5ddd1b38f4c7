"""Whole networks: trials and their domains to logits."""

from eegtensor.models.filterbank import FilterBankTSMNet
from eegtensor.models.labram import VQNSP
from eegtensor.models.maskedtokens import MaskedTokenNetwork
from eegtensor.models.neurorvq import NeuroRVQ
from eegtensor.models.patterns import (
    ClassPatterns,
    Sources,
    class_patterns,
    sources,
)
from eegtensor.models.spdnet import SPDNet
from eegtensor.models.tensorcspnet import TensorCSPNet
from eegtensor.models.tokenclassifier import TokenClassifierNetwork
from eegtensor.models.tsmnet import TSMNet

__all__ = [
    "VQNSP",
    "ClassPatterns",
    "FilterBankTSMNet",
    "MaskedTokenNetwork",
    "NeuroRVQ",
    "SPDNet",
    "Sources",
    "TSMNet",
    "TensorCSPNet",
    "TokenClassifierNetwork",
    "class_patterns",
    "sources",
]
