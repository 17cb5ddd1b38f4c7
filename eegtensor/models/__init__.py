"""Whole networks: trials and their domains to logits."""

from eegtensor.models.filterbank import FilterBankTSMNet
from eegtensor.models.patterns import (
    ClassPatterns,
    Sources,
    class_patterns,
    sources,
)
from eegtensor.models.spdnet import SPDNet
from eegtensor.models.tensorcspnet import TensorCSPNet
from eegtensor.models.tsmnet import TSMNet

__all__ = [
    "ClassPatterns",
    "FilterBankTSMNet",
    "SPDNet",
    "Sources",
    "TSMNet",
    "TensorCSPNet",
    "class_patterns",
    "sources",
]
