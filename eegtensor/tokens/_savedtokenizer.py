"""What is fitted in a tokenizer: its name, and files of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from sklearn.base import BaseEstimator

from eegtensor._check import check_option, fail
from eegtensor.tokens._kinds import KINDS, Codec
from eegtensor.tokens._makers import maker_of
from eegtensor.tokens._saving import read_digested, write_digested

_FORMAT = "eegtensor.tokenizer.1"
_LEARNED = ("ch_names_", "sfreq_", "bits_per_second_")


class SavedTokenizer(BaseEstimator):
    """Base of a tokenizer around a codec; `save` and `load` of it."""

    kind: str
    codec_: Codec
    ch_names_: tuple[str, ...]
    sfreq_: float
    bits_per_second_: float
    name_: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to one safetensors file."""
        write_digested(Path(path), self._state(), _FORMAT)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return a tokenizer that `save` wrote.

        Raises
        ------
        EEGTensorError
            If the file is missing, damaged, changed, or not a tokenizer in full.
        """
        names = {*cls().get_params(), "codec", *_LEARNED}
        state = read_digested(Path(path), names, _FORMAT, what="tokenizer")
        return cls._from_state(state)

    def _state(self) -> dict[str, Any]:
        """Return parameters and all that was fitted."""
        codec = self._fitted().state()
        own = {name: getattr(self, name) for name in _LEARNED}
        return {"codec": codec, **self.get_params(), **own}

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        kind = KINDS[check_option("kind", state["kind"], tuple(KINDS))]
        found = cls(**{name: state[name] for name in cls().get_params()})
        for name in _LEARNED:
            setattr(found, name, state[name])
        found.codec_ = kind.load(state["codec"])
        found.name_ = found._name()
        return found

    def _name(self) -> str:
        state = self._fitted().state()
        return maker_of(self.kind, self.bits_per_second_, self.ch_names_, state)

    def _fitted(self) -> Codec:
        if not hasattr(self, "codec_"):
            fail("The tokenizer is not fitted", fix="call fit(recordings) first")
        return self.codec_
