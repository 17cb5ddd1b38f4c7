"""Calibration: maps of logits, and decoders calibrated on people they had not seen.

UniG, which mixes trials of a batch to unify gradients, is left out: what it says of a
trial depends on those beside it, and its code is under another licence.
"""

from eegtensor.trust.calibration.aaa import AAA
from eegtensor.trust.calibration.decoder import MAPS, CalibratedDecoder
from eegtensor.trust.calibration.maps import (
    DomainTemperature,
    Isotonic,
    OutputMap,
    Temperature,
    VectorScaling,
)

__all__ = [
    "AAA",
    "MAPS",
    "CalibratedDecoder",
    "DomainTemperature",
    "Isotonic",
    "OutputMap",
    "Temperature",
    "VectorScaling",
]
