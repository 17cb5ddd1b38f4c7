"""Features: scikit-learn transformers from trials to what decoders read."""

from eegtensor.features import kernels
from eegtensor.features._base import DomainEstimator, DomainTransformer
from eegtensor.features.augmented import AugmentedCovariances
from eegtensor.features.blockterm import BlockTermFeatures
from eegtensor.features.chains import TensorRingFeatures, TensorTrainFeatures
from eegtensor.features.completer import Completer
from eegtensor.features.covariance import Covariances
from eegtensor.features.cp import CPFeatures, NonnegativeCPFeatures
from eegtensor.features.csp import CSP
from eegtensor.features.denoiser import NonlocalDenoiser, PairedDenoiser
from eegtensor.features.erp import ERPCovariances, XdawnCovariances
from eegtensor.features.factor_plot import plot_factors
from eegtensor.features.fbcsp import FilterBankCSP
from eegtensor.features.hoda import HODA
from eegtensor.features.hopls import HOPLS
from eegtensor.features.parafac2 import PARAFAC2Features
from eegtensor.features.selectrank import RankChoice, select_rank
from eegtensor.features.spectral import SpectralCovariances
from eegtensor.features.ssvep import CCA, CCAFeatures
from eegtensor.features.tangent import TangentSpace
from eegtensor.features.timefrequency import TimeFrequencyTensor
from eegtensor.features.trca import TRCA
from eegtensor.features.tucker import TuckerFeatures

__all__ = [
    "CCA",
    "CSP",
    "HODA",
    "HOPLS",
    "TRCA",
    "AugmentedCovariances",
    "BlockTermFeatures",
    "CCAFeatures",
    "CPFeatures",
    "Completer",
    "Covariances",
    "DomainEstimator",
    "DomainTransformer",
    "ERPCovariances",
    "FilterBankCSP",
    "NonlocalDenoiser",
    "NonnegativeCPFeatures",
    "PARAFAC2Features",
    "PairedDenoiser",
    "RankChoice",
    "SpectralCovariances",
    "TangentSpace",
    "TensorRingFeatures",
    "TensorTrainFeatures",
    "TimeFrequencyTensor",
    "TuckerFeatures",
    "XdawnCovariances",
    "kernels",
    "plot_factors",
    "select_rank",
]
