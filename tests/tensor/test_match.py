"""Factor match: against permutations by hand, and laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.tensor.cp import cp
from eegtensor.tensor.match import factor_match_score, split_half_match


def planted(rng: np.random.Generator, shape: tuple[int, ...], rank: int) -> list:
    return [rng.standard_normal((size, rank)) for size in shape]


def tensor(factors: list) -> np.ndarray:
    return np.einsum("ir,jr,kr->ijk", *factors)


def test_it_is_the_best_of_all_permutations(rng: np.random.Generator) -> None:
    a, b = planted(rng, (3, 4, 5), 4), planted(rng, (3, 4, 5), 4)
    cosines = np.ones((4, 4))
    for U, V in zip(a, b, strict=True):
        cosines *= (U.T @ V) / np.outer(
            np.linalg.norm(U, axis=0), np.linalg.norm(V, axis=0)
        )
    best = max(
        np.mean([abs(cosines[r, p[r]]) for r in range(4)])
        for p in itertools.permutations(range(4))
    )
    assert factor_match_score(a, b).score == pytest.approx(best, rel=1e-12)


def test_order_sign_and_scale_do_not_matter(rng: np.random.Generator) -> None:
    a = planted(rng, (6, 7, 8), 3)
    order = [2, 0, 1]
    b = [a[0][:, order] * [-3.0, 1.0, 2.0], a[1][:, order] * -1e-6, a[2][:, order]]
    match = factor_match_score(a, b)
    assert match.score == pytest.approx(1.0)
    assert match.partner == (1, 2, 0)
    assert factor_match_score([torch.tensor(U) for U in a], b).score > 1 - 1e-12


def test_weights_count_when_asked(rng: np.random.Generator) -> None:
    a = planted(rng, (6, 7), 2)
    b = [a[0] * [1.0, 4.0], a[1]]
    assert factor_match_score(a, b).score == pytest.approx(1.0)
    found = factor_match_score(a, b, weights=True)
    assert found.similarity == pytest.approx((1.0, 0.25))
    model = cp(tensor(planted(rng, (6, 7, 8), 2)), 2)
    assert factor_match_score(model, model, weights=True).score == pytest.approx(1.0)
    other = model._replace(weights=model.weights / 2)
    assert factor_match_score(model, other, weights=True).score == pytest.approx(0.5)
    # The size of a component is that of its factors and its weight together.
    longer = (other.factors[0] * 2, *other.factors[1:])
    other = other._replace(factors=longer)
    assert factor_match_score(model, other, weights=True).score == pytest.approx(1.0)


def test_missing_components_count_as_zero(rng: np.random.Generator) -> None:
    a = planted(rng, (6, 7, 8), 4)
    fewer = [U[:, :3] for U in a]
    assert factor_match_score(a, fewer).score == pytest.approx(0.75)
    assert factor_match_score(fewer, a).score == pytest.approx(0.75)
    assert factor_match_score(a, fewer).partner == (0, 1, 2, -1)


def test_modes_are_chosen(rng: np.random.Generator) -> None:
    a = planted(rng, (6, 7, 8), 2)
    b = [planted(rng, (6,), 2)[0], *a[1:]]
    assert factor_match_score(a, b).score < 0.9
    assert factor_match_score(a, b, modes=(1, 2)).score == pytest.approx(1.0)
    with pytest.raises(EEGTensorError, match="modes"):
        factor_match_score(a, b, modes=(3,))


def test_other_sizes_are_refused(rng: np.random.Generator) -> None:
    a = planted(rng, (6, 7, 8), 2)
    with pytest.raises(EEGTensorError, match="sizes"):
        factor_match_score(a, planted(rng, (6, 7, 9), 2))
    with pytest.raises(EEGTensorError, match="modes"):
        factor_match_score(a, a[:2])
    with pytest.raises(EEGTensorError, match="NaN"):
        factor_match_score(a, [U * np.nan for U in a])
    with pytest.raises(EEGTensorError, match="no components"):
        factor_match_score(a, None)
    with pytest.raises(EEGTensorError, match="columns"):
        factor_match_score(a, [a[0], a[1][:, :1], a[2]])


def test_halves_agree_at_the_true_rank_alone(rng: np.random.Generator) -> None:
    X = tensor(planted(rng, (40, 10, 12), 3))
    X += 0.3 * rng.standard_normal(X.shape)
    right = split_half_match(X, 3, n_splits=2)
    assert right.score > 0.98
    assert split_half_match(X, 5, n_splits=2).score < 0.85
    assert right == split_half_match(X, 3, n_splits=2)
    scaled = split_half_match(torch.tensor(X) * 1e-6, 3, n_splits=2)
    assert scaled.score == pytest.approx(right.score, abs=1e-6)
    X[rng.random(X.shape) < 0.1] = np.nan
    generator = torch.Generator().manual_seed(1)
    assert split_half_match(X, 3, n_splits=1, random_state=generator).score > 0.98


def test_halves_need_trials(rng: np.random.Generator) -> None:
    with pytest.raises(EEGTensorError, match="first mode"):
        split_half_match(rng.standard_normal((3, 4, 5)), 2)


def test_halves_keep_their_masks(rng: np.random.Generator) -> None:
    X = tensor(planted(rng, (8, 5, 6), 2))
    X[rng.random(X.shape) < 0.2] = np.nan
    counts = []

    def fit(half: torch.Tensor, rank: int, *, mask: torch.Tensor, random_state: int):
        counts.append(int(mask.sum()))
        return cp(half, rank, mask=mask, random_state=random_state)

    split_half_match(X, 2, n_splits=1, fit=fit)
    assert len(counts) == 2 and sum(counts) == np.isfinite(X).sum()
