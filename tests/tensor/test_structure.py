"""Structure search: exact pruning, resumption, brute force, layers."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.tensor import _fits, structure
from eegtensor.tensor._canonical import (
    State,
    Template,
    as_float64,
    canonical,
    relative_size,
)
from eegtensor.tensor._fits import Fits
from eegtensor.tensor._moves import _move
from eegtensor.tensor.network import tensor_network
from eegtensor.tensor.structure import as_layer_tensor, search_structure


def hidden(
    rng: np.random.Generator, ranks: tuple[int, ...], order: tuple[int, ...], size: int
) -> np.ndarray:
    """Return a ring of random cores with its places' modes in an order."""
    n = len(ranks)
    cores = [
        rng.standard_normal((ranks[k], size, ranks[(k + 1) % n])) for k in range(n)
    ]
    whole = cores[0]
    for core in cores[1:]:
        whole = np.tensordot(whole, core, (-1, 0))
    X = np.trace(whole, axis1=0, axis2=-1)
    return np.ascontiguousarray(np.transpose(X, np.argsort(order)))


def squared_error(X: np.ndarray, Y: np.ndarray) -> float:
    return float(np.sum((X - Y) ** 2) / np.sum(X**2))


SMALL = {
    "max_rank": 3,
    "n_starts": 3,
    "agree": 3,
    "max_fits": 10_000,
    "max_iter": 30,
    "fit_starts": 2,
}


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    return hidden(np.random.default_rng(3), (2, 3, 1, 2), (1, 3, 0, 2), 3)


@pytest.mark.parametrize("template", ["ring", "train", "graph"])
@pytest.mark.parametrize("method", ["tnale", "tnls", "tnga"])
def test_a_structure_says_what_it_is(small, method, template) -> None:
    model = search_structure(
        small, method=method, template=template, **{**SMALL, "max_fits": 30}
    )
    assert model.rse == pytest.approx(
        squared_error(small, model.reconstruct()), abs=1e-11
    )
    assert model.phi == pytest.approx(model.n_entries / small.size)
    assert model.score == pytest.approx(model.phi + 200 * model.rse)
    assert model.n_fits <= 30
    assert model.score <= min(v.score for v in model.history if v.phase != "initial")
    assert sorted(model.permutation) == [0, 1, 2, 3]
    if template != "graph":
        assert tuple(G.shape[1] for G in model.cores) == (3, 3, 3, 3)
        before = tuple(G.shape[0] for G in model.cores)
        assert before[template == "train" :] == model.ranks


def test_the_unit_and_the_kind_of_array_do_not_matter(small) -> None:
    one = search_structure(small, **SMALL)
    scaled = search_structure(torch.from_numpy(small * 1e-12), **SMALL)
    assert scaled.ranks == one.ranks
    assert scaled.permutation == one.permutation
    assert isinstance(scaled.reconstruct(), torch.Tensor)
    assert squared_error(small * 1e-12, scaled.reconstruct().numpy()) == pytest.approx(
        one.rse, abs=1e-9
    )


def walked(model: structure.Structure) -> list[tuple]:
    """Return the visits without the number of fits that led there."""
    return [visit[:-1] for visit in model.history]


def test_pruning_and_cache_change_no_visit() -> None:
    rng = np.random.default_rng(5)
    for _ in range(2):
        order = tuple(int(m) for m in rng.permutation(4))
        X = hidden(rng, tuple(rng.integers(1, 4, 4)), order, 2)
        X += 0.01 * rng.standard_normal(X.shape)
        options = {**SMALL, "max_iter": 10, "n_starts": 2}
        usual = search_structure(X, **options)
        unpruned = search_structure(X, prune=False, **options)
        uncached = search_structure(X, cache=False, **options)
        assert walked(usual) == walked(unpruned) == walked(uncached)
        assert usual.n_fits < unpruned.n_fits
        assert usual.n_fits < uncached.n_fits


