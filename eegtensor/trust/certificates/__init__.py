"""Certificates: how far a trial can be displaced before a prediction may change."""

from eegtensor.trust.certificates.bounds import (
    dual_radius,
    gaussian_radius,
    lower_confidence,
)
from eegtensor.trust.certificates.classifier import SmoothedClassifier
from eegtensor.trust.certificates.dual import certify_dual, filled, halves
from eegtensor.trust.certificates.functional import SmoothingNoise
from eegtensor.trust.certificates.record import Certificates
from eegtensor.trust.certificates.smoothing import Votes, certify, count_votes
from eegtensor.trust.certificates.some import SOME, HeadSum, with_heads

__all__ = [
    "SOME",
    "Certificates",
    "HeadSum",
    "SmoothedClassifier",
    "SmoothingNoise",
    "Votes",
    "certify",
    "certify_dual",
    "count_votes",
    "dual_radius",
    "filled",
    "gaussian_radius",
    "halves",
    "lower_confidence",
    "with_heads",
]
