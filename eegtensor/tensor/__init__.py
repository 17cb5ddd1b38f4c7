"""Tensor mathematics: pure functions; NumPy in, NumPy out, or torch in, torch out."""

from eegtensor.tensor._block_project import block_term_project
from eegtensor.tensor._coupled_project import coupled_project
from eegtensor.tensor.ard import BayesianCP, ard_cp
from eegtensor.tensor.blockterm import BlockTerm, block_term
from eegtensor.tensor.cmtf import CMTF, cmtf
from eegtensor.tensor.consistency import core_consistency
from eegtensor.tensor.coupled import CoupledCP, coupled_cp
from eegtensor.tensor.cp import CP, cp
from eegtensor.tensor.match import (
    FactorMatch,
    SplitHalf,
    factor_match_score,
    split_half_match,
)
from eegtensor.tensor.network import TensorNetwork, tensor_network
from eegtensor.tensor.nonnegative import nonnegative_cp
from eegtensor.tensor.parafac2 import (
    PARAFAC2,
    PARAFAC2Scores,
    parafac2,
    parafac2_project,
)
from eegtensor.tensor.rank import RankTable, choose_rank, mdl_ranks
from eegtensor.tensor.ring import TensorRing, tensor_ring
from eegtensor.tensor.shared import SharedTucker, shared_tucker, shared_tucker_project
from eegtensor.tensor.structure import Structure, as_layer_tensor, search_structure
from eegtensor.tensor.train import TensorTrain, tensor_train
from eegtensor.tensor.tucker import Tucker, tucker

__all__ = [
    "CMTF",
    "CP",
    "PARAFAC2",
    "BayesianCP",
    "BlockTerm",
    "CoupledCP",
    "FactorMatch",
    "PARAFAC2Scores",
    "RankTable",
    "SharedTucker",
    "SplitHalf",
    "Structure",
    "TensorNetwork",
    "TensorRing",
    "TensorTrain",
    "Tucker",
    "ard_cp",
    "as_layer_tensor",
    "block_term",
    "block_term_project",
    "choose_rank",
    "cmtf",
    "core_consistency",
    "coupled_cp",
    "coupled_project",
    "cp",
    "factor_match_score",
    "mdl_ranks",
    "nonnegative_cp",
    "parafac2",
    "parafac2_project",
    "search_structure",
    "shared_tucker",
    "shared_tucker_project",
    "split_half_match",
    "tensor_network",
    "tensor_ring",
    "tensor_train",
    "tucker",
]
