"""TokenClassifier: domains, and adaptation to people."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score
from tokens._given import Given, domains_of

from eegtensor._check import EEGTensorError
from eegtensor.domains import Domain
from eegtensor.tokens._finetune import RefitStatistics
from eegtensor.tokens._signals import read_signals
from eegtensor.tokens._trials import learn_scales
from eegtensor.tokens.classifier import TokenClassifier
from eegtensor.training import Batch


def test_a_person_never_seen_is_told(given: Given, probe: TokenClassifier) -> None:
    test, y = given.test, given.trials.y[given.test]
    clf = copy.copy(probe).adapt(given.trials[test], **given.part(test))
    p = clf.predict_proba(given.trials[test], **given.part(test))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    found = clf.predict(given.trials[test])
    assert np.array_equal(found, clf.classes_[p.argmax(axis=1)])
    assert balanced_accuracy_score(y, found) > 0.65
    with pytest.raises(EEGTensorError, match="two axes"):
        clf.predict(given.trials.X[0])


def test_neither_unit_nor_labels_of_others_matter(
    given: Given, probe: TokenClassifier
) -> None:
    source, test = ~given.test, given.test
    X, y = given.trials.X, given.trials.y
    known = np.arange(source.sum()) % 3 > 0
    wrong = y[source].copy()
    wrong[~known] = "unknown"
    names = tuple(given.trials.info["ch_names"])
    clf = TokenClassifier(given.tokenizer, given.model, ch_names=names)
    a = clone(clf).fit(X[source], y[source], labelled=known, **given.part(source))
    b = clone(clf).fit(1e6 * X[source], wrong, labelled=known, **given.part(source))
    pa, pb = a.predict_proba(X[source]), b.predict_proba(1e6 * X[source])
    np.testing.assert_allclose(pa, pb, atol=1e-6)
    for one, factor in ((a, 1), (b, 1e6)):
        one.adapt(factor * X[test], **given.part(test))
    np.testing.assert_allclose(
        a.predict_proba(X[test]), b.predict_proba(1e6 * X[test]), atol=1e-6
    )
    # A person whose amplifier gains are others is adapted to.
    gains = np.linspace(0.2, 5, X.shape[1])[:, None]
    p = clone(clf).fit(X[source], y[source], labelled=known, **given.part(source))
    p.adapt(gains * X[test], **given.part(test))
    np.testing.assert_allclose(
        p.predict_proba(gains * X[test]), a.predict_proba(X[test]), atol=1e-6
    )


def test_adapt_moves_the_target_alone(given: Given, probe: TokenClassifier) -> None:
    source, test = ~given.test, given.test
    clf = copy.copy(probe)
    stranger: Any = {"subjects": "nobody", "sessions": "none"}
    pooled_by = probe.predict_proba(given.trials[source], **stranger)
    before = probe.predict_proba(given.trials[source], **given.part(source))
    pooled = probe.predict_proba(given.trials[test], **given.part(test))
    clf.adapt(given.trials[test])
    assert clf.last_target_ == Domain("", "target", "")
    assert probe.last_target_ is None
    again = clf.predict_proba(given.trials[source], **given.part(source))
    np.testing.assert_allclose(again, before, atol=1e-12)
    # What sources have in common is of the sources.
    again = clf.predict_proba(given.trials[source], **stranger)
    np.testing.assert_allclose(again, pooled_by, atol=1e-12)
    adapted = clf.predict_proba(given.trials[test])
    assert not np.allclose(adapted, pooled)
    # The same classifier before: copies are independent.
    unmoved = probe.predict_proba(given.trials[test], **given.part(test))
    assert np.array_equal(unmoved, pooled)


def test_domains_never_seen(given: Given, probe: TokenClassifier) -> None:
    test = given.test
    here, part = given.trials[test], given.part(test)
    alone = copy.copy(probe).set_params(unseen="adapt")
    adapted = copy.copy(probe).adapt(here, **part)
    np.testing.assert_allclose(
        alone.predict_proba(here, **part), adapted.predict_proba(here, **part)
    )
    # A few trials of a person known do not change what is known of that person.
    few = ~test & (np.cumsum(~test) <= 5)
    mixed = alone.predict_proba(given.trials[few | test], **given.part(few | test))
    known = probe.predict_proba(given.trials[few], **given.part(few))
    np.testing.assert_allclose(mixed[few[few | test]], known, atol=1e-6)
    expected = adapted.predict_proba(here, **part)
    np.testing.assert_allclose(mixed[test[few | test]], expected, atol=1e-6)
    assert len(alone.network_.norm.names) == 3
    with pytest.raises(EEGTensorError, match="No statistics"):
        copy.copy(probe).set_params(unseen="raise").predict(here, **part)
    with pytest.raises(EEGTensorError, match="at least 2 trials"):
        probe.adapt(here.X[:1])
    with pytest.raises(NotFittedError):
        TokenClassifier(given.tokenizer, given.model).predict(here)


def test_a_known_person_is_adapted_to_again(
    given: Given, probe: TokenClassifier
) -> None:
    mine = given.trials.metadata["subject"] == given.trials.metadata["subject"].iloc[0]
    rows = mine.to_numpy()
    X, part = given.trials.X[rows], given.part(rows)
    names = tuple(given.trials.info["ch_names"])
    clf = copy.copy(probe).set_params(ch_names=names)
    before = clf.predict_proba(X, **part)
    gains = np.linspace(0.2, 5, X.shape[1])[:, None]
    expected = copy.copy(clf).adapt(X, **part).predict_proba(X, **part)
    # Its scale and statistics are those of the new batch, in this copy alone.
    found = copy.copy(clf).adapt(gains * X, **part).predict_proba(gains * X, **part)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    copy.copy(clf).adapt(X[: len(X) // 3], subjects="x", sessions="y")
    few = {name: values[:5] for name, values in part.items()}
    copy.copy(clf).adapt(gains * X[::-1][:5], **few)
    assert np.array_equal(clf.predict_proba(X, **part), before)


def test_statistics_are_fitted_after_training(given: Given) -> None:
    source = ~given.test
    clf = TokenClassifier(given.tokenizer, given.model, mode="finetune", epochs=3)
    clf.fit(given.trials[source], given.trials.y[source], **given.part(source))
    x = clf._windows(given.trials[source], domains_of(given, source), clf.scales_)
    codes = clf.network_.norm.encode(domains_of(given, source))
    with torch.no_grad():
        y = clf.network_.features(x, codes)
    for k in range(3):
        # The mean of a domain is the bias that was learned, whatever it was before.
        mine = y[codes == k].mean(0)
        torch.testing.assert_close(mine, clf.network_.norm.bias, atol=1e-6, rtol=0)


def test_refits_see_trials_from_first_to_last() -> None:
    x = {"a": torch.arange(100)}
    domain = torch.tensor([0] * 90 + [1] * 10)
    kept = RefitStatistics(Batch(x, domain=domain)).data
    own = kept.x["a"][kept.domain == 0]
    assert len(own) == 16
    # Trials may lie in the order of classes.
    assert torch.equal((own >= 45).sum(), torch.tensor(8))
    assert torch.equal(kept.x["a"][kept.domain == 1], torch.arange(90, 100))


def test_refits_come_every_five_epochs() -> None:
    """And in evaluation mode: dropout would make statistics too wide."""
    seen = []

    class Model(torch.nn.Module):
        def fit_statistics(self, x: Any, domain: torch.Tensor) -> None:
            seen.append((epoch, self.training, len(domain)))

    refit = RefitStatistics(Batch({"a": torch.arange(40)}, domain=torch.zeros(40)))
    model = Model()
    for epoch in range(1, 12):
        model.train()
        refit.on_epoch_start(SimpleNamespace(epoch=epoch, model=model))  # type: ignore
    assert seen == [(5, False, 16), (10, False, 16)]


def test_batches_of_training_move_no_statistics(probe: TokenClassifier) -> None:
    network = copy.deepcopy(probe.network_).train()
    assert network.training
    assert not network.norm.training


def test_scales_of_unknown_people_are_geometric_means() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 3, 200)) * np.array([1.0, 2.0, 4.0])[:, None]
    X[:6] *= 100
    X[:6, 1] = X[:, 2] = 0
    names = [Domain("", "a", "")] * 6 + [Domain("", "b", "")] * 6
    scales = learn_scales(read_signals(X, 128.0, ("Cz", "C3", "C4")), names)
    a, b = (scales.by_domain[name] for name in (names[0], names[-1]))
    assert a[0] > 50 * b[0]
    # A channel that one person lacks is as the others have it; one of nobody is none.
    wanted = [np.sqrt(a[0] * b[0]), b[1], 0.0]
    np.testing.assert_allclose(scales.pooled, wanted, rtol=1e-12)


@pytest.mark.parametrize("mode, epochs", [("probe", 2), ("scratch", 1)])
def test_a_model_is_pre_trained_as_long_as_asked(
    given: Given, mode: str, epochs: int
) -> None:
    few = ~given.test & (np.arange(len(given.test)) % 2 == 0)
    clf = TokenClassifier(given.tokenizer, mode=mode, pretrain_epochs=2, epochs=1)
    clf.fit(given.trials[few], given.trials.y[few], **given.part(few))
    assert len(clf.model_.history_) == epochs
