"""Things done beside training: progress, logs, schedules, early stopping."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from eegtensor._check import check_count, check_option, fail
from eegtensor._optional import need
from eegtensor.training.schedules import momentum_schedule

if TYPE_CHECKING:
    from eegtensor.training.protocols import TrainState


class BestWeights:
    """Put the network at the end back to its best epoch.

    Weights and running statistics come back, bit for bit. Among equals the
    first epoch counts; an epoch that measured NaN is never the best. Not for runs
    with an averager, which end with their average.

    Parameters
    ----------
    monitor : str
        Column of the history.
    mode : "min" | "max"
    """

    def __init__(self, monitor: str = "valid_loss", *, mode: str = "min") -> None:
        self.monitor = monitor
        self.mode = check_option("mode", mode, ("min", "max"))
        self.best = math.inf if mode == "min" else -math.inf
        self.best_epoch = 0
        self._weights: dict[str, Any] = {}

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run, whose best epoch is none of this one's.

        Raises
        ------
        EEGTensorError
            If the run has an averager.
        """
        if "averager" in state.parts:
            fail(
                f"A run cannot end with its average and with {type(self).__name__}",
                why="The best epoch would take the place of the average",
                fix="leave out one of the two",
            )
        if state.epoch == 0:
            self.best = math.inf if self.mode == "min" else -math.inf
            self.best_epoch, self._weights = 0, {}

    def on_epoch_end(self, state: TrainState) -> None:
        """Keep a copy of the network if this epoch is the best so far."""
        value = state.history.column(self.monitor)[-1]
        if self._is_better(value):
            self.best, self.best_epoch = value, state.epoch
            # Copies: training goes on in the tensors themselves.
            self._weights = {
                name: v.detach().clone() if isinstance(v, Tensor) else v
                for name, v in state.model.state_dict().items()
            }

    def on_train_end(self, state: TrainState) -> None:
        """Put the best epoch's copy back."""
        if self._weights:
            state.model.load_state_dict(self._weights)

    def _is_better(self, value: float) -> bool:
        # A comparison with NaN is false.
        return value < self.best if self.mode == "min" else value > self.best

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, its epoch and its copy."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._weights = dict(state["weights"])


class EarlyStopping(BestWeights):
    """Stop after `patience` epochs without a better one, and go back to the best.

    Parameters
    ----------
    monitor : str
        Column of the history.
    patience : int
    mode : "min" | "max"
    """

    def __init__(
        self, monitor: str = "valid_loss", *, patience: int = 10, mode: str = "min"
    ) -> None:
        super().__init__(monitor, mode=mode)
        self.patience = check_count("patience", patience)

    def on_epoch_end(self, state: TrainState) -> None:
        """Keep the best copy, and stop the run if it lies too far back."""
        super().on_epoch_end(state)
        if state.epoch - self.best_epoch >= self.patience:
            state.stop = True


class CSVLog:
    """Write the history to a file after every epoch.

    Parameters
    ----------
    path : path-like
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def on_epoch_end(self, state: TrainState) -> None:
        """Write all rows so far."""
        state.history.to_csv(self.path)


class TensorBoardLog:
    """Write the history for TensorBoard after every epoch.

    Needs the package tensorboard.

    Parameters
    ----------
    folder : path-like
        One folder a run; a run that goes on writes on.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        need("tensorboard", "writing logs for TensorBoard")
        self.folder = os.fspath(folder)
        self._writer: Any = None

    def on_train_start(self, state: TrainState) -> None:
        """Let go of the file of a run that was killed."""
        self.on_train_end(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Write the last row."""
        if self._writer is None:
            module = need("torch.utils.tensorboard", "writing logs for TensorBoard")
            self._writer = module.SummaryWriter(self.folder, purge_step=state.epoch)
        for name, value in state.history[-1].items():
            if name != "epoch":
                self._writer.add_scalar(name, value, state.epoch)
        # A killed run leaves what it had.
        self._writer.flush()

    def on_train_end(self, state: TrainState) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Progress:
    """Show a bar of epochs with their losses (tqdm).

    Parameters
    ----------
    description : str
    """

    def __init__(self, description: str = "training") -> None:
        self.description = description
        self._bar: Any = None

    def on_train_start(self, state: TrainState) -> None:
        """Open the bar at the epochs that a checkpoint brought."""
        tqdm = need("tqdm.auto", "showing progress").tqdm
        self._bar = tqdm(
            total=state.n_epochs, initial=state.epoch, desc=self.description
        )

    def on_epoch_end(self, state: TrainState) -> None:
        """Move the bar on."""
        shown = {k: v for k, v in state.history[-1].items() if "loss" in k}
        self._bar.set_postfix(shown)
        self._bar.update()

    def on_train_end(self, state: TrainState) -> None:
        """Close the bar."""
        self._bar.close()


class MomentumSchedule:
    """Set the momenta of running statistics at the start of each epoch.

    Every module of the network that has ``set_momentum(eta, eta_test)`` is
    called with `momentum_schedule` of the epoch.

    Parameters
    ----------
    batch_size, domain_batch_size : float
        Trials of a batch, and of a domain in it.
    tau0 : float
    compat : "tsmnet2022" | None
        As in `momentum_schedule`.
    """

    def __init__(
        self,
        *,
        batch_size: float = 50,
        domain_batch_size: float = 10,
        tau0: float = 0.85,
        compat: str | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "batch_size": batch_size,
            "domain_batch_size": domain_batch_size,
            "tau0": tau0,
            "compat": compat,
        }
        # Options that make no sense are refused here, not when training starts.
        momentum_schedule(1, 1, **self._options)

    def on_epoch_start(self, state: TrainState) -> None:
        """Set the momenta of this epoch."""
        momenta = momentum_schedule(state.epoch, state.n_epochs, **self._options)
        for module in state.model.modules():
            set_momentum: Any = getattr(module, "set_momentum", None)
            if set_momentum is not None:
                set_momentum(*momenta)
