"""A fitted token classifier as one file: tensors and JSON with a digest, never code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from eegtensor.domains import Domain
from eegtensor.features._base import check_fitted
from eegtensor.models.tokenclassifier import TokenClassifierNetwork
from eegtensor.tokens._adapted import AdaptedTokens
from eegtensor.tokens._saving import read_digested, write_digested
from eegtensor.tokens._trials import Scales
from eegtensor.tokens.pretrain import MaskedTokenModel
from eegtensor.tokens.tokenizer import EEGTokenizer
from eegtensor.training import History, as_device

_FORMAT = "eegtensor token classifier 1"
_LEARNED = {"classes", "classes_dtype", "n_units", "history", "last_target"}
_PARTS = {"given", "tokenizer", "model", "network", "scales"}
_GIVEN = ("tokenizer", "model")


class SavedTokens(AdaptedTokens):
    """`save` and `load` of a classifier of tokens."""

    history_: History
    device: str
    dropout: float

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted classifier to one safetensors file.

        Its tokenizer and model go with it, no trial does.

        Parameters
        ----------
        path : path-like
            The file is never seen half written.
        """
        check_fitted(self, "network_")
        params = self.get_params(deep=False)
        # Paths that were given, or True for what was given as fitted.
        given = {name: params.pop(name) for name in _GIVEN}
        for name, value in given.items():
            if isinstance(value, (str, os.PathLike)):
                given[name] = os.fspath(value)
            else:
                given[name] = value is not None
        target, tokenizer = self.last_target_, self.tokenizer_
        state = {
            **params,
            "given": given,
            "classes": self.classes_.tolist(),
            "classes_dtype": self.classes_.dtype.str,
            "n_units": self._n_units,
            "history": self.history_.rows,
            "last_target": None if target is None else list(target),
            "tokenizer": None if tokenizer is None else tokenizer._state(),
            "model": self.model_._state(),
            "scales": _packed(self.scales_),
            "network": dict(self.network_.state_dict()),
        }
        write_digested(Path(path), state, _FORMAT)

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
            If the file is missing, damaged, changed, or not a classifier in full.
        """
        params = set(cls().get_params(deep=False)) - set(_GIVEN)
        names = params | _LEARNED | _PARTS
        state = read_digested(Path(path), names, _FORMAT, what="token classifier")
        found = cls(**{name: state[name] for name in params})
        if device is not None:
            found.device = device
        tokenizer = state["tokenizer"]
        if tokenizer is not None:
            tokenizer = EEGTokenizer._from_state(tokenizer)
        model = MaskedTokenModel._from_state(state["model"], found.device)
        found.tokenizer_, found.model_ = tokenizer, model
        for name in _GIVEN:
            value = state["given"][name]
            if isinstance(value, bool):
                value = getattr(found, f"{name}_") if value else None
            setattr(found, name, value)
        found.classes_ = np.asarray(state["classes"], dtype=state["classes_dtype"])
        found._n_units = state["n_units"]
        found.scales_ = _unpacked(state["scales"])
        found.history_ = History(state["history"])
        target = state["last_target"]
        found.last_target_ = None if target is None else Domain(*target)
        # Weights drawn here are replaced: others' random numbers stay as they are.
        with torch.random.fork_rng([]):
            network = TokenClassifierNetwork(
                model.network(dropout=found.dropout),
                len(found.classes_),
                found._n_units,
                pool=found.pool,
            )
        network.load_state_dict(state["network"])
        found.network_ = network.to(as_device(found.device)).eval()
        return found


def _packed(scales: Scales | None) -> dict[str, Any] | None:
    if scales is None:
        return None
    rows: Sequence[Any] = [[list(k), v] for k, v in scales.by_domain.items()]
    return {"by_domain": rows, "pooled": scales.pooled}


def _unpacked(state: dict[str, Any] | None) -> Scales | None:
    if state is None:
        return None
    rows = {Domain(*name): scale for name, scale in state["by_domain"]}
    return Scales(rows, state["pooled"])