@pytest.mark.parametrize("template", ["ring", "graph"])
def test_the_score_never_rises_in_the_main_phase(small, template) -> None:
    model = search_structure(small, template=template, **SMALL)
    for k in range(3):
        scores = [v.score for v in model.history if v[:2] == (k, "main")]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) > 4


def test_starts_that_agree_end_the_search(small) -> None:
    for agree in (1, 2, 3):
        model = search_structure(small, **{**SMALL, "n_starts": 8, "agree": agree})
        last = {v.start: v.score for v in model.history}
        at_best = [v <= 1.001 * model.score for v in last.values()]
        # The last start is the one that made them enough.
        assert sum(at_best) == agree
        assert at_best[-1]
        assert len(last) < 8


@pytest.mark.parametrize("penalty", [0.01, 5.0, 200.0])
def test_the_initial_phase_fits_the_ends_and_agrees_with_interpolation(
    small, penalty
) -> None:
    # By hand, from the fits of the ends and the centre.
    form = Template("ring", 4)
    X = as_float64(torch.from_numpy(small))
    options = {"n_starts": 2, "max_iter": 30, "tol": 1e-5, "floor": 1e-10}
    fits = Fits(X, form, penalty, 0, options)
    fits.allowed = 1000
    states = [State((r, 2, 2, 2), (1, 3, 0, 2)) for r in (1, 2, 3, 4, 5)]
    own = fits.errors([states[2]])[0]
    found, rse = _move(fits, states[2], 0, 5, wide=True)
    assert fits.n_fits <= 3
    low, high = fits.errors([states[0], states[4]])
    errors = np.interp([1, 2, 3, 4, 5], [1, 3, 5], [low, own, high])
    scores = [fits.size(s) + penalty * e for s, e in zip(states, errors, strict=True)]
    best = int(np.argmin(scores))
    assert found == states[best]
    assert rse == pytest.approx(errors[best])


