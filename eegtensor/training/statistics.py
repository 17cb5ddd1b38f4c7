"""Running statistics: which passes may move them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

from torch import Tensor, nn

from eegtensor._check import check_option

Mode = Literal["commit", "transient", "eval"]
MODES = ("commit", "transient", "eval")
Statistics = dict[nn.Module, dict[str, Tensor | None]]


def copy_statistics(model: nn.Module) -> Statistics:
    """Return copies of every buffer of every module of a network.

    They are what `StatisticsGuard` takes as `start`.
    """
    # A buffer that two modules share stays shared.
    copies: dict[int, Tensor] = {}

    def copy(buffer: Tensor | None) -> Tensor | None:
        if buffer is None:
            return None
        if id(buffer) not in copies:
            copies[id(buffer)] = buffer.detach().clone()
        return copies[id(buffer)]

    return {
        module: {name: copy(buffer) for name, buffer in module._buffers.items()}
        for module in model.modules()
    }


class StatisticsGuard:
    """Decide what the passes inside do to a network's running statistics.

    Running statistics are the buffers, of torch's modules and of ours, and what
    modules with buffers note beside them. Inside ``"transient"`` and ``"eval"``
    the passes work on copies; afterwards, also after an exception, the buffers
    themselves are back: the same tensors with the same bits, which a gradient
    that still has to flow does not notice. Other attributes of these modules
    are put back to the values they had (not those of other modules, and not
    what is inside of a list or dict).

    Parameters
    ----------
    model : torch.nn.Module
    mode : "commit" | "transient" | "eval"
        "commit": passes move the statistics. "transient": they move copies,
        which are thrown away. "eval": modules with buffers are in evaluation
        mode as well, all others as they are.
    start : dict | None
        With "transient": statistics to start from, of `copy_statistics`, which
        are used up. The second pass of a step starts where the first one did:
        statistics with momentum would move twice otherwise.

    Examples
    --------
    >>> import torch
    >>> norm = torch.nn.BatchNorm1d(3)
    >>> with StatisticsGuard(norm, "transient"):
    ...     _ = norm(torch.ones(4, 3))
    >>> norm.running_mean
    tensor([0., 0., 0.])
    """

    def __init__(
        self,
        model: nn.Module,
        mode: Mode = "commit",
        *,
        start: Statistics | None = None,
    ) -> None:
        self.model = model
        self.mode = check_option("mode", mode, MODES)
        self._start = start
        self._kept: list[
            tuple[nn.Module, dict[str, Any], dict[str, Tensor | None]]
        ] = []

    def __enter__(self) -> StatisticsGuard:
        if self.mode == "commit":
            return self
        start = copy_statistics(self.model) if self._start is None else self._start
        for module, buffers in start.items():
            notes = vars(module) if buffers else {"training": module.training}
            self._kept.append((module, dict(notes), dict(module._buffers)))
            _install(module, buffers)
        if self.mode == "eval":
            try:
                self._evaluate()
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def _evaluate(self) -> None:
        for module, _, buffers in self._kept:
            if any(buffer is not None for buffer in buffers.values()):
                # Not the flag alone: some bring statistics up to date in train().
                module.train(False)
        for module, notes, buffers in self._kept:
            if all(buffer is None for buffer in buffers.values()):
                module.training = notes["training"]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for module, notes, buffers in self._kept:
            vars(module).update(notes)
            _install(module, buffers)
        self._kept.clear()


def _install(module: nn.Module, buffers: dict[str, Tensor | None]) -> None:
    # The table is one that torch may hold on to: its content changes, not itself.
    module._buffers.clear()
    module._buffers.update(buffers)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode inside, and each back as it was."""
    training = [(m, m.training) for model in models for m in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, flag in training:
            module.training = flag
