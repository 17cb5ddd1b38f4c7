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
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from eegtensor import Trials, simulate_trials
from eegtensor._check import EEGTensorError
from eegtensor.domains import Domain
from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens._codevectors import code_vectors
from eegtensor.tokens._finetune import RefitStatistics
from eegtensor.tokens.bandrvq import decode_bands, expected, widths
from eegtensor.tokens.classifier import TokenClassifier
from eegtensor.tokens.module import TokenNet
from eegtensor.tokens.pretrain import MaskedTokenModel
from eegtensor.training import Batch, History
from eegtensor.training.files import read_state, write_state


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


def test_a_probe_is_a_logistic_regression_on_normalised_means(given: Given) -> None:
    source = ~given.test
    here, y, part = given.trials[source], given.trials.y[source], given.part(source)
    rng = np.random.default_rng(0)
    # One class is rare, and most trials have no label.
    known = rng.random(len(y)) < np.where(y == np.unique(y)[0], 0.2, 0.6)
    clf = TokenClassifier(given.tokenizer, given.model, C=0.1)
    clf.fit(here, y, labelled=known, **part)
    names = clf_names(given, source)
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


def test_refits_see_trials_from_first_to_last() -> None:
    x = {"a": torch.arange(100)}
    domain = torch.tensor([0] * 90 + [1] * 10)
    kept = RefitStatistics(Batch(x, domain=domain)).data
    own = kept.x["a"][kept.domain == 0]
    assert len(own) == 16
    # Trials may lie in the order of classes.
    assert torch.equal((own >= 45).sum(), torch.tensor(8))
    assert torch.equal(kept.x["a"][kept.domain == 1], torch.arange(90, 100))


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


@pytest.mark.slow
def test_nothing_needs_to_be_given(given: Given) -> None:
    here = given.trials[:20]
    clf = TokenClassifier(pretrain_epochs=1).fit(here, given.trials.y[:20])
    assert clf.predict(here).shape == (20,)
    assert clf.tokenizer_.codec_.n_states == 64


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
