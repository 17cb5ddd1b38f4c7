"""The table of training methods, from which the documentation is made."""

from eegtensor.training.methods.averagers import AVERAGERS
from eegtensor.training.methods.heads import HEADS
from eegtensor.training.methods.method import Method
from eegtensor.training.methods.objectives import OBJECTIVES
from eegtensor.training.methods.optimizers import OPTIMIZERS
from eegtensor.training.methods.perturbations import PERTURBATIONS
from eegtensor.training.methods.recipes import RECIPES
from eegtensor.training.methods.samplers import SAMPLERS
from eegtensor.training.methods.transforms import TRANSFORMS

METHODS: dict[str, Method] = {
    **OBJECTIVES,
    **PERTURBATIONS,
    **OPTIMIZERS,
    **TRANSFORMS,
    **AVERAGERS,
    **SAMPLERS,
    **RECIPES,
    **HEADS,
}

__all__ = ["METHODS", "Method"]
