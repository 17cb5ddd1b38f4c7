"""Quantiser mathematics: vectors to codes and back.

Pure functions, NumPy or torch in and out, and modules whose tables learn while a
network trains. A codebook is a table of shape
(n_codes, dim), several levels of residuals (n_levels, n_codes, dim).
"""

from eegtensor.codebook._book import Quantised
from eegtensor.codebook.allocate import allocate_levels
from eegtensor.codebook.gradients import rotate_through, straight_through
from eegtensor.codebook.grids import FiniteScalarQuantizer, LookupFreeQuantizer
from eegtensor.codebook.grouped import GroupedQuantizer
from eegtensor.codebook.kmeans import KMeans, kmeans
from eegtensor.codebook.lookup import Codes, nearest_codes, prepare_codes, search
from eegtensor.codebook.modules import ResidualQuantizer, VectorQuantizer
from eegtensor.codebook.residual import decode_residual, encode_residual, fit_residual
from eegtensor.codebook.scalar import (
    finite_scalar,
    index_to_scalar,
    index_to_signs,
    lookup_free,
    lookup_free_penalty,
    scalar_to_index,
    signs_to_index,
)
from eegtensor.codebook.usage import (
    Usage,
    code_counts,
    code_usage,
    cross_entropy,
    stability,
)

__all__ = [
    "Codes",
    "FiniteScalarQuantizer",
    "GroupedQuantizer",
    "KMeans",
    "LookupFreeQuantizer",
    "Quantised",
    "ResidualQuantizer",
    "Usage",
    "VectorQuantizer",
    "allocate_levels",
    "code_counts",
    "code_usage",
    "cross_entropy",
    "decode_residual",
    "encode_residual",
    "finite_scalar",
    "fit_residual",
    "index_to_scalar",
    "index_to_signs",
    "kmeans",
    "lookup_free",
    "lookup_free_penalty",
    "nearest_codes",
    "prepare_codes",
    "rotate_through",
    "scalar_to_index",
    "search",
    "signs_to_index",
    "stability",
    "straight_through",
]
