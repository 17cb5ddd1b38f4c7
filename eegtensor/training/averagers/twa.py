"""TWA: the best weights among the mixtures of those along a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.averagers._learned import LearnedAverage
from eegtensor.training.batch import Batch
from eegtensor.training.space import ParamSpace, Points
from eegtensor.training.subspace import Frame, orthonormal_frame

if TYPE_CHECKING:
    from eegtensor.training.protocols import State


class TWA(LearnedAverage):
    """Trainable weight averaging.

    The weights along a run span a subspace with orthonormal directions P; in it,
    SGD goes on from their mean with gradients P' P g. Euclidean leaves enter as
    they are, leaves on manifolds by their logarithms at the mean, and the subspace
    is followed by retraction.

    Parameters
    ----------
    start : float
        Share of the epochs after which weights are kept.
    epochs : int
        Of learning the coefficients.
    lr : float
        Of SGD; falls to a tenth at 1/2 and again at 3/4 of the epochs.
    momentum : float
        Of SGD, in [0, 1).
    batch_size : int
    weight_decay : float
    data : "train" | "validation" | "auto"
        On what to learn: TWA-t, or TWA-v on the trials kept back for validation;
        "auto" takes these where there are any.
    every : int | None
        Steps between two weights; None is once an epoch.
    limit : int
        The most weights that are kept.
    keep_best : bool
        End with the epoch, or the mean, of least loss on the trials learned on.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    T. Li, Z. Huang, Y. Wu, Z. He, Q. Tao, X. Huang and C.-J. Lin, "Trainable weight
    averaging: efficient training by optimizing historical solutions", ICLR 2023.
    """

    def __init__(
        self,
        start: float = 0.5,
        epochs: int = 10,
        lr: float = 2.0,
        momentum: float = 0.9,
        batch_size: int = 128,
        weight_decay: float = 1e-5,
        data: str = "train",
        every: int | None = None,
        limit: int = 128,
        keep_best: bool = True,
    ) -> None:
        super().__init__(data, start, every, limit)
        # Here, and not when the run is over and the average is learned.
        check_count("epochs", epochs)
        check_count("batch_size", batch_size)
        check_number("lr", lr, least=0.0)
        check_number("weight_decay", weight_decay, least=0.0)
        check_option("keep_best", keep_best, (True, False))
        if not check_number("momentum", momentum, least=0.0) < 1:
            fail(f"momentum={momentum}", fix="give a share in [0, 1)")
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self.momentum, self.keep_best = momentum, keep_best
        self.weight_decay = weight_decay

    def frame(self, states: Sequence[State], space: ParamSpace) -> Frame:
        """Return the mean of weights, with the subspace that they span."""
        base = space.mean(states)
        tangents = [
            {
                n: u if a.name != "euclidean" else state[n].to(u)
                for (n, u), a in zip(
                    space.log(state, base).items(),
                    space.adapters.values(),
                    strict=True,
                )
            }
            for state in states
        ]
        return orthonormal_frame(space, base, tangents)

    def _learn(self, states: Sequence[State], space: ParamSpace, data: Batch) -> Points:
        frame = self.frame(states, space)

        def falling(step: int, count: int) -> float:
            epoch, e = step * self.epochs // count, self.epochs
            return 0.1 ** ((epoch >= int(0.5 * e)) + (epoch >= int(0.75 * e + 0.9)))

        start = torch.zeros(len(frame), dtype=torch.float64, device=data.device)
        a = self._learner.learn(
            frame,
            start,
            data,
            lambda params: torch.optim.SGD(params, lr=self.lr, momentum=self.momentum),
            epochs=self.epochs,
            batch_size=self.batch_size,
            schedule=falling,
            weight_decay=self.weight_decay,
            keep_best=self.keep_best,
        )
        with torch.no_grad():
            return frame.points(a)
