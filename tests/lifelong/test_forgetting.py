"""Forgetting a person: closed-form decoders exactly, networks with their statistics."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline as plain_pipeline

from eegtensor import EEGTensorError, make_pipeline
from eegtensor.domains import domain_names
from eegtensor.features import Covariances, TangentSpace
from eegtensor.lifelong import AnalyticHead, Audit, Known, NetworkFeatures, forget
from eegtensor.pipeline import Pipeline
from eegtensor.transfer import Recenter, TSMNetClassifier
from eegtensor.transfer._trialcache import _rows


def analytic(**options):
    return Pipeline(
        [
            ("covariances", Covariances(estimator="oas")),
            ("recenter", Recenter()),
            ("tangent", TangentSpace(reference="identity")),
            ("head", AnalyticHead(**options)),
        ]
    )


def small(**options):
    return TSMNetClassifier(
        **{
            "n_spatial_filters": 6,
            "subspace": 4,
            "epochs": 6,
            "batch_size": 24,
            "domains_per_batch": 3,
            "validation": None,
        }
        | options
    )


@pytest.fixture(scope="module")
def network(people):
    seen, _ = people
    return small(calibration=20, epochs=20).fit(seen.X, seen.y, **seen.domains)


def call(estimator, people, who="2", **options):
    seen, _ = people
    return forget(estimator, who, *seen[:2], **seen.domains, **options)


def names(estimator):
    return {name.subject for name in estimator.network_.norm.names}


@pytest.mark.parametrize("options", [{}, {"people": True}])
def test_sums_are_as_trained_without_them(people, options) -> None:
    seen, held = people
    who = seen.subjects[0]
    decoder = analytic(**options).fit(seen.X, seen.y, **seen.domains)
    rest = seen.pick(seen.subjects != who)
    without = clone(decoder).fit(rest.X, rest.y, **rest.domains)
    after, audit = call(decoder, people, who, holdout=held, retrained=without)
    assert audit.method == "sums"
    assert audit.exact
    difference = after.steps[-1][1].coef_ - without.steps[-1][1].coef_
    assert np.abs(difference).max() < 1e-9
    for p, q in (
        (a.predict_proba(held.X, **held.domains) for a in (after, without)),
        (a.predict_proba(held.X) for a in (after, without)),
    ):
        # With domains, people forgotten among them, and by the pooled statistic.
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-9)
    assert who not in {n.subject for n in after.steps[1][1].domains_.names}
    assert who in {n.subject for n in decoder.steps[1][1].domains_.names}
    for rows in (*audit.accuracy.values(),):
        assert rows["after"] == rows["retrained"]
    for rows in audit.membership.values():
        assert rows["after"].auc == pytest.approx(rows["retrained"].auc, abs=1e-9)


def test_what_pools_people_is_fitted_anew(people) -> None:
    seen, held = people
    who = seen.subjects[0]
    decoder = make_pipeline("tangent-space").fit(seen.X, seen.y, **seen.domains)
    after, audit = call(decoder, people, who)
    rest = seen.pick(seen.subjects != who)
    without = clone(decoder).fit(rest.X, rest.y, **rest.domains)
    np.testing.assert_array_equal(
        after.predict_proba(held.X), without.predict_proba(held.X)
    )
    assert audit.method == "refit"
    with pytest.raises(EEGTensorError, match="TangentSpace"):
        pooled = plain_pipeline(Covariances(), TangentSpace(), AnalyticHead())
        call(pooled.fit(seen.X, seen.y), people, who, method="sums")


@pytest.mark.parametrize("method", ["sfron", "natmu"])
def test_a_network_keeps_nothing_of_them(people, network, method) -> None:
    seen, held = people
    who = seen.subjects[0]
    before = {k: v.clone() for k, v in network.network_.state_dict().items()}
    after, audit = call(network, people, who, method=method, share=0.2)
    # The one given is as it was.
    now = network.network_.state_dict()
    for k, v in before.items():
        # NaN stands for what a norm has not seen.
        np.testing.assert_array_equal(v, now[k])
    assert who in names(network)
    assert who not in names(after)
    assert names(after) == names(network) - {who}
    assert after.directions_ is None
    assert not len(after.history_)
    assert not _rows
    # Statistics are those of the rest at the new weights.
    rest = seen.pick(seen.subjects != who)
    fresh = copy.deepcopy(after.network_)
    codes = fresh.norm.encode(domain_names(len(rest.X), rest.subjects, rest.sessions))
    fresh.fit_statistics(after._inputs(rest.X), codes)
    for part in ("test_mean", "test_variance"):
        mine, anew = (getattr(n.norm, part) for n in (after.network_, fresh))
        torch.testing.assert_close(mine, anew, rtol=0, atol=1e-9)
    moved = [
        (a - b).norm()
        for a, b in zip(
            after.network_.parameters(), network.network_.parameters(), strict=True
        )
    ]
    assert max(moved) > 1e-3
    assert not audit.exact
    after.predict(held.X, **held.domains)


def test_the_same_in_volts_and_microvolts(people) -> None:
    seen, held = people
    who, found = seen.subjects[0], []
    for unit in (1.0, 1e6):
        net = small(epochs=2).fit(unit * seen.X, seen.y, **seen.domains)
        after, _ = forget(net, who, unit * seen.X, seen.y, **seen.domains, share=0.5)
        found.append(after.predict_proba(unit * held.X, **held.domains))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-3)


def test_no_ascent_moves_nothing_but_by_the_rest(people, network) -> None:
    # The blocks of the person may hold anything: only their place is asked for.
    seen, _ = people
    who = seen.subjects[0]
    spoiled = seen.X.copy()
    spoiled[seen.subjects == who] *= -3.0
    options = {"method": "sfron", "alpha": 0.0, "share": 0.2}
    a = call(network, people, who, **options).estimator
    b = call(network, (seen._replace(X=spoiled), None), who, **options).estimator
    for p, q in zip(a.network_.parameters(), b.network_.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_network_inside_a_pipeline(people) -> None:
    seen, _ = people
    who = seen.subjects[0]
    pipe = Pipeline([("net", small(epochs=1))]).fit(seen.X, seen.y, **seen.domains)
    after, _ = call(pipe, people, who, share=0.5)
    assert who not in names(after.steps[-1][1])
    assert who in names(pipe.steps[-1][1])


def test_a_head_on_a_frozen_network_forgets_exactly(people, network) -> None:
    seen, held = people
    who = seen.subjects[0]
    pipe = Pipeline([("features", NetworkFeatures(network)), ("head", AnalyticHead())])
    pipe.fit(seen.X, seen.y, **seen.domains)
    H = pipe[:-1].transform(seen.X, **seen.domains)
    assert H.shape == (len(seen.X), 10)
    here = seen.subjects == who
    pipe.steps[-1][1].forget(H[here], seen.y[here])
    without = AnalyticHead().fit(H[~here], seen.y[~here])
    assert np.abs(pipe.steps[-1][1].coef_ - without.coef_).max() < 1e-9
    assert (pipe.predict(held.X, **held.domains) == held.y).mean() > 0.6
    with pytest.raises(EEGTensorError, match="no fitted network"):
        NetworkFeatures(TSMNetClassifier()).transform(seen.X)


def test_the_statistics_of_adaptation_go_too(people, network) -> None:
    seen, _ = people
    who = seen.subjects[0]
    theirs = seen.pick(seen.subjects == who)
    adapted = small(epochs=1).fit(seen.X, seen.y, **seen.domains)
    adapted.adapt(theirs.X, **theirs.domains)
    assert adapted.last_target_.subject == who
    after, _ = call(adapted, people, who, share=0.5)
    assert after.last_target_ is None
    assert who not in {name.subject for name in after.adaptation_}


def test_the_audit_is_a_page_and_a_file(people, network, tmp_path) -> None:
    seen, held = people
    who = seen.subjects[0]
    stranger = held.pick(held.subjects != who)
    stranger = stranger._replace(subjects=np.full(len(stranger.X), "eve"))
    _, audit = call(
        network, people, who, share=0.1, holdout=held, new=held, transfer=stranger
    )
    assert set(audit.accuracy) == {"general", "new", "forgetting", "transfer"}
    assert set(audit.membership) == {"as it stands", "adapted"}
    page = str(audit)
    for word in (who, "sfron", "approximate", "transfer", "membership inference"):
        assert word in page
    audit.save(tmp_path / "audit.json")
    json.loads((tmp_path / "audit.json").read_text())
    assert Audit.load(tmp_path / "audit.json") == audit


def test_mistakes_are_named(people, network) -> None:
    seen, held = people
    with pytest.raises(EEGTensorError, match="No trial is of 99"):
        call(network, people, "99")
    with pytest.raises(EEGTensorError, match="Nobody would be left"):
        call(network, people, sorted(set(seen.subjects)))
    with pytest.raises(EEGTensorError, match="takes no 'share'"):
        call(make_pipeline("mdm"), people, seen.subjects[0], share=0.1)
    with pytest.raises(EEGTensorError, match="method='sums'"):
        call(network, people, seen.subjects[0], method="sums")
    with pytest.raises(EEGTensorError, match="no statistics"):
        other = seen._replace(sessions=np.full(len(seen.X), "new"))
        call(network, (other, None), seen.subjects[0])
    with pytest.raises(EEGTensorError, match="holdout comes without subjects"):
        call(network, people, seen.subjects[0], holdout=Known(held.X, held.y))
