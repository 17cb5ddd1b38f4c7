"""Restore what a recording has lost: cells, runs, gaps, channels.

`complete` looks at what is missing and chooses; the methods stand beside it.
"""

from eegtensor.tensor.completion.gaussian import (
    GaussianFit,
    GaussianMean,
    gaussian_fit,
    gaussian_mean,
)
from eegtensor.tensor.completion.lags import lag_covariances
from eegtensor.tensor.completion.mdt import MDT, mdt_tucker
from eegtensor.tensor.completion.methods import METHODS
from eegtensor.tensor.completion.mmes import MMES, mmes
from eegtensor.tensor.completion.router import Completion, Restored, complete
from eegtensor.tensor.completion.spline import spline_weights
from eegtensor.tensor.completion.ssa import SSA, multichannel_ssa

__all__ = [
    "MDT",
    "METHODS",
    "MMES",
    "SSA",
    "Completion",
    "GaussianFit",
    "GaussianMean",
    "Restored",
    "complete",
    "gaussian_fit",
    "gaussian_mean",
    "lag_covariances",
    "mdt_tucker",
    "mmes",
    "multichannel_ssa",
    "spline_weights",
]
