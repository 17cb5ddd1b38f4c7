"""Which trials form the batches of an epoch, and what each of them counts."""

from eegtensor.training.samplers.domainbalanced import DomainBalancedSampler
from eegtensor.training.samplers.shuffle import ShuffleSampler

__all__ = ["DomainBalancedSampler", "ShuffleSampler"]
