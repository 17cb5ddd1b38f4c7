"""What every epoch measured."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eegtensor._check import fail, listing
from eegtensor.training.files import written_whole


class History(Sequence[Mapping[str, float]]):
    """One row an epoch: epoch, train_loss, valid_..., seconds.

    Parameters
    ----------
    rows : sequence of mapping
    """

    def __init__(self, rows: Sequence[Mapping[str, float]] = ()) -> None:
        self.rows = [dict(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Mapping[str, float]]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"History({len(self.rows)} epochs: {listing(self.names)})"

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order of appearance."""
        # Not every epoch need measure the same.
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def append(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch."""
        self.rows.append(dict(row))

    def column(self, name: str) -> list[float]:
        """Return one value an epoch, NaN for epochs that did not measure it.

        Raises
        ------
        EEGTensorError
            If no epoch measured it.
        """
        if name not in self.names:
            fail(
                f"No epoch measured {name!r}; measured are {listing(self.names)}",
                fix="choose one of these; names with 'valid_' need validation=...",
            )
        return [row.get(name, float("nan")) for row in self.rows]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows to a file, which is never seen half written."""
        with (
            written_whole(path) as scratch,
            scratch.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.names)
            writer.writeheader()
            writer.writerows(self.rows)
