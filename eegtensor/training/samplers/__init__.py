"""Which trials form the batches of an epoch, and what each of them counts."""

from eegtensor.training.samplers.difficultyband import DifficultyBandSampler
from eegtensor.training.samplers.domainbalanced import DomainBalancedSampler
from eegtensor.training.samplers.equity import EquitySampler, equity_weights
from eegtensor.training.samplers.importance import ImportanceSampler
from eegtensor.training.samplers.rs2 import RS2Sampler
from eegtensor.training.samplers.shuffle import ShuffleSampler

__all__ = [
    "DifficultyBandSampler",
    "DomainBalancedSampler",
    "EquitySampler",
    "ImportanceSampler",
    "RS2Sampler",
    "ShuffleSampler",
    "equity_weights",
]
