"""Whole networks: trials and their domains to logits."""

from eegtensor.models.filterbank import FilterBankTSMNet
from eegtensor.models.spdnet import SPDNet
from eegtensor.models.tensorcspnet import TensorCSPNet
from eegtensor.models.tsmnet import TSMNet

__all__ = ["FilterBankTSMNet", "SPDNet", "TSMNet", "TensorCSPNet"]
