"""A fitted network classifier as one file that holds no code."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.domains import Domain
from eegtensor.features._base import check_fitted
from eegtensor.training import History, as_device
from eegtensor.training.files import read_state, write_state

_FORMAT = "eegtensor classifier 1"


class SavedNetwork:
    """What is fitted in a classifier around a network; `save` and `load` of it."""

    classes_: NDArray
    prior_: NDArray
    # A module whose parts mypy cannot know.
    network_: Any
    history_: History
    adaptation_: dict[Domain, str]
    last_target_: Domain | None
    directions_: dict[str, dict[str, torch.Tensor]] | None
    coefficients_: NDArray | None
    device: str
    _size: tuple[int, int]

    @abstractmethod
    def _build(
        self,
        n_chans: int,
        n_outputs: int,
        n_times: int,
        domains: Sequence[Domain],
        generator: torch.Generator | None,
    ) -> Any:
        """Return an `SPDNetwork`, initialised from the generator."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted classifier to one file: safetensors and JSON, no pickle.

        Parameters
        ----------
        path : path-like
            The file is never seen half written.
        """
        check_fitted(self, "network_")  # type: ignore[arg-type]
        target = self.last_target_
        content = {
            "kind": type(self).__name__,
            "parameters": self.get_params(deep=False),  # type: ignore[attr-defined]
            "classes": self.classes_.tolist(),
            "classes_dtype": self.classes_.dtype.str,
            "size": list(self._size),
            "prior": self.prior_,
            "history": self.history_.rows,
            "adaptation": [
                [list(name), done] for name, done in self.adaptation_.items()
            ],
            "last_target": None if target is None else list(target),
            "network": dict(self.network_.state_dict()),
            "directions": self.directions_,
            "coefficients": self.coefficients_,
        }
        write_state(Path(path), content, _FORMAT)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | None = None) -> Self:
        """Return the classifier of a file that `save` wrote.

        Parameters
        ----------
        path : path-like
        device : str | None
            In place of the one it was trained with.

        Raises
        ------
        EEGTensorError
            If the file is missing, damaged or holds another kind of classifier.
        """
        content = read_state(
            Path(path),
            _FORMAT,
            what="classifier",
            fix="give the path of a file that save(path) wrote",
        )
        if content["kind"] != cls.__name__:
            fail(
                f"{path} holds a {content['kind']}, not a {cls.__name__}",
                fix=f"call {content['kind']}.load(...)",
            )
        parameters = content["parameters"]
        if device is not None:
            parameters["device"] = device
        loaded = cls(**parameters)
        n_chans, n_times = loaded._size = tuple(content["size"])
        loaded.classes_ = np.asarray(content["classes"], dtype=content["classes_dtype"])
        # The weights drawn here are replaced: others' random numbers stay as they are.
        with torch.random.fork_rng([]):
            network = loaded._build(n_chans, len(loaded.classes_), n_times, (), None)
        network.load_state_dict(content["network"])
        loaded.network_ = network.to(as_device(loaded.device)).eval()
        loaded.prior_ = content["prior"]
        loaded.history_ = History(content["history"])
        loaded.adaptation_ = {Domain(*n): done for n, done in content["adaptation"]}
        target = content["last_target"]
        loaded.last_target_ = None if target is None else Domain(*target)
        # Files of earlier versions have none.
        loaded.directions_ = content.get("directions")
        loaded.coefficients_ = content.get("coefficients")
        return loaded
