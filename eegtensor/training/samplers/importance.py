"""Trials drawn as often as their gradients are long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import RandomState, check_count, check_number, fail
from eegtensor.training.samplers._errors import ErrorsOfSteps
from eegtensor.training.samplers.shuffle import ShuffleSampler

if TYPE_CHECKING:
    from eegtensor.training.protocols import TrainState
    from eegtensor.training.registry import Setup


class ImportanceSampler(ShuffleSampler):
    """Importance sampling by the error of each trial (data half of PA&DA).

    Trials of an epoch are drawn with replacement, with p_i = tau q_i / sum q +
    (1 - tau) / n, q_i the length of the trial's error (`el2n`, a bound of the last
    layer's gradient) in the epoch before, and their losses are multiplied by 1 /
    (n p_i): the gradient's mean stays that of all trials, its variance shrinks.
    tau grows from 0 in the first epoch to `tau` in the last.

    Parameters
    ----------
    n_trials : int
    tau : float
        0.5 to 0.9 in the paper.
    batch_size : int
    epochs : int
        Over which tau grows.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Notes
    -----
    The released code leaves the losses as they are, which trains on other trials
    than those there are.

    References
    ----------
    S. Lu et al., "PA&DA: jointly sampling path and data for consistent NAS",
    CVPR 2023, section 3.3.
    """

    needs = ("losses of trials",)

    def __init__(
        self,
        n_trials: int,
        *,
        tau: float = 0.5,
        batch_size: int = 50,
        epochs: int = 1,
        random_state: RandomState | torch.Generator = 0,
    ) -> None:
        super().__init__(n_trials, batch_size=batch_size, random_state=random_state)
        if not 0 <= check_number("tau", tau) < 1:
            fail(
                f"tau={tau}",
                why="At 1 a trial without error is never drawn again",
                fix="give a share below 1",
            )
        self.tau, self.epochs = tau, check_count("epochs", epochs)
        self.errors = ErrorsOfSteps(n_trials)

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> ImportanceSampler:
        """Return the sampler of a run's trials."""
        found = {"batch_size": setup.batch_size, "random_state": setup.seed}
        return cls(len(setup.data), epochs=setup.epochs, **(found | options))

    def probabilities(self, epoch: int) -> Tensor:
        """Return p of every trial in an epoch, shape (n_trials,), float64."""
        q = self.errors.scores
        known = q.isfinite()
        # What was never seen, or has no label, is drawn as often as the mean trial.
        q = torch.where(known, q, q[known].mean() if bool(known.any()) else 1.0)
        tau = self.tau * min((epoch - 1) / max(self.epochs - 1, 1), 1.0)
        total = q.sum()
        if not bool(total > 0):
            return torch.full_like(q, 1.0 / len(q))
        return tau * q / total + (1.0 - tau) / len(q)

    def indices(self, epoch: int) -> list[Tensor]:
        """Return the trials of each batch; one may occur more than once."""
        p = self.probabilities(epoch).numpy()
        rng = np.random.default_rng([self.seed, epoch])
        drawn = rng.choice(len(p), size=len(p), p=p / p.sum())
        n_batches = -(-self.n_trials // self.batch_size)
        return [torch.from_numpy(part) for part in np.array_split(drawn, n_batches)]

    def weights(self, epoch: int) -> Tensor:  # type: ignore[override]
        """Return 1 / (n p) of every trial, shape (n_trials,)."""
        p = self.probabilities(epoch)
        return (1.0 / (len(p) * p)).float()

    def on_train_start(self, state: TrainState) -> None:
        """Listen to the network."""
        self.errors.start(state)

    def on_step_end(self, state: TrainState) -> None:
        """Take the errors of the step's trials."""
        self.errors.step(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Set the probabilities of the next epoch."""
        self.errors.finish_epoch()

    def on_train_end(self, state: TrainState) -> None:
        """Leave the network."""
        self.errors.stop()

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the seed and the errors, for checkpoints."""
        return {"seed": self.seed, "scores": self.errors.scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over those of `state_dict`."""
        self.seed = int(state["seed"])
        self.errors.scores = state["scores"].cpu().double()
