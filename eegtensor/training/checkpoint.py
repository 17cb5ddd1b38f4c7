"""A run's whole state in one file, from which it goes on as if never stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from eegtensor._check import fail, listing
from eegtensor.training.files import read_state, write_state
from eegtensor.training.history import History
from eegtensor.training.optimizers import load_optimizer

if TYPE_CHECKING:
    from eegtensor.training.protocols import TrainState

_FORMAT = "eegtensor training 1"


class Checkpoint:
    """Save a run after epochs, and go on from the file where there is one.

    The file is safetensors with JSON in its header: no pickle, nothing that
    could run. It is written beside and moved into place, so that a run killed
    at any time leaves a whole file. A run that was killed and goes on gives the
    same bits as one that was not: weights, statistics, optimizer and callbacks
    are in the file, and all random numbers of an epoch follow from the seed and
    the epoch.

    Parameters
    ----------
    path : path-like
    every : int
        Epochs between two files; the last epoch of a run is always saved.
    resume : bool
        Whether to go on from a file at `path`; otherwise it is overwritten.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, every: int = 1, resume: bool = True
    ) -> None:
        if every < 1:
            fail(f"every={every}", fix="give the epochs between two files, at least 1")
        self.path = Path(path)
        self.every = every
        self.resume = resume

    def save(self, state: TrainState) -> None:
        """Write the file, if one is due after this epoch."""
        last = state.stop or state.epoch >= state.n_epochs
        if state.epoch % self.every and not last:
            return
        content = {
            "seed": state.seed,
            "n_trials": state.n_trials,
            "epoch": state.epoch,
            "step": state.step,
            "stop": state.stop,
            "history": state.history.rows,
            "kinds": {name: type(p).__name__ for name, p in state.parts.items()},
            "parts": {name: p.state_dict() for name, p in state.parts.items()},
        }
        write_state(self.path, content, _FORMAT)

    def load(self, state: TrainState, *, any_seed: bool = False) -> bool:
        """Put a run where the file left it; return whether there was a file.

        Parameters
        ----------
        state : TrainState
        any_seed : bool
            Whether the run takes over the file's seed, else it must be the same.

        Raises
        ------
        EEGTensorError
            If the file is damaged, or is of a run with another seed, other
            data, another network or other parts.
        """
        if not self.resume or not self.path.exists():
            return False
        content = read_state(
            self.path, _FORMAT, what="checkpoint", fix="delete it to start anew"
        )
        # random_state=None draws a seed, in place of which the run takes that of the
        # file.
        seed = content["seed"] if any_seed else state.seed
        for name, here in (("seed", seed), ("n_trials", state.n_trials)):
            if content[name] != here:
                self._refuse(f"has {name} {content[name]}, this run {here}")
        kinds = {name: type(p).__name__ for name, p in state.parts.items()}
        if content["kinds"] != kinds:
            self._refuse(f"holds {_named(content['kinds'])}, this run {_named(kinds)}")
        for name, part in state.parts.items():
            saved = content["parts"][name]
            try:
                if isinstance(part, torch.optim.Optimizer):
                    load_optimizer(part, saved)
                else:
                    part.load_state_dict(saved)
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                self._refuse(f"does not fit the {name} of this run: {error}", error)
        state.seed = content["seed"]
        state.epoch, state.step = content["epoch"], content["step"]
        state.stop = content["stop"]
        # In place: callbacks may hold the history.
        state.history.rows[:] = History(content["history"]).rows
        return True

    def _refuse(self, what: str, cause: BaseException | None = None) -> None:
        fail(
            f"The checkpoint {self.path} {what}",
            why="A run goes on only as it began",
            fix="give another path, or Checkpoint(path, resume=False) to start anew",
            cause=cause,
        )


def _named(kinds: dict[str, str]) -> str:
    return listing(f"{name} ({kind})" for name, kind in kinds.items())
