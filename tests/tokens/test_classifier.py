"""TokenClassifier: probes, whole networks, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from tokens._given import Given, domains_of

from eegtensor._check import EEGTensorError
from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens._objective import MaskedScores
from eegtensor.tokens.classifier import TokenClassifier
from eegtensor.tokens.module import TokenNet
from eegtensor.tokens.pretrain import MaskedTokenModel
from eegtensor.training import Batch, History


@pytest.mark.parametrize("mode", ["finetune", "scratch"])
def test_whole_networks_are_trained(given: Given, mode: str) -> None:
    source = ~given.test
    clf = TokenClassifier(
        given.tokenizer, given.model, mode=mode, epochs=6, lr=2e-3, batch_size=16
    )
    before = [p.clone() for p in given.model.network_.parameters()]
    clf.fit(given.trials[source], given.trials.y[source], **given.part(source))
    losses = clf.history_.column("train_loss")
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    found = clf.predict(given.trials[source], **given.part(source))
    assert balanced_accuracy_score(given.trials.y[source], found) > 0.7
    # The model given is left as it was.
    for old, new in zip(before, given.model.network_.parameters(), strict=True):
        assert torch.equal(old, new)
    if mode == "scratch":
        start = clone(clf).set_params(epochs=1, lr=1e-12)
        start.fit(given.trials[source], given.trials.y[source], **given.part(source))
        weight = start.network_.encoder.place.weight
        assert not torch.allclose(weight, given.model.network_.place.weight, atol=1e-3)
        # What codes stand for is no knowledge of EEG: it comes with the tokenizer.
        assert torch.equal(start.network_.encoder.table, given.model.network_.table)


def test_a_probe_is_a_logistic_regression_on_normalised_means(given: Given) -> None:
    source = ~given.test
    here, y, part = given.trials[source], given.trials.y[source], given.part(source)
    rng = np.random.default_rng(0)
    # One class is rare, and most trials have no label.
    known = rng.random(len(y)) < np.where(y == np.unique(y)[0], 0.2, 0.6)
    clf = TokenClassifier(given.tokenizer, given.model, C=0.1)
    clf.fit(here, y, labelled=known, **part)
    names = domains_of(given, source)
    codes = clf.network_.norm.encode(names)
    with torch.no_grad():
        x = clf._windows(here, names, clf.scales_)
        features = clf.network_.features(x, codes).double().numpy()
    expected = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    expected.fit(features[known], y[known])
    np.testing.assert_allclose(
        clf.predict_proba(here, **part), expected.predict_proba(features), atol=1e-4
    )
    # What trials without label tell of their domain is used.
    for k in codes.unique():
        mine = features[(codes == k).numpy()]
        np.testing.assert_allclose(mine.mean(axis=0), 0, atol=1e-5)
    wide = TokenClassifier(given.tokenizer, given.model, C=1e3)
    wide.fit(here, y, labelled=known, **part)
    assert wide.network_.head.weight.norm() > 2 * clf.network_.head.weight.norm()


def test_what_was_pre_trained_is_read(given: Given, probe: TokenClassifier) -> None:
    mine = probe.network_.encoder.state_dict()
    for name, weight in given.model.network_.state_dict().items():
        assert torch.equal(mine[name], weight), name


def test_rare_classes_weigh_as_much(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []

    def note(network: Any, data: Batch, **_: Any) -> Any:
        seen.append(data)
        return History()

    monkeypatch.setattr("eegtensor.tokens._finetune.train", note)
    here = given.trials[:20]
    y = np.repeat(["a", "b"], [5, 15])
    clf = TokenClassifier(given.tokenizer, given.model, mode="finetune", C=0.1)
    clf.fit(here, y)
    weight, codes = seen[0].weight, seen[0].y
    assert weight is not None
    assert codes is not None
    total = [float(weight[codes == k].sum()) for k in (0, 1)]
    assert total == pytest.approx([10.0, 10.0])


def test_what_is_not_fitted_or_no_trials_is_refused(given: Given) -> None:
    X, y = given.trials, given.trials.y
    with pytest.raises(NotFittedError):
        TokenClassifier(EEGTokenizer()).fit(X, y)
    with pytest.raises(NotFittedError):
        TokenClassifier(given.tokenizer, MaskedTokenModel()).fit(X, y)
    size: dict[str, Any] = {"n_chans": 8, "n_outputs": 2, "n_times": 256}
    with pytest.raises(NotFittedError):
        TokenNet(**size, tokenizer=EEGTokenizer())
    one = given.tokenizer.encode(X.X[0], ch_names=X.info["ch_names"])
    clf = TokenClassifier(model=given.model)
    with pytest.raises(EEGTensorError, match="one recording"):
        clf.fit(one, ["a", "b"] * 4)
    for call in (given.model.evaluate, MaskedTokenModel().fit):
        with pytest.raises(EEGTensorError, match="no Tokens"):
            call([one.ids])  # type: ignore[list-item]
        with pytest.raises(EEGTensorError, match="no tokens"):
            call([])


@pytest.mark.slow
def test_nothing_needs_to_be_given(given: Given) -> None:
    here = given.trials[:20]
    clf = TokenClassifier(pretrain_epochs=1).fit(here, given.trials.y[:20])
    assert clf.predict(here).shape == (20,)
    assert clf.tokenizer_.codec_.n_states == 64


def test_what_is_no_mode_is_refused(given: Given) -> None:
    X, y = given.trials.X, given.trials.y
    with pytest.raises(EEGTensorError, match="mode="):
        TokenClassifier(given.tokenizer, given.model, mode="tune").fit(X, y)
    with pytest.raises(EEGTensorError, match="labelled"):
        TokenClassifier(given.tokenizer, given.model).fit(X, y, labelled=[True])


def test_a_model_has_its_dropout_and_the_best_epochs_weights(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = given.tokenizer.encode(given.trials[:16])
    n_seen = iter(range(9))

    def worse_and_worse(*_: Any) -> MaskedScores:
        return MaskedScores(float(next(n_seen)), 0.0, 0.0, 0.0, 1)

    monkeypatch.setattr("eegtensor.tokens._scores.evaluate", worse_and_worse)
    model = MaskedTokenModel(width=16, depth=1, n_frames=2, dropout=0.3, batch_size=8)
    one, three = (
        clone(model).set_params(epochs=n).fit(tokens, tokenizer=given.tokenizer)
        for n in (1, 3)
    )
    assert three.network_.blocks[0].drop.p == 0.3
    assert three.network(dropout=0.1).blocks[0].drop.p == 0.1
    assert len(three.history_.rows) == 3
    # The first epoch was the best one.
    for a, b in zip(
        one.network_.parameters(), three.network_.parameters(), strict=True
    ):
        assert torch.equal(a, b)
