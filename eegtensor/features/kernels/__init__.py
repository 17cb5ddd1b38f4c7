"""Kernels: asymmetric, indefinite, locally adaptive, of networks, of missing values."""

from eegtensor.features.kernels._connection import smooth_fields
from eegtensor.features.kernels.askls import AsymmetricKernelClassifier
from eegtensor.features.kernels.directed import divergence, neighbour_kernel
from eegtensor.features.kernels.fourier import (
    AsymmetricFourierFeatures,
    IndefiniteFourierFeatures,
)
from eegtensor.features.kernels.imputation import SupervisedKernelImputer
from eegtensor.features.kernels.labrbf import (
    LocalBandwidthClassifier,
    LocalBandwidthRegressor,
)
from eegtensor.features.kernels.layerkernels import layer_kernels
from eegtensor.features.kernels.ntk import WeightedNTKClassifier, WeightedNTKRegressor
from eegtensor.features.kernels.vectorfields import VectorFieldGP

__all__ = [
    "AsymmetricFourierFeatures",
    "AsymmetricKernelClassifier",
    "IndefiniteFourierFeatures",
    "LocalBandwidthClassifier",
    "LocalBandwidthRegressor",
    "SupervisedKernelImputer",
    "VectorFieldGP",
    "WeightedNTKClassifier",
    "WeightedNTKRegressor",
    "divergence",
    "layer_kernels",
    "neighbour_kernel",
    "smooth_fields",
]
