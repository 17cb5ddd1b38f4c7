"""What a model of tokens is made of: a network, its alphabet, a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.features._base import check_fitted
from eegtensor.models.maskedtokens import MaskedTokenNetwork
from eegtensor.models.tokenclassifier import POOLS, pool_states
from eegtensor.tokens import _scores
from eegtensor.tokens._codevectors import code_vectors
from eegtensor.tokens._objective import MaskedScores
from eegtensor.tokens._positions import Places, places_of
from eegtensor.tokens._saving import read_digested, write_digested
from eegtensor.tokens._windows import as_sequences, check_alphabet, joined, windows
from eegtensor.tokens.tokens import Tokens
from eegtensor.training import History, as_device, device_of

_FORMAT = "eegtensor masked tokens 1"
_LEARNED = {
    "alphabet_",
    "made_by_",
    "n_code_features_",
    "coordinates_",
    "shares_",
    "history_",
    "scores_",
}


def as_list(tokens: Tokens | Sequence[Tokens]) -> list[Tokens]:
    """Return tokens of recordings as a list of at least one."""
    many = [tokens] if isinstance(tokens, Tokens) else list(tokens)
    if not many:
        fail("there are no tokens", fix="give at least one recording's")
    other = [type(item).__name__ for item in many if not isinstance(item, Tokens)]
    if other:
        fail(f"a {other[0]} is no Tokens", fix="give what encode() returned")
    return many


class TokenModel(BaseEstimator):
    """Base of estimators that hold a network over tokens.

    Its parameters are those that the methods here read.
    """

    mask: str
    mask_ratio: float
    width: int
    depth: int
    n_heads: int
    n_frames: int
    dropout: float
    units: str
    precision: str
    device: str
    # A module whose parts mypy cannot know.
    network_: Any
    alphabet_: NDArray
    made_by_: str | None
    coordinates_: dict[str, list[float]] | None
    history_: History
    scores_: MaskedScores | None

    def start(
        self,
        tokens: Tokens,
        *,
        tokenizer: Any = None,
        random_state: int | None = None,
    ) -> Self:
        """Become a model of random weights for tokens as these, without training.

        Parameters
        ----------
        tokens : Tokens
        tokenizer : EEGTokenizer | None
            See `fit`.
        random_state : int | None
        """
        self._know([tokens], tokenizer)
        self.coordinates_ = None
        self.history_, self.scores_ = History(), None
        x = as_sequences(self.windows(tokens))
        self._begin(x, tokenizer, random_state)
        return self

    def _know(self, many: Sequence[Tokens], tokenizer: Any) -> None:
        """Remember which tokenizer the tokens are of."""
        self.alphabet_ = np.asarray(many[0].alphabet)
        # Its name, or that of the first tokens that bear one: others have to agree.
        names = [getattr(tokenizer, "name_", None), *(t.made_by for t in many)]
        self.made_by_ = next((name for name in names if name is not None), None)

    def _begin(self, x: dict[str, Tensor], tokenizer: Any, seed: int | None) -> None:
        """Set a network that knows the codes and how often each is used."""
        rates, self.shares_, seen = _scores.usage(
            x["ids"], x["present"], self.alphabet_
        )
        vectors = None if tokenizer is None else code_vectors(tokenizer)
        # That of an earlier fit may be of another tokenizer.
        self.__dict__.pop("network_", None)
        self.n_code_features_ = None if vectors is None else vectors.shape[-1]
        network = self.network(random_state=seed)
        network.start_at(rates, self.shares_, vectors, seen=seen)
        self.network_ = network.to(as_device(self.device)).eval()

    def network(
        self, *, random_state: int | None = None, dropout: float | None = None
    ) -> MaskedTokenNetwork:
        """Return a network of this size with random weights.

        Codes stand in it for what they do in the tokenizer, where that is known.

        Parameters
        ----------
        random_state : int | None
        dropout : float | None
            In place of the model's.
        """
        # Layers of torch draw weights of their own before ours replace them.
        with torch.random.fork_rng([]):
            network = MaskedTokenNetwork(
                self.alphabet_.tolist(),
                n_code_features=self.n_code_features_,
                width=self.width,
                depth=self.depth,
                n_heads=self.n_heads,
                dropout=self.dropout if dropout is None else dropout,
                precision=self.precision,
                random_state=random_state,
            )
        if self.n_code_features_ is not None and hasattr(self, "network_"):
            # What codes stand for is the tokenizer's, not learned.
            with torch.no_grad():
                network.table.copy_(self.network_.table)
        return network

    def windows(self, tokens: Tokens) -> dict[str, Tensor]:
        """Return what the network takes of tokens, trial by trial.

        Parameters
        ----------
        tokens : Tokens

        Returns
        -------
        x : dict of Tensor
            ``ids``, (n_trials, n_windows, n_units, n_frames, n_slots), ``present``,
            ``places`` and ``index``.
        """
        return windows(tokens, self._places(tokens), self.n_frames)

    def _places(self, tokens: Tokens) -> Places:
        check_alphabet(tokens, self.alphabet_, self.made_by_)
        return places_of(
            tokens.ch_names,
            np.asarray(tokens.ids).shape[-3],
            units=self.units,
            coordinates=self.coordinates_,
        )

    def transform(
        self, tokens: Tokens, *, pool: str = "mean", batch_size: int = 64
    ) -> NDArray:
        """Return embeddings of trials: means of the network's states.

        Parameters
        ----------
        tokens : Tokens
        pool : "mean" | "units"
            Over all units and frames, or one mean for each unit.
        batch_size : int
            Trials at a time.

        Returns
        -------
        features : ndarray, shape (n_trials, width) or (n_trials, n_units * width)
        """
        check_fitted(self, "network_")
        check_option("pool", pool, POOLS)
        x, device = self.windows(tokens), device_of(self.network_)
        found = []
        with torch.no_grad():
            for rows in torch.arange(len(x["ids"])).split(batch_size):
                part = {k: v[rows].to(device) for k, v in x.items()}
                found.append(pool_states(self.network_, part, pool).cpu())
        return torch.cat(found).numpy()

    def evaluate(
        self,
        tokens: Tokens | Sequence[Tokens],
        *,
        mask: str | None = None,
        mask_ratio: float | None = None,
        random_state: int = 0,
    ) -> MaskedScores:
        """Return how well masked tokens are told, beside the shares of codes alone.

        Parameters
        ----------
        tokens : Tokens or list of Tokens
            That were not trained on.
        mask, mask_ratio : str, float | None
            As in training by default; "random" in place of "hard".
        random_state : int
            Of the mask.
        """
        check_fitted(self, "network_")
        many = as_list(tokens)
        x = joined([as_sequences(self.windows(item)) for item in many])
        kind = self.mask if mask is None else mask
        kind = "random" if kind == "hard" else kind
        ratio = self.mask_ratio if mask_ratio is None else mask_ratio
        batch = _scores.masked_batch(x, kind, ratio, random_state)
        return _scores.evaluate(self.network_, batch, self.shares_)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to one safetensors file, without any token."""
        write_digested(Path(path), self._state(), _FORMAT)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | None = None) -> Self:
        """Return a model that `save` wrote.

        Parameters
        ----------
        path : path-like
        device : str | None
            In place of the one it was trained with.

        Raises
        ------
        EEGTensorError
            If the file is damaged, changed, or not a model in full.
        """
        names = {*cls().get_params(), *_LEARNED, "network"}
        state = read_digested(
            Path(path), names, _FORMAT, what="masked token model", later=["made_by_"]
        )
        return cls._from_state(state, device)

    def _state(self) -> dict[str, Any]:
        """Return parameters and all that was fitted."""
        check_fitted(self, "network_")
        params = self.get_params()
        if params["checkpoint"] is not None:
            params["checkpoint"] = os.fspath(params["checkpoint"])
        return {
            **params,
            "alphabet_": self.alphabet_,
            "made_by_": self.made_by_,
            "n_code_features_": self.n_code_features_,
            "coordinates_": self.coordinates_,
            "shares_": self.shares_,
            "history_": self.history_.rows,
            "scores_": None if self.scores_ is None else tuple(self.scores_),
            "network": dict(self.network_.state_dict()),
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any], device: str | None) -> Self:
        found = cls(**{name: state[name] for name in cls().get_params()})
        if device is not None:
            found.device = device
        for name in _LEARNED:
            setattr(found, name, state[name])
        found.history_ = History(state["history_"])
        scores = state["scores_"]
        found.scores_ = None if scores is None else MaskedScores(*scores)
        network = found.network()
        network.load_state_dict(state["network"])
        found.network_ = network.to(as_device(found.device)).eval()
        return found
