"""Optimizers that know manifolds, and what learning rates follow from."""

from eegtensor.training.optimizers.adapnm import AdaPNM
from eegtensor.training.optimizers.make import (
    check_optimizer,
    load_optimizer,
    make_optimizer,
)
from eegtensor.training.optimizers.pnm import PNM

__all__ = ["PNM", "AdaPNM", "check_optimizer", "load_optimizer", "make_optimizer"]
