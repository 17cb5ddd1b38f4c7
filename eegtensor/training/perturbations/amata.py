"""Amata: few large steps of the attack at first, many small ones in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.perturbations._adversary import Budget
from eegtensor.training.perturbations.pgd import PGD

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class Amata(PGD):
    """Adversarial training with an annealed attack.

    Epoch e of E attacks by K_e = round(k_min + (k_max - k_min) (e - 1) / (E - 1))
    steps of size tau eps / K_e: the way that the attack can go is the same all along.
    With the defaults it makes 60 % of the steps that constant k_max would.

    Parameters
    ----------
    eps : float
        In standard deviations of each channel over the batch.
    k_min, k_max : int
        Steps of the first and of the last epoch.
    tau : float
        Sum of all steps, in eps.
    norm : "linf" | "l2"
    start : bool
    loss : "cross-entropy" | "kl"

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    N. Ye et al., "Amata: an annealing mechanism for adversarial training
    acceleration", AAAI 2021. The numbers are from general knowledge of the paper.
    """

    def __init__(
        self,
        eps: float = 0.1,
        k_min: int = 2,
        k_max: int = 10,
        tau: float = 2.5,
        norm: str = "linf",
        start: bool = True,
        loss: str = "cross-entropy",
    ) -> None:
        check_count("k_min", k_min)
        if check_count("k_max", k_max) < k_min:
            fail(f"k_min={k_min}, k_max={k_max}", fix="give k_max=k_min or more")
        self.tau = check_number("tau", tau, above=0.0)
        self.k_min, self.k_max = k_min, k_max
        super().__init__(eps, k_max, tau * eps / k_max, norm, start, loss)

    def budget_of(self, context: StepContext) -> Budget:
        """Return the budget of a step of the epoch."""
        k = annealed(self.k_min, self.k_max, context.epoch, context.n_epochs)
        step_size = self.tau * self.budget.eps / k
        return replace(self.budget, n_steps=k, step_size=step_size)


def annealed(first: int, last: int, epoch: int, n_epochs: int) -> int:
    """Return the steps of an epoch, counted from 1, on the way from first to last."""
    if n_epochs < 2:
        return last
    return round(first + (last - first) * (max(epoch, 1) - 1) / (n_epochs - 1))
