"""MEHL-Soup: one network of many, by coefficients that may be negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, check_option
from eegtensor.training.averagers._learned import LearnedAverage
from eegtensor.training.batch import Batch
from eegtensor.training.space import ParamSpace, Points
from eegtensor.training.subspace import Frame, stack

if TYPE_CHECKING:
    from eegtensor.training.protocols import State


class MEHLSoup(LearnedAverage):
    """Memory-efficient hyperplane learned soup, and its layerwise form "+".

    Weights ``centre + sum_i a_i (W_i - centre)``, without a bound on a: the
    coefficients 1 - sum(a) and a_i of centre and models always add up to 1.
    Models come in batches; each batch is centred at the soup so far (the first at
    its mean), its directions are brought to length 1, and AdamW learns a from 0
    by the loss. On manifolds directions are logarithms at the centre.

    As an averager its models are the weights along the run; `merge` also takes
    weights of other runs: of folds, subjects, sites or hyper-parameters.

    Parameters
    ----------
    by_layer : bool
        One coefficient for each model and block of layers ("+"), not each model.
    block_size : int
        With `by_layer`: leaves are joined, in order, until a block has more
        weights than this.
    epochs : int
        For each batch of models.
    lr : float
        Of AdamW; a cosine after a fifth of the steps of warm-up.
    batch_size : int
    models : int
        Of a batch.
    rounds : int
        How often all models are gone through.
    data : "auto" | "train" | "validation"
        On what to learn; "auto" is on validation trials where there are any.
    start : float
        Share of the epochs after which weights are kept.
    every : int | None
        Steps between two weights; None is once an epoch.
    limit : int
        The most weights that are kept.
    keep_best : bool
        End each batch of models with the epoch, or its start, of least loss.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    T. Li, W. Jiang, F. Liu, X. Huang and J. T. Kwok, "Learning scalable model soup
    on a single GPU: an efficient subspace training strategy", ECCV 2024.
    """

    def __init__(
        self,
        by_layer: bool = False,
        block_size: int = 0,
        epochs: int = 5,
        lr: float = 0.01,
        batch_size: int = 128,
        models: int = 18,
        rounds: int = 1,
        data: str = "auto",
        start: float = 0.5,
        every: int | None = None,
        limit: int = 128,
        keep_best: bool = True,
    ) -> None:
        super().__init__(data, start, every, limit)
        # Here, and not when the run is over and the average is learned.
        check_count("epochs", epochs)
        check_count("batch_size", batch_size)
        check_count("rounds", rounds)
        check_count("models", models, least=2)
        check_count("block_size", block_size, least=0)
        check_number("lr", lr, least=0.0)
        for name, value in (("by_layer", by_layer), ("keep_best", keep_best)):
            check_option(name, value, (True, False))
        self.by_layer, self.block_size = by_layer, block_size
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self.models, self.rounds, self.keep_best = models, rounds, keep_best
        self.coefficients: list[Tensor] = []

    def blocks(self, space: ParamSpace) -> list[list[str]]:
        """Return the names of the leaves that share coefficients."""
        names = list(space.leaves)
        if not self.by_layer:
            return [names]
        found, size = [[names[0]]], space.leaves[names[0]].numel()
        for name in names[1:]:
            if size > self.block_size:
                found.append([])
                size = 0
            found[-1].append(name)
            size += space.leaves[name].numel()
        return found

    def frame(
        self, states: Sequence[State], centre: Points, space: ParamSpace
    ) -> Frame:
        """Return unit directions from a centre to models, block by block."""
        stacked = stack([space.log(state, centre) for state in states])
        blocks, n = self.blocks(space), len(states)
        directions = {}
        for number, names in enumerate(blocks):
            total = torch.zeros(n, dtype=torch.float64)
            for name in names:
                adapter, p = space.adapters[name], centre[name]
                rows = [adapter.inner(p, u, u).double() for u in stacked[name]]
                total = total.to(rows[0].device) + torch.stack(rows)
            # A model that is the centre itself has no direction.
            factor = torch.where(total > 0, total.clamp_min(1e-300).rsqrt(), 0.0)
            for name in names:
                u = stacked[name]
                unit = u * factor.to(u).reshape(-1, *[1] * (u.ndim - 1))
                whole = u.new_zeros(len(blocks), *u.shape)
                whole[number] = unit
                directions[name] = whole.flatten(0, 1)
        return Frame(space, centre, directions)

    def _learn(self, states: Sequence[State], space: ParamSpace, data: Batch) -> Points:
        self.coefficients = []
        generator = torch.Generator().manual_seed(self._learner.seed)
        centre: Points | None = None
        for _ in range(self.rounds):
            order = torch.randperm(len(states), generator=generator)
            for part in order.split(self.models):
                chosen = [states[i] for i in part.tolist()]
                centre = space.mean(chosen) if centre is None else centre
                centre = self._soup(self.frame(chosen, centre, space), data)
        assert centre is not None
        return centre

    def _soup(self, frame: Frame, data: Batch) -> Points:
        start = torch.zeros(len(frame), dtype=torch.float64, device=data.device)
        a = self._learner.learn(
            frame,
            start,
            data,
            lambda params: torch.optim.AdamW(params, lr=self.lr, weight_decay=0.0),
            epochs=self.epochs,
            batch_size=self.batch_size,
            schedule=warm_cosine,
            keep_best=self.keep_best,
        )
        self.coefficients.append(a)
        with torch.no_grad():
            return frame.points(a)


def warm_cosine(step: int, count: int, warm: float = 0.2) -> float:
    """Return a factor that rises to 1 over a share of the steps, then falls to 0."""
    rising = int(warm * count)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / (count - rising)))
