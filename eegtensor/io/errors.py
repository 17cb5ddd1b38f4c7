"""`RecordingError`: which recording, what is wrong with it, what to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from eegtensor._check import EEGTensorError

if TYPE_CHECKING:
    from eegtensor.trials import Trials

_SHOWN = 6


class Fault(NamedTuple):
    """One recording that cannot be used as it is."""

    path: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        """Return the fault as one line."""
        text = f"{self.path}: {self.fault.rstrip('.')}."
        if self.remedy:
            text += f" What to do: {self.remedy.rstrip('.')}."
        return text


class RecordingError(EEGTensorError):
    """One or more recordings cannot be used.

    Parameters
    ----------
    path : path-like
        The recording.
    fault, remedy : str
        What is wrong with it, and what to do.
    faults : sequence of Fault | None
        All faulty recordings, where there are several.
    trials : Trials | None
        Trials of the recordings that are good, so that no work is lost.

    Attributes
    ----------
    path, fault, remedy : str
        Of the first faulty recording.
    faults : list of Fault
    trials : Trials | None
    """

    def __init__(
        self,
        path: str | os.PathLike,
        fault: str,
        remedy: str = "",
        *,
        faults: Sequence[Fault] | None = None,
        trials: Trials | None = None,
    ) -> None:
        self.path, self.fault, self.remedy = os.fspath(path), fault, remedy
        # The arguments themselves, so that the error can be pickled.
        super().__init__(self.path, fault, remedy)
        self.faults = list(faults or [Fault(self.path, fault, remedy)])
        self.trials = trials

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return str(self.faults[0])
        kept = "" if self.trials is None else " The others are in the error's .trials."
        return (
            f"{len(self.faults)} recordings cannot be used.{kept}\n"
            f"{summarise(self.faults)}"
        )


def summarise(faults: Sequence[Fault]) -> str:
    """Return faults line by line; each remedy once, after the files it is for."""
    groups: dict[str, list[Fault]] = {}
    for fault in faults:
        groups.setdefault(fault.remedy, []).append(fault)
    lines = []
    for remedy, group in groups.items():
        lines += [f"  {f.path}: {f.fault.rstrip('.')}." for f in group[:_SHOWN]]
        if len(group) > _SHOWN:
            lines.append(f"  and {len(group) - _SHOWN} more with the same remedy.")
        if remedy:
            lines.append(f"  What to do: {remedy.rstrip('.')}.")
    return "\n".join(lines)
