"""Optimizers that know manifolds."""

from eegtensor.training.optimizers.make import (
    check_optimizer,
    load_optimizer,
    make_optimizer,
)

__all__ = ["check_optimizer", "load_optimizer", "make_optimizer"]