def test_an_interrupted_search_visits_what_an_uninterrupted_does(
    small, rng, tmp_path, monkeypatch
) -> None:
    file = tmp_path / "search.json"
    X = small + 0.05 * rng.standard_normal(small.shape)
    whole = search_structure(X, **SMALL)
    count = 0
    fit = _fits.fit_structure

    def interrupted(*args):
        nonlocal count
        count += 1
        if count > 12:
            raise KeyboardInterrupt
        return fit(*args)

    monkeypatch.setattr(_fits, "fit_structure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search_structure(X, checkpoint=file, **SMALL)
    kept = len(json.loads(file.read_text())["fitted"])
    assert 4 < kept <= 12
    count = -10_000
    resumed = search_structure(X, checkpoint=file, **SMALL)
    # The best may be one of the kept ones: its cores are fitted again.
    assert whole.n_fits - kept <= count + 10_000 <= whole.n_fits - kept + 1
    assert resumed.history == whole.history
    np.testing.assert_array_equal(resumed.reconstruct(), whole.reconstruct())


@pytest.mark.slow
def test_more_processes_change_nothing(small) -> None:
    options = {**SMALL, "max_fits": 12, "n_starts": 1, "initial_trips": 0}
    one = search_structure(small, **options)
    two = search_structure(small, n_jobs=2, **options)
    assert two.history == one.history
    np.testing.assert_allclose(two.reconstruct(), one.reconstruct(), rtol=1e-9)


def test_an_order_that_is_kept(small) -> None:
    model = search_structure(small, permute=False, **SMALL)
    assert model.permutation == (0, 1, 2, 3)
    assert {v.permutation for v in model.history} == {(0, 1, 2, 3)}


def brute_force(X: np.ndarray, max_rank: int) -> float:
    """Return the least score of all rings, every one fitted."""
    n = X.ndim
    form, best, seen = Template("ring", n), math.inf, set()
    for order in itertools.permutations(range(1, n)):
        if order[0] > order[-1]:
            continue
        for ranks in itertools.product(range(1, max_rank + 1), repeat=n):
            table = form.table(State(ranks, (0, *order)))
            phi = relative_size(table, X.shape)
            if phi >= best or canonical(table) in seen:
                continue
            seen.add(canonical(table))
            rse = tensor_network(X, table, n_starts=4, random_state=7).rse
            best = min(best, phi + 200.0 * rse)
    return best


@pytest.mark.slow
def test_brute_force_finds_nothing_better() -> None:
    matched = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        ranks = tuple(int(r) for r in rng.integers(1, 4, 4))
        order = tuple(int(m) for m in rng.permutation(4))
        X = hidden(rng, ranks, order, 3)
        model = search_structure(X, max_rank=3)
        matched += model.score <= brute_force(X, 3) + 1e-5
    assert matched >= 9


@pytest.mark.slow
def test_a_hidden_ring_of_six_modes_is_found() -> None:
    rng = np.random.default_rng(0)
    ranks = tuple(int(r) for r in rng.integers(1, 8, 6))
    order = tuple(int(m) for m in rng.permutation(6))
    X = hidden(rng, ranks, order, 3)
    model = search_structure(X)
    entries = 3 * sum(ranks[k] * ranks[(k + 1) % 6] for k in range(6))
    assert model.n_entries <= entries
    assert model.rse <= 1e-4
    assert model.n_fits <= 300


def test_a_layer_is_searched(rng) -> None:
    W = np.kron(rng.standard_normal((2, 3)), rng.standard_normal((3, 2)))
    T = as_layer_tensor(W, in_shape=(3, 2), out_shape=(2, 3))
    assert T.shape == (2, 3, 3, 2)
    np.testing.assert_array_equal(T.reshape(6, 6), W)
    model = search_structure(T, **SMALL)
    # A Kronecker product: out 0 with in 0, out 1 with in 1, and nothing between.
    assert model.rse < 1e-6
    assert model.adjacency[0, 2] == 2
    assert model.adjacency[1, 3] == 2
    assert model.adjacency.sum() == 16 + 4
    np.testing.assert_allclose(model.reconstruct().reshape(6, 6), W, atol=1e-3)
    with pytest.raises(EEGTensorError, match="in_shape"):
        as_layer_tensor(W, in_shape=(2, 2), out_shape=(2, 3))


def test_mistakes_are_named(small, tmp_path) -> None:
    with pytest.raises(EEGTensorError, match="method='annealing'"):
        search_structure(small, method="annealing")
    with pytest.raises(EEGTensorError, match="template='star'"):
        search_structure(small, template="star")
    with pytest.raises(EEGTensorError, match="3 or more axes"):
        search_structure(small[0, 0])
    with pytest.raises(EEGTensorError, match="missing"):
        search_structure(np.where(small > 1, np.nan, small))
    with pytest.raises(EEGTensorError, match="zero"):
        search_structure(0 * small)
    with pytest.raises(EEGTensorError, match="whole number"):
        search_structure(small, random_state=np.random.default_rng(0))
    with pytest.raises(EEGTensorError, match="penalty"):
        search_structure(small, penalty=-1.0)
    with pytest.raises(EEGTensorError, match="fit_starts=0"):
        search_structure(small, fit_starts=0)
    with pytest.raises(EEGTensorError, match="no folder"):
        search_structure(small, checkpoint=tmp_path / "none" / "search.json")
    file = tmp_path / "search.json"
    search_structure(small, checkpoint=file, **{**SMALL, "max_fits": 5})
    with pytest.raises(EEGTensorError, match="another tensor"):
        search_structure(small + 1.0, checkpoint=file, **SMALL)
    file.write_text("{}")
    with pytest.raises(EEGTensorError, match="not the checkpoint"):
        search_structure(small, checkpoint=file, **SMALL)
