"""TokenClassifier: what it takes from files, and writes to them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from tokens._given import Given

from eegtensor._check import EEGTensorError
from eegtensor.tokens.classifier import TokenClassifier
from eegtensor.training.files import read_state, write_state


def test_tokens_and_paths_will_do(
    given: Given, probe: TokenClassifier, tmp_path: Path
) -> None:
    given.tokenizer.save(tmp_path / "t")
    given.model.save(tmp_path / "m")
    source = ~given.test
    here, y = given.trials[source], given.trials.y[source]
    clf = TokenClassifier(str(tmp_path / "t"), str(tmp_path / "m"))
    clf.fit(here, y, **given.part(source))
    part = given.part(source)
    expected = probe.predict_proba(here, **part)
    assert np.array_equal(clf.predict_proba(here, **part), expected)
    again = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(again.predict_proba(here, **part), expected)
    tokens = given.tokenizer.encode(here)
    direct = TokenClassifier(model=given.model, pool="mean").fit(tokens, y, **part)
    assert direct.predict(tokens, **part).shape == y.shape
    fewer = replace(tokens, ids=tokens.ids[:, :5], ch_names=tokens.ch_names[:5])
    assert direct.adapt(fewer).predict(fewer).shape == y.shape
    with pytest.raises(EEGTensorError, match="give tokens"):
        direct.predict(here)
    with pytest.raises(EEGTensorError, match="not the tokenizer"):
        TokenClassifier(model=given.model).fit(here, y)
    probe_of = TokenClassifier(model=given.model).fit(tokens, y, **part)
    with pytest.raises(EEGTensorError, match="5 channels"):
        probe_of.predict(fewer)


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_a_file_holds_the_whole_classifier(
    given: Given, tmp_path: Path, with_tokenizer: bool
) -> None:
    source, test = ~given.test, given.test
    part, away = given.part(source), given.part(test)
    X: Any = given.trials
    if not with_tokenizer:
        X = given.tokenizer.encode(X)
        X, Y = (replace(X, ids=X.ids[rows], bits=None) for rows in (source, test))
    else:
        X, Y = X[source], X[test]
    clf = TokenClassifier(
        given.tokenizer if with_tokenizer else None,
        given.model,
        mode="finetune",
        epochs=1,
        C=0.1,
    ).fit(X, given.trials.y[source], **part)
    before = clf.predict_proba(Y, **away)
    path = tmp_path / "c.safetensors"
    clf.save(path)
    loaded = TokenClassifier.load(path, device="cpu")
    assert np.array_equal(loaded.predict_proba(Y, **away), before)
    assert np.array_equal(loaded.predict_proba(X, **part), clf.predict_proba(X, **part))
    assert (loaded.tokenizer is None) != with_tokenizer
    assert (loaded.C, loaded.mode) == (0.1, "finetune")
    assert loaded.history_.rows == clf.history_.rows
    assert np.array_equal(loaded.classes_, clf.classes_)
    # What is adapted goes on where it was, and to a file again.
    clf.adapt(Y, **away)
    loaded.adapt(Y, **away)
    expected = clf.predict_proba(Y)
    assert np.array_equal(loaded.predict_proba(Y), expected)
    assert not np.array_equal(expected, before)
    loaded.save(path)
    again = TokenClassifier.load(path)
    assert again.last_target_ == clf.last_target_
    assert np.array_equal(again.predict_proba(Y), expected)


def test_files_of_classifiers_are_refused_unless_whole(
    given: Given, probe: TokenClassifier, tmp_path: Path
) -> None:
    path, kind = tmp_path / "c.safetensors", "eegtensor token classifier 1"
    with pytest.raises(NotFittedError):
        TokenClassifier().save(path)
    with pytest.raises(EEGTensorError, match="no token classifier at"):
        TokenClassifier.load(path)
    probe.save(path)
    # A clone of what was loaded can be fitted again.
    again = clone(TokenClassifier.load(path))
    source = ~given.test
    again.fit(given.trials[source], given.trials.y[source], **given.part(source))
    assert torch.equal(again.network_.head.weight, probe.network_.head.weight)
    content = read_state(path, kind, what="-", fix="-")
    state = content["state"]
    for change in ("head", "scale", "class"):
        changed = copy.deepcopy(state)
        if change == "head":
            changed["network"]["head.bias"][0] += 1e-6
        elif change == "scale":
            changed["scales"]["by_domain"][0][1][2] *= 1 + 1e-12
        else:
            changed["classes"] = changed["classes"][::-1]
        write_state(path, {**content, "state": changed}, kind)
        with pytest.raises(EEGTensorError, match="changed"):
            TokenClassifier.load(path)
    del state["model"]
    write_state(path, content, kind)
    with pytest.raises(EEGTensorError, match="model"):
        TokenClassifier.load(path)
    given.model.save(path)
    with pytest.raises(EEGTensorError, match="format"):
        TokenClassifier.load(path)


def test_a_path_that_was_given_stays_one(given: Given, tmp_path: Path) -> None:
    given.tokenizer.save(tmp_path / "t")
    source = ~given.test
    clf = TokenClassifier(tmp_path / "t", given.model)
    clf.fit(given.trials[source], given.trials.y[source], **given.part(source))
    clf.save(tmp_path / "c")
    (tmp_path / "t").unlink()
    loaded = TokenClassifier.load(tmp_path / "c")
    assert loaded.tokenizer == str(tmp_path / "t")
    assert loaded.predict(given.trials[source]).shape == (source.sum(),)
