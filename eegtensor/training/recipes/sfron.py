"""SFRon: unlearning of whole people by masked ascent beside descent on the rest."""

from __future__ import annotations

from typing import Any

from eegtensor._check import fail
from eegtensor.training.recipes.ugclu import UGCLU


class SFRon(UGCLU):
    """Unlearn the trials of some domains and keep what is known of the rest, a recipe.

    The steepest descent of the divergence from a network retrained on the rest: in
    every step descent on trials to keep; every `every` steps before it an ascent on
    trials to forget, in weights whose Fisher information for those is at least
    `gamma` times that for the rest, with the loss ``alpha_t mean(w_i l_i)``,
    ``w_i ~ l_i^-lam``, and a gradient of norm `clip` at most. One optimizer makes
    both steps. Ascent leaves running statistics as they are. `alpha` and `clip` go
    together: with both at 1 a small network forgets nothing.

    Statistics of the domains remain: remove them afterwards (`network.forget(names)`),
    or use `eegtensor.lifelong.forget`, which does all of it.

    Parameters
    ----------
    forget : tuple of int
        Codes of domains.
    n_steps : int
        Of the whole run; each epoch makes its share.
    alpha : float
        Falls to 0 along half a cosine. 0 is fine-tuning on the rest.
    gamma, lam : float
    every : int
    clip : float
    beta : float
        After each cycle the weights are ``(1 - beta) w_before + beta w``, on their
        manifolds; 1, as published, is off.
    n_information : int | None
        Most batches of each kind that the masks are found with; None: all trials.
    batch_size, domains_per_batch : int
    random_state : int

    Attributes
    ----------
    masks : dict of str to dict of Tensor

    References
    ----------
    Z. Huang et al., "Unified gradient-based machine unlearning with remain geometry
    enhancement", NeurIPS 2024, arXiv 2409.19732. Defaults of their code for
    CIFAR-10, with SGD of lr 0.01, momentum 0.9 and weight decay 5e-4 beside.
    """

    def __init__(
        self,
        forget: tuple[int, ...] = (),
        n_steps: int = 1500,
        alpha: float = 25.0,
        gamma: float = 1.0,
        lam: float = 0.5,
        every: int = 5,
        clip: float = 7.0,
        beta: float = 1.0,
        n_information: int | None = None,
        batch_size: int = 50,
        domains_per_batch: int = 5,
        random_state: int = 0,
    ) -> None:
        if not len(forget):
            fail("SFRon has nothing to forget", fix="give codes of domains to forget")
        options: dict[str, Any] = {
            "n_steps": n_steps,
            "alpha": alpha,
            "gamma": gamma,
            "lam": lam,
            "every": every,
            "clip": clip,
            "beta": beta,
            "n_information": n_information,
            "batch_size": batch_size,
            "domains_per_batch": domains_per_batch,
            "random_state": random_state,
        }
        super().__init__(forget, (), **options)
