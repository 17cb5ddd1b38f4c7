"""Tokens know which tokenizer made them, and others refuse them."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tokens import (
    EEGTokenizer,
    MaskedTokenModel,
    TokenClassifier,
    join,
    load_tokens,
    save_tokens,
)
from eegtensor.training.files import read_state, write_state
from tests.tokens.test_tokenizer import NAMES, SFREQ, eeg

OPTIONS: dict[str, dict[str, Any]] = {
    "band-rvq": {"bits_per_second": 32, "n_states": 4},
    "learned": {"bits_per_second": 60},
    "neurorvq": {"n_steps": 2, "n_codes": 16},
    "labram": {"n_steps": 2, "n_codes": 16},
}


@functools.cache
def fitted(kind: str, seed: int = 0) -> EEGTokenizer:
    made = EEGTokenizer(kind, random_state=seed, **OPTIONS[kind])
    return made.fit(eeg(0, 10), sfreq=SFREQ, ch_names=NAMES)


@pytest.fixture(scope="module", params=list(OPTIONS))
def two(request: pytest.FixtureRequest) -> tuple[EEGTokenizer, EEGTokenizer]:
    torch.set_num_threads(1)
    return fitted(request.param), fitted(request.param, 1)


def test_one_that_was_loaded_is_the_same_and_others_are_not(
    two: tuple[EEGTokenizer, EEGTokenizer], tmp_path: Path
) -> None:
    mine, other = two
    x = eeg(9, 3)
    tokens = mine.encode(x, ch_names=NAMES)
    assert tokens.made_by == mine.name_
    assert mine.name_.startswith(f"{mine.kind} {mine.bits_per_second_:g} bit/s ")
    mine.save(tmp_path / "t")
    same = [EEGTokenizer.load(tmp_path / "t"), copy.deepcopy(mine)]
    same.append(pickle.loads(pickle.dumps(mine)))
    for one in same:
        assert one.name_ == mine.name_
        assert (one.decode(tokens) == mine.decode(tokens)).all()
    assert other.name_ != mine.name_
    with pytest.raises(EEGTensorError, match="made by") as error:
        other.decode(tokens)
    assert mine.name_ in str(error.value)
    assert other.name_ in str(error.value)
    # Whoever does not know may try.
    assert other.decode(replace(tokens, made_by=None)).shape == x.shape


def test_a_name_is_of_the_content() -> None:
    first = fitted("band-rvq")
    assert fitted.__wrapped__("band-rvq").name_ == first.name_
    changed = copy.deepcopy(first)
    changed.codec_.bands.books[3][0, 0, 0] += 1e-12
    assert changed._name() != first.name_
    # Of spatial tokenizers, the channels that are mixed are part of it.
    mixed = EEGTokenizer(bits_per_second=12, spatial=True, n_states=4)
    names = [
        mixed.fit(eeg(0, 10), sfreq=SFREQ, ch_names=order).name_
        for order in (NAMES, NAMES[::-1])
    ]
    assert names[0] != names[1]


def test_names_travel_in_files_and_old_files_have_none(tmp_path: Path) -> None:
    mine, path = fitted("band-rvq"), tmp_path / "tokens"
    tokens = mine.encode(eeg(9, 3))
    save_tokens(tokens, path)
    assert load_tokens(path).made_by == mine.name_
    content = read_state(path, "eegtensor.tokens.1", what="-", fix="-")
    from eegtensor.tokens._saving import digest

    del content["state"]["made_by"]
    content["digest"] = digest(content["state"])
    write_state(path, content, "eegtensor.tokens.1")
    old = load_tokens(path)
    assert old.made_by is None
    assert (mine.decode(old) == mine.decode(tokens)).all()
    del content["state"]["scale"]
    write_state(path, content, "eegtensor.tokens.1")
    with pytest.raises(EEGTensorError, match="scale"):
        load_tokens(path)


def test_names_travel_in_bytes() -> None:
    mine, other = fitted("learned"), fitted("learned", 1)
    tokens = mine.encode(eeg(9, 3))
    data = mine.compress(tokens)
    assert mine.decompress(data).made_by == mine.name_
    for call in (lambda: other.decompress(data), lambda: other.compress(tokens)):
        with pytest.raises(EEGTensorError, match="made by"):
            call()
    # Bytes of before names were written.
    size = struct.unpack("<I", data[5:9])[0]
    head = json.loads(data[9 : 9 + size])
    del head["made_by"]
    text = json.dumps(head).encode()
    old = mine.decompress(
        data[:5] + struct.pack("<I", len(text)) + text + data[9 + size :]
    )
    assert old.made_by is None
    assert (old.ids == tokens.ids).all()


def test_streams_and_joins_keep_the_name() -> None:
    mine, other = fitted("band-rvq"), fitted("band-rvq", 1)
    parts = list(mine.stream([eeg(9, 3)], scale=1e-5))
    assert join(parts).made_by == mine.name_
    with pytest.raises(EEGTensorError, match="does not follow"):
        join([parts[0], *other.stream([eeg(9, 1)], scale=1e-5)])


def test_models_read_tokens_of_their_tokenizer_alone(tmp_path: Path) -> None:
    mine, other = fitted("band-rvq"), fitted("band-rvq", 1)
    tokens, others = (t.encode(eeg(9, 16), ch_names=NAMES) for t in (mine, other))
    assert (tokens.alphabet == others.alphabet).all()
    options: dict[str, Any] = {"width": 8, "n_heads": 2, "depth": 1, "epochs": 1}
    options |= {"n_frames": 2, "validation_fraction": 0.0}
    model = MaskedTokenModel(**options).fit(tokens, tokenizer=mine)
    assert model.made_by_ == mine.name_
    model.save(tmp_path / "m")
    for one in (model, MaskedTokenModel.load(tmp_path / "m")):
        with pytest.raises(EEGTensorError, match="made by"):
            one.transform(others)
        assert (one.transform(replace(others, made_by=None))).shape == (1, 8)
    for many, tokenizer in (([tokens, others], None), ([others], mine)):
        with pytest.raises(EEGTensorError, match="made by"):
            MaskedTokenModel(**options).fit(many, tokenizer=tokenizer)
    # One that is not told learns it of those that bear it.
    nameless = replace(tokens, made_by=None)
    assert MaskedTokenModel(**options).fit([nameless, tokens]).made_by_ == mine.name_
    with pytest.raises(EEGTensorError, match="made by"):
        TokenClassifier(other, model).fit(
            eeg(9, 16).reshape(4, 8, 400).swapaxes(0, 1), list("abababab")
        )
    content = read_state(tmp_path / "m", "eegtensor masked tokens 1", what="-", fix="-")
    from eegtensor.tokens._saving import digest

    del content["state"]["made_by_"]
    content["digest"] = digest(content["state"])
    write_state(tmp_path / "m", content, "eegtensor masked tokens 1")
    old = MaskedTokenModel.load(tmp_path / "m")
    assert old.made_by_ is None
    assert (old.transform(tokens) == model.transform(tokens)).all()
