"""The Square attack on scores, with squares of channels x time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, fail
from eegtensor.trust.attacks.attack import Attack
from eegtensor.trust.attacks.goal import Goal, Model, still
from eegtensor.trust.attacks.views import View

# Of 10000 queries: after which the share of a trial that is changed is halved.
_HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


class Searched(NamedTuple):
    """Perturbed trials, and how often each was scored."""

    x: Tensor
    queries: Tensor


def square(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 0.1,
    n_queries: int = 1000,
    share: float = 0.8,
    targeted: bool = False,
    scale: Tensor | None = None,
    generator: torch.Generator | None = None,
    surrogates: Sequence[Model] = (),
    n_proposals: int = 8,
) -> Searched:
    """Return trials found by a random search that needs scores alone.

    Every trial starts with +eps or -eps at random in each channel and sample. A
    query tries other signs in a "square", some channels over a segment of time with
    one sign a channel, and keeps them if the other classes come closer. Squares
    shrink by the schedule of the released code. A trial that is fooled is not
    asked about again, one that is decoded wrongly as it is is left alone.

    Of QueryNet one idea is here: with surrogates, decoders that cost no query, each
    query is the best of `n_proposals` squares by their vote. Surrogates that learn
    their architecture from the answers are not built.

    Parameters
    ----------
    model : callable
        Trials to scores, each trial on its own. No gradient is asked for.
    x : Tensor, shape (n_trials, n_channels, n_times)
    y : Tensor of int64, shape (n_trials,)
        Classes to leave or, with `targeted`, to reach.
    eps : float
        l_inf, standard deviations of the channel.
    n_queries : int
        Of each trial at most, the clean one included.
    share : float
        Of a trial's entries that the first squares hold; that of AutoAttack.
    targeted : bool
    scale : Tensor, shape (1, n_channels, 1) | None
    generator : torch.Generator | None
        On the device of x.
    surrogates : sequence of callable
    n_proposals : int

    Returns
    -------
    x : Tensor, shape (n_trials, n_channels, n_times)
    queries : Tensor of int64, shape (n_trials,)

    References
    ----------
    M. Andriushchenko et al., "Square Attack: a query-efficient black-box
    adversarial attack via random search", ECCV 2020; S. Chen et al., "QueryNet:
    attack by multi-identity surrogates", IEEE Trans. Cybern., 2023.
    """
    check_count("n_queries", n_queries)
    check_count("n_proposals", n_proposals)
    if not 0 < check_number("share", share) <= 1:
        fail(f"share={share}", fix="give a number in (0, 1]")
    options: Any = {"targeted": targeted, "scale": scale}
    goal = Goal(model, x, y, **options)
    options["scale"] = goal.scale
    others = [Goal(surrogate, x, y, **options) for surrogate in surrogates]
    d, queries = torch.zeros_like(x), torch.ones_like(y)
    with ExitStack() as stack, torch.no_grad():
        for each in (model, *surrogates):
            stack.enter_context(still(each))
        lead = goal.lead(d)
        for k in range(n_queries - 1):
            left = (lead <= 0).nonzero()[:, 0]
            if not len(left):
                break
            if k == 0:
                new = eps * _signs(d[left], generator)
            else:
                size = _share(share, k, n_queries)
                drawn = [
                    _squared(d[left], eps, size, generator)
                    for _ in range(n_proposals if others else 1)
                ]
                new = _elected(drawn, [other.at(left) for other in others])
            reached = goal.at(left).lead(new)
            queries[left] += 1
            # From the start on, which is taken as it is, every step is on the border.
            better = (reached > lead[left]) | (k == 0)
            kept = better.view(-1, *[1] * (x.ndim - 1))
            d[left] = torch.where(kept, new, d[left])
            lead[left] = torch.where(better, reached, lead[left])
    return Searched(goal.moved(d), queries)


def _share(first: float, k: int, n_queries: int) -> float:
    at = k * 10_000 / n_queries
    return float(first / 2 ** sum(at > limit for limit in _HALVED))


def _uniform(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)


def _signs(like: Tensor, generator: torch.Generator | None) -> Tensor:
    draw = _uniform(tuple(like.shape), like, generator)
    return torch.where(draw < 0.5, -1.0, 1.0).to(like)


def _squared(
    d: Tensor, eps: float, share: float, generator: torch.Generator | None
) -> Tensor:
    """Return displacements with other signs in a square of each trial."""
    n, n_channels, n_times = d.shape
    height = max(1, round(share**0.5 * n_channels))
    width = min(max(1, round(share * n_channels * n_times / height)), n_times)
    # Channels stand in no order: any of them, and a segment of time.
    rank = _uniform((n, n_channels), d, generator).argsort(1).argsort(1)
    start = (_uniform((n, 1), d, generator) * (n_times - width + 1)).long()
    time = torch.arange(n_times, device=d.device)
    when = (time >= start) & (time < start + width)
    inside = (rank < height)[:, :, None] & when[:, None, :]
    sign = _signs(d[:, :, :1], generator)
    new = torch.where(inside, eps * sign, d)
    # A square that changes nothing would be a query for nothing.
    same = (new == d).flatten(1).all(1)[:, None, None]
    return torch.where(same & inside, -d, new)


def _elected(drawn: list[Tensor], goals: list[Goal]) -> Tensor:
    """Return for each trial the proposal that surrogates together like best."""
    if not goals:
        return drawn[0]
    votes = torch.stack(
        [torch.stack([goal.lead(d) for goal in goals]).mean(0) for d in drawn]
    )
    best = votes.argmax(0)
    return torch.stack(drawn)[best, torch.arange(len(best), device=best.device)]


@dataclass(frozen=True)
class Square(Attack):
    """`square` of a decoder: any estimator with decision values or probabilities.

    Parameters
    ----------
    eps : float
        l_inf, standard deviations of each channel.
    targeted, n_queries, share, n_proposals
        As of `square`.
    surrogates : tuple
        Fitted decoders of the same classes, for the same trials.
    batch_size : int
        Trials at a time.
    random_state : int | None
    """

    n_queries: int = 1000
    share: float = 0.8
    surrogates: tuple[Any, ...] = ()
    n_proposals: int = 8

    needs_gradient: ClassVar[bool] = False

    def _run(
        self,
        view: View,
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        found = square(
            view,
            x,
            y,
            eps=self.eps,
            n_queries=self.n_queries,
            share=self.share,
            targeted=self.targeted,
            scale=scale,
            generator=generator,
            surrogates=[view.beside(other) for other in self.surrogates],
            n_proposals=self.n_proposals,
        )
        return {"x": found.x, "queries": found.queries}
