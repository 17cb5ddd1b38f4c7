"""Features: scikit-learn transformers from trials to what decoders read."""

from eegtensor.features._base import DomainEstimator, DomainTransformer
from eegtensor.features.covariance import Covariances
from eegtensor.features.csp import CSP
from eegtensor.features.erp import ERPCovariances, XdawnCovariances
from eegtensor.features.fbcsp import FilterBankCSP
from eegtensor.features.ssvep import CCA, CCAFeatures
from eegtensor.features.tangent import TangentSpace
from eegtensor.features.trca import TRCA

__all__ = [
    "CCA",
    "CSP",
    "TRCA",
    "CCAFeatures",
    "Covariances",
    "DomainEstimator",
    "DomainTransformer",
    "ERPCovariances",
    "FilterBankCSP",
    "TangentSpace",
    "XdawnCovariances",
]
