"""Learning a distribution over choices from the order of their losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Choice = tuple[Tensor, Tensor]


class AdaptiveNaturalGradient:
    """Stochastic natural gradient with a trust region that adapts (ASNG).

    The distribution is one yes or no, and one of some levels, for each of some
    operations, in expectation parameters psi = E[T(a)]:

        psi <- psi + (delta / |G|_F) G,  G = mean of u_i (T(a_i) - psi)

    with utilities u of 1 for the best quarter of candidates, -1 for the worst and 0
    between; delta grows where successive G agree, and never above the first: steps then
    stay within the region where the natural gradient says something. Probabilities
    stay 0.1 / 2 and 0.1 / n_levels away from 0.

    Parameters
    ----------
    n_operations, n_levels : int
    delta : float
        Length of the first step, in the Fisher metric.
    alpha : float
        Signal to noise that is aimed at.

    Attributes
    ----------
    probability : Tensor, shape (n_operations,)
    share : Tensor, shape (n_operations, n_levels)

    References
    ----------
    Y. Akimoto et al., "Adaptive stochastic natural gradient method for one-shot
    neural architecture search", ICML 2019, algorithm 1.
    """

    def __init__(
        self,
        n_operations: int,
        n_levels: int,
        *,
        delta: float = 1.0,
        alpha: float = 1.5,
    ) -> None:
        self.probability = torch.full((n_operations,), 0.5, dtype=torch.float64)
        self.share = torch.full(
            (n_operations, n_levels), 1.0 / n_levels, dtype=torch.float64
        )
        self.alpha, self.first = alpha, delta
        self.delta, self.gamma = delta, 0.0
        # Coordinates that are free: the last share follows from the others.
        self.n = n_operations * n_levels
        self._path = torch.zeros(n_operations * (1 + n_levels), dtype=torch.float64)

    def draw(self, generator: torch.Generator | None = None) -> Choice:
        """Return which operations are used, and the level of each, on the CPU."""
        place = torch.device("cpu") if generator is None else generator.device
        drawn = torch.rand(len(self.probability), generator=generator, device=place)
        level = torch.multinomial(self.share.to(place), 1, generator=generator)
        return drawn.cpu() < self.probability, level[:, 0].cpu()

    def tell(self, choices: list[Choice], losses: Tensor) -> None:
        """Move towards choices with small losses.

        Parameters
        ----------
        choices : list
            What `draw` returned.
        losses : Tensor, shape (n_choices,)
        """
        u = _utilities(losses.detach().double().cpu())
        p, q = self.probability, self.share
        used = torch.stack([c[0] for c in choices]).double()
        level = torch.nn.functional.one_hot(
            torch.stack([c[1] for c in choices]), q.shape[1]
        ).double()
        # The level of an operation that was not used says nothing.
        of_p = (u[:, None] * (used - p)).mean(0)
        of_q = (u[:, None, None] * used[..., None] * (level - q)).mean(0)
        whitened = torch.cat([of_p / (p * (1 - p)).sqrt(), (of_q / q.sqrt()).flatten()])
        length = whitened.norm()
        if float(length) == 0.0:
            return
        step = self.delta / float(length)
        self.probability = _kept(p + step * of_p)
        self.share = _kept_shares(q + step * of_q)
        # After the step, as published: it says how long the next one is.
        self._adapt(whitened / length)

    def _adapt(self, direction: Tensor) -> None:
        beta = self.delta / math.sqrt(self.n)
        beta = min(beta, 1.0)
        gain = beta * (2 - beta)
        self._path = (1 - beta) * self._path + math.sqrt(gain) * direction
        self.gamma = (1 - beta) ** 2 * self.gamma + gain
        ratio = float(self._path.square().sum()) / self.alpha - self.gamma
        self.delta = min(self.delta * math.exp(beta * ratio), self.first)


def _utilities(losses: Tensor) -> Tensor:
    """Return 1 for the best quarter, -1 for the worst; ties share theirs."""
    n = len(losses)
    edge = math.ceil(n / 4)
    by_rank = torch.zeros(n, dtype=torch.float64)
    by_rank[:edge], by_rank[n - edge :] = 1.0, -1.0
    same = (losses[:, None] == losses).double()
    rank = (losses[:, None] > losses).double().sum(1)
    place = torch.arange(n)
    inside = (place >= rank[:, None]) & (place < rank[:, None] + same.sum(1)[:, None])
    return (inside * by_rank).sum(1) / inside.sum(1)


def _kept(p: Tensor) -> Tensor:
    return p.clamp(0.05, 0.95)


def _kept_shares(q: Tensor) -> Tensor:
    """Return shares that add up to one, none below a tenth of an equal one."""
    floor = 0.1 / q.shape[1]
    q = q.clamp_min(floor)
    rest = q - floor
    return floor + rest * (1 - floor * q.shape[1]) / rest.sum(1, keepdim=True)
