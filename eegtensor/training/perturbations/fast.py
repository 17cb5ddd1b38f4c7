"""Fast adversarial training: one long step from a random start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from eegtensor._check import check_option
from eegtensor.training.perturbations.pgd import PGD

if TYPE_CHECKING:
    from eegtensor.training.monitors.selffitting import SelfFitting
    from eegtensor.training.protocols import TrainState
    from eegtensor.training.registry import Setup

# Trials that a watched run is judged by.
_PROBE = 200


class Fast(PGD):
    """Single-step adversarial training (Fast-AT: FGSM from a random start).

    It may overfit catastrophically: from one epoch to the next no accuracy under many
    steps is left. ``watch=True`` stops the run then, see `SelfFitting`.

    Parameters
    ----------
    eps : float
        In standard deviations of each channel over the batch.
    step_size : float | None
        None: 1.25 eps, as published.
    norm : "linf" | "l2"
    start : bool
        Whether to begin at random: without, it is training on FGSM.
    loss : "cross-entropy" | "kl"
    watch : bool
        By a string only: of up to 200 trials of the validation set, of the training
        set where there is none.

    References
    ----------
    E. Wong, L. Rice and J. Z. Kolter, "Fast is better than free: revisiting
    adversarial training", ICLR 2020, alg. 3.
    """

    def __init__(
        self,
        eps: float = 0.1,
        step_size: float | None = None,
        norm: str = "linf",
        start: bool = True,
        loss: str = "cross-entropy",
        watch: bool = False,
    ) -> None:
        step_size = 1.25 * eps if step_size is None else step_size
        super().__init__(eps, 1, step_size, norm, start, loss)
        self.watch = check_option("watch", watch, (True, False))
        self.monitor: SelfFitting | None = None

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> Fast:
        """Return one that knows the trials to watch a run by."""
        # The monitor attacks as well: it imports what is here.
        from eegtensor.training.monitors.selffitting import SelfFitting

        made = cls(**options)
        if made.watch:
            data = setup.data if setup.validation is None else setup.validation
            g = torch.Generator().manual_seed(setup.seed)
            some = torch.randperm(len(data), generator=g)[:_PROBE]
            probe = data.pick(some.to(data.device))
            made.monitor = SelfFitting(probe, made.budget.eps, norm=made.budget.norm)
        return made

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run."""
        if self.monitor is not None:
            self.monitor.on_train_start(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Watch for the collapse."""
        if self.monitor is not None:
            self.monitor.on_epoch_end(state)

    def state_dict(self) -> dict[str, Any]:
        """Return what the monitor has seen."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        if self.monitor is not None and state:
            self.monitor.load_state_dict(state)
