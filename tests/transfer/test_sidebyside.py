"""Tangent vectors beside tensor features: both whole, neither drowned, both adapted."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from sklearn.base import clone

from eegtensor import EEGTensorError, make_pipeline, simulate_trials


@pytest.fixture(scope="module")
def parts():
    trials = simulate_trials(
        n_subjects=3, n_sessions=1, n_trials=30, n_channels=8, random_state=3
    )
    target = trials.metadata["subject"].to_numpy() == "03"

    def of(index):
        domains = {"subjects": trials.subjects[index], "sessions": trials.sessions}
        return trials.X[index], domains | {"sessions": trials.sessions[index]}

    return of(~target), trials.y[~target], of(target), trials.y[target]


def side_by_side(align: str | None = "riemann"):
    return make_pipeline("tangent-tensor", align=align, sfreq=128, n_bins=2, ranks=2)[
        "features"
    ]


def test_each_block_is_its_pipeline_with_an_equal_share_of_variance(parts) -> None:
    (X, domains), y, _, _ = parts
    both = side_by_side()
    alone = [clone(both.tangent), clone(both.tensor)]
    F = both.fit_transform(X, y, **domains)
    np.testing.assert_allclose(both.transform(X, **domains), F, atol=1e-10)
    blocks = [part.fit_transform(X, y, **domains) for part in alone]
    assert [b.shape[1] for b in blocks] == [36, 8]
    at = 0
    for block in blocks:
        own = F[:, at : at + block.shape[1]]
        at += block.shape[1]
        # Every feature on the line of the pipeline's own, whatever its scale.
        for mine, theirs in zip(own.T, block.T, strict=True):
            assert abs(np.corrcoef(mine, theirs)[0, 1]) > 1 - 1e-9
        assert np.allclose(own.mean(axis=0), 0.0, atol=1e-10)
        assert own.var(axis=0).sum() == pytest.approx(22.0)
    assert at == F.shape[1]


def test_adapting_it_adapts_both_pipelines(parts) -> None:
    (X, domains), y, (Xt, domains_t), _ = parts
    both = side_by_side().fit(X, y, **domains)
    alone = [copy.deepcopy(both.tangent), copy.deepcopy(both.tensor)]
    assert both.can_adapt
    for method in ("adapt", "partial_adapt"):
        mine = copy.deepcopy(both)
        getattr(mine, method)(Xt, **domains_t)
        blocks = []
        for part in copy.deepcopy(alone):
            before = part.transform(Xt, **domains_t)
            getattr(part, method)(Xt, **domains_t)
            blocks.append(part.transform(Xt, **domains_t))
            assert not np.allclose(before, blocks[-1])
        expected = (np.concatenate(blocks, axis=1) - both.means_) / both.scales_
        np.testing.assert_allclose(mine.transform(Xt, **domains_t), expected)
    assert not side_by_side(None).can_adapt


def test_a_weight_counts_as_that_many_trials_of_the_scale(parts) -> None:
    (X, domains), y, _, _ = parts
    both = side_by_side(None)
    weights = np.where(np.arange(len(X)) < len(X) // 2, 2.0, 0.5)
    F = both.fit_transform(X, y, sample_weight=weights, **domains)
    np.testing.assert_allclose(weights @ F, 0.0, atol=1e-9)
    with pytest.raises(EEGTensorError, match="sample_weight"):
        both.fit(X, y, sample_weight=weights[:-1])


def test_units_and_a_persons_gains_do_not_matter(parts) -> None:
    (X, domains), y, (Xt, domains_t), _ = parts
    pipe = make_pipeline("tangent-tensor", align="riemann", sfreq=128, n_bins=2)
    said = []
    for unit, gain in ((1.0, 1.0), (1e6, 1.0), (1.0, 3.0)):
        pipe.fit(unit * X, y, **domains).adapt(gain * unit * Xt, **domains_t)
        said.append(pipe.decision_function(gain * unit * Xt, **domains_t))
    np.testing.assert_allclose(said[1], said[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(said[2], said[0], rtol=1e-4, atol=1e-6)
