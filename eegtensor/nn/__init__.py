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
from eegtensor.nn.fusiongraph import (
    FusionGraphLayer,
    dtw_distances,
    fusion_graph,
    sparse_graph,
)
from eegtensor.nn.graphunet import GraphUNet, pair_nodes
from eegtensor.nn.heads import EquiangularHead, GrassmannHead, make_head
from eegtensor.nn.hypergraph import (
    HypergraphBlock,
    MultiHypergraph,
    hypergraph_operator,
    neighbour_hyperedges,
)
from eegtensor.nn.infodrop import InfoDrop, set_info_drop
from eegtensor.nn.lagfront import LinearFront
from eegtensor.nn.linearattention import (
    EntropyEqualAttention,
    entropy_equal_attention,
)
from eegtensor.nn.multiway import MultiwayAttention, MultiwayBlock
from eegtensor.nn.pooling import CovarianceFront, CovariancePool
from eegtensor.nn.positions import electrode_features
from eegtensor.nn.powernorm import PowerNorm
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
    "EntropyEqualAttention",
    "EquiangularHead",
    "ExpEig",
    "FactorizedConv1d",
    "FactorizedConv2d",
    "FactorizedLinear",
    "FusionGraphLayer",
    "GraphUNet",
    "GrassmannHead",
    "HypergraphBlock",
    "InfoDrop",
    "LinearFront",
    "LogEig",
    "MultiHypergraph",
    "MultiwayAttention",
    "MultiwayBlock",
    "PowerNorm",
    "ReEig",
    "SPDBatchNorm",
    "SPDTail",
    "SearchedLayer",
    "TangentVector",
    "VolterraConv1d",
    "dtw_distances",
    "electrode_features",
    "entropy_equal_attention",
    "factorize_",
    "fit_volterra",
    "fusion_graph",
    "hypergraph_operator",
    "make_head",
    "neighbour_hyperedges",
    "pair_nodes",
    "perturbation_bound",
    "search_linear",
    "set_info_drop",
    "sparse_graph",
    "volterra_series",
]
