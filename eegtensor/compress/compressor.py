"""What a way to compress a network is: before, during and after fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from eegtensor._check import fail
from eegtensor.training import Batch, CrossEntropy, ShuffleSampler, make_optimizer
from eegtensor.training import train as run


class Compressor:
    """Base of all ways to compress: copy and change, fine-tune, make it small.

    Attributes
    ----------
    tunes : bool
        Whether fine-tuning between `prepare` and `finish` is part of it.
    needs_data : bool
        Whether it needs trials, without labels.
    """

    tunes = True
    needs_data = False

    def prepare(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return a changed copy that can be fine-tuned; the model stays."""
        return copy.deepcopy(model)

    def objective(self, objective: Any) -> Any:
        """Return what fine-tuning minimises, given the task's loss."""
        return objective

    def callbacks(self) -> list[Any]:
        """Return what `train` has to call while it fine-tunes."""
        return []

    def finish(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the small network; the one given is used up."""
        return model.eval()

    def trials(self, data: Batch | None) -> Batch:
        """Return the trials that it needs.

        Raises
        ------
        EEGTensorError
            If there are none.
        """
        if data is None:
            fail(
                f"{type(self).__name__} needs trials, and has none",
                why="It looks at what enters the layers",
                fix="give data=Batch(x); labels are not needed",
            )
        return data


Tune = Callable[[nn.Module, Compressor], Any]


class FineTune:
    """Fine-tuning by `eegtensor.training.train`, the same for all compressors.

    Parameters
    ----------
    data : Batch
    objective : Objective | sequence of Objective
        Of the task.
    epochs, batch_size : int
    lr, weight_decay : float
    optimizer : str
    callbacks : sequence of Callback
    random_state : int
    **options
        Passed on to `train`, such as ``perturbation`` or ``validation``.
    """

    def __init__(
        self,
        data: Batch,
        objective: Any = None,
        *,
        epochs: int = 5,
        batch_size: int = 50,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        optimizer: str = "riemannian-adam",
        callbacks: Sequence[Any] = (),
        random_state: int = 0,
        **options: Any,
    ) -> None:
        self.data = data
        self.task = CrossEntropy() if objective is None else objective
        self.epochs, self.batch_size = epochs, batch_size
        self.lr, self.weight_decay, self.optimizer = lr, weight_decay, optimizer
        self.callbacks = callbacks
        self.random_state, self.options = random_state, options

    def __call__(self, model: nn.Module, compressor: Compressor) -> Any:
        """Train a prepared network; return the history of the run."""
        return run(
            model,
            self.data,
            objective=compressor.objective(self.task),
            optimizer=make_optimizer(
                model, self.optimizer, lr=self.lr, weight_decay=self.weight_decay
            ),
            sampler=ShuffleSampler(
                len(self.data),
                batch_size=self.batch_size,
                random_state=self.random_state,
            ),
            epochs=self.epochs,
            callbacks=[*self.callbacks, *compressor.callbacks()],
            random_state=self.random_state,
            **self.options,
        )


def terms_of(objective: Any) -> list[Any]:
    """Return the terms of what `train` takes as its objective."""
    return list(objective) if isinstance(objective, (list, tuple)) else [objective]
