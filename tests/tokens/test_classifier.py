"""TokenClassifier: domains, adaptation, labels that are not there, and the module."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score

from eegtensor import Trials, simulate_trials
from eegtensor._check import EEGTensorError
from eegtensor.domains import Domain
from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens._codevectors import code_vectors
from eegtensor.tokens.bandrvq import decode_bands, expected, widths
from eegtensor.tokens.classifier import TokenClassifier
from eegtensor.tokens.module import TokenNet
from eegtensor.tokens.pretrain import MaskedTokenModel


class Given(NamedTuple):
    trials: Trials
    tokenizer: EEGTokenizer
    model: MaskedTokenModel
    test: NDArray

    def part(self, rows: NDArray) -> dict[str, Any]:
        meta = self.trials.metadata[rows]
        return {
            "subjects": meta["subject"].to_numpy(),
            "sessions": meta["session"].to_numpy(),
        }


@pytest.fixture(scope="module")
def given() -> Given:
    torch.set_num_threads(1)
    trials = simulate_trials(
        n_subjects=4,
        n_sessions=1,
        n_trials=24,
        n_channels=8,
        snr=4.0,
        subject_shift=0.5,
    )
    tokenizer = EEGTokenizer(bits_per_second=40, n_states=4).fit(trials)
    tokens = tokenizer.encode(trials)
    model = MaskedTokenModel(width=32, depth=1, n_frames=2, epochs=4, batch_size=8)
    model.fit(tokens, tokenizer=tokenizer)
    test = (
        trials.metadata["subject"] == trials.metadata["subject"].iloc[-1]
    ).to_numpy()
    return Given(trials, tokenizer, model, test)


@pytest.fixture(scope="module")
def probe(given: Given) -> TokenClassifier:
    clf = TokenClassifier(given.tokenizer, given.model)
    source = ~given.test
    return clf.fit(given.trials[source], given.trials.y[source], **given.part(source))


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
    assert len(alone.network_.norm.names) == 3
    with pytest.raises(EEGTensorError, match="No statistics"):
        copy.copy(probe).set_params(unseen="raise").predict(here, **part)
    with pytest.raises(EEGTensorError, match="at least 2 trials"):
        probe.adapt(here.X[:1])
    with pytest.raises(NotFittedError):
        TokenClassifier(given.tokenizer, given.model).predict(here)


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


def test_statistics_are_fitted_after_training(given: Given) -> None:
    source = ~given.test
    clf = TokenClassifier(given.tokenizer, given.model, mode="finetune", epochs=3)
    clf.fit(given.trials[source], given.trials.y[source], **given.part(source))
    x = clf._windows(given.trials[source], clf_names(given, source), clf.scales_)
    codes = clf.network_.norm.encode(clf_names(given, source))
    with torch.no_grad():
        y = clf.network_.features(x, codes)
    for k in range(3):
        # The mean of a domain is the bias that was learned, whatever it was before.
        mine = y[codes == k].mean(0)
        torch.testing.assert_close(mine, clf.network_.norm.bias, atol=1e-6, rtol=0)


def clf_names(given: Given, rows: NDArray) -> list[Domain]:
    part = given.part(rows)
    return [
        Domain("", *n) for n in zip(part["subjects"], part["sessions"], strict=True)
    ]


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


@pytest.mark.slow
def test_nothing_needs_to_be_given(given: Given) -> None:
    here = given.trials[:20]
    clf = TokenClassifier(pretrain_epochs=1).fit(here, given.trials.y[:20])
    assert clf.predict(here).shape == (20,)
    assert clf.tokenizer_ is not None


def test_a_module_takes_signals(given: Given, tmp_path: Path) -> None:
    info = given.trials.info
    x = torch.from_numpy(np.asarray(given.trials.X[:6]))
    options: dict[str, Any] = {
        "n_outputs": 2,
        "n_times": x.shape[2],
        "sfreq": info["sfreq"],
        "chs_info": info["chs"],
        "tokenizer": given.tokenizer,
    }
    net = TokenNet(**options, model=given.model).eval()
    logits = net(x)
    assert logits.shape == (6, 2)
    torch.testing.assert_close(net(1e6 * x), logits)
    # Each trial by itself, whatever else is in the batch.
    torch.testing.assert_close(net(x[2:3]), logits[2:3], rtol=1e-4, atol=1e-5)
    logits.sum().backward()
    assert net.network.encoder.place.weight.grad is not None
    given.tokenizer.save(tmp_path / "t")
    blank = TokenNet(**options | {"tokenizer": tmp_path / "t"}, pool="mean").eval()
    assert blank(x).shape == (6, 2)
    assert blank.network.norm.n_features == 64
    again = TokenNet(**options, model=given.model).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), logits)
    with pytest.raises(EEGTensorError, match="give all three"):
        TokenNet(n_outputs=2, tokenizer=given.tokenizer)
    with pytest.raises(EEGTensorError, match="x has shape"):
        net(x[:, :3])


def test_what_is_no_mode_is_refused(given: Given) -> None:
    X, y = given.trials.X, given.trials.y
    with pytest.raises(EEGTensorError, match="mode="):
        TokenClassifier(given.tokenizer, given.model, mode="tune").fit(X, y)
    with pytest.raises(EEGTensorError, match="labelled"):
        TokenClassifier(given.tokenizer, given.model).fit(X, y, labelled=[True])


def test_vectors_of_codes_add_up_to_what_is_decoded(given: Given) -> None:
    bands = given.tokenizer.codec_.bands
    vectors = code_vectors(given.tokenizer)
    assert vectors is not None
    ids = torch.from_numpy(given.tokenizer.encode(given.trials[:5]).ids).long()
    ids = ids.reshape(-1, 1, ids.shape[-1])
    slot = torch.arange(ids.shape[-1])
    each = vectors[slot, ids.clamp_min(0)] * (ids >= 0)[..., None]
    size = expected(ids[..., 0], bands).sqrt()
    size = size.repeat_interleave(torch.tensor(widths()), dim=-1)
    found = each.sum(dim=-2)[..., -size.shape[-1] :].double() * size
    torch.testing.assert_close(found, decode_bands(ids, bands), rtol=1e-5, atol=1e-6)
