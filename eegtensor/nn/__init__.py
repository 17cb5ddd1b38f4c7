"""Layers of SPD networks."""

from eegtensor.nn.batchnorm import SPDBatchNorm
from eegtensor.nn.bimap import BiMap
from eegtensor.nn.domainnorm import DomainSPDBatchNorm
from eegtensor.nn.eigen import ExpEig, LogEig, ReEig, TangentVector
from eegtensor.nn.euclidean import DomainBatchNorm
from eegtensor.nn.heads import EquiangularHead, GrassmannHead, make_head
from eegtensor.nn.lagfront import LinearFront
from eegtensor.nn.pooling import CovarianceFront, CovariancePool
from eegtensor.nn.tail import SPDTail

__all__ = [
    "BiMap",
    "CovarianceFront",
    "CovariancePool",
    "DomainBatchNorm",
    "DomainSPDBatchNorm",
    "EquiangularHead",
    "ExpEig",
    "GrassmannHead",
    "LinearFront",
    "LogEig",
    "ReEig",
    "SPDBatchNorm",
    "SPDTail",
    "TangentVector",
    "make_head",
]
