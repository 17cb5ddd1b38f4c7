"""Features: scikit-learn transformers from trials to what decoders read."""

from eegtensor.features.covariance import Covariances
from eegtensor.features.tangent import TangentSpace

__all__ = ["Covariances", "TangentSpace"]
