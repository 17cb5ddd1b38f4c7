"""What samplers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail


def as_codes(name: str, values: Any) -> NDArray[np.int64]:
    """Return codes 0.. of labels of any kind, in sorted order of the labels."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.ndim != 1:
        fail(f"{name} has shape {array.shape}", fix=f"give one {name} per trial")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


class Seeded:
    """A sampler whose batches follow from its seed and the epoch."""

    seed: int

    def weights(self, epoch: int) -> None:
        """Return None: trials count equally."""

    def state_dict(self) -> dict[str, int]:
        """Return the seed, for checkpoints."""
        return {"seed": self.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take over the seed of `state_dict`."""
        self.seed = state["seed"]
