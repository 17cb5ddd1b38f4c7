"""Layers of SPD networks."""

from eegtensor.nn.axial import AxialBlock
from eegtensor.nn.batchnorm import SPDBatchNorm
from eegtensor.nn.bimap import BiMap
from eegtensor.nn.domainnorm import DomainSPDBatchNorm
from eegtensor.nn.eigen import ExpEig, LogEig, ReEig, TangentVector
from eegtensor.nn.euclidean import DomainBatchNorm
from eegtensor.nn.factorised import FactorizedLinear
from eegtensor.nn.factorised_conv import FactorizedConv1d, FactorizedConv2d
from eegtensor.nn.factorize import factorize_
from eegtensor.nn.heads import EquiangularHead, GrassmannHead, make_head
from eegtensor.nn.lagfront import LinearFront
from eegtensor.nn.multiway import MultiwayAttention, MultiwayBlock
from eegtensor.nn.pooling import CovarianceFront, CovariancePool
from eegtensor.nn.positions import electrode_features
from eegtensor.nn.searched import SearchedLayer, search_linear
from eegtensor.nn.tail import SPDTail
from eegtensor.nn.volterra import (
    VolterraConv1d,
    fit_volterra,
    perturbation_bound,
    volterra_series,
)

__all__ = [
    "AxialBlock",
    "BiMap",
    "CovarianceFront",
    "CovariancePool",
    "DomainBatchNorm",
    "DomainSPDBatchNorm",
    "EquiangularHead",
    "ExpEig",
    "FactorizedConv1d",
    "FactorizedConv2d",
    "FactorizedLinear",
    "GrassmannHead",
    "LinearFront",
    "LogEig",
    "MultiwayAttention",
    "MultiwayBlock",
    "ReEig",
    "SPDBatchNorm",
    "SPDTail",
    "SearchedLayer",
    "TangentVector",
    "VolterraConv1d",
    "electrode_features",
    "factorize_",
    "fit_volterra",
    "make_head",
    "perturbation_bound",
    "search_linear",
    "volterra_series",
]
