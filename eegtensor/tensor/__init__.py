"""Tensor mathematics: pure functions; NumPy in, NumPy out, or torch in, torch out."""

from eegtensor.tensor.cp import CP, cp
from eegtensor.tensor.nonnegative import nonnegative_cp
from eegtensor.tensor.ring import TensorRing, tensor_ring
from eegtensor.tensor.train import TensorTrain, tensor_train
from eegtensor.tensor.tucker import Tucker, tucker

__all__ = [
    "CP",
    "TensorRing",
    "TensorTrain",
    "Tucker",
    "cp",
    "nonnegative_cp",
    "tensor_ring",
    "tensor_train",
    "tucker",
]
