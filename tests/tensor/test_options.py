"""Options of the wrong kind: an error that names the option, whatever the function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import eegtensor.tensor as T
from eegtensor._check import EEGTensorError, as_generator, check_count, check_number
from eegtensor.tensor.hoda import hoda
from eegtensor.tensor.multitask import few_shot_rows, multitask

_RNG = np.random.default_rng(0)
X = _RNG.standard_normal((8, 5, 4))
Y = _RNG.standard_normal((8, 3))
PEOPLE = [X, _RNG.standard_normal((6, 5, 4))]
CODES = np.arange(8) % 2
SIGNS = 2.0 * CODES - 1.0
LEVELS = np.stack([CODES, np.arange(8) // 4], axis=1)
LINKS = np.array([[1, 2, 1], [2, 1, 2], [1, 2, 1]])

CALLS: dict[str, Callable[..., Any]] = {
    "ard": lambda **o: T.ard_cp(X, 2, **o),
    "block": lambda **o: T.block_term(X, 2, 2, **o),
    "choose": lambda **o: T.choose_rank(X, [1], **o),
    "cmtf": lambda **o: T.cmtf(X, Y, 2, **o),
    "coupled": lambda **o: T.coupled_cp(PEOPLE, 2, **o),
    "cp": lambda **o: T.cp(X, 2, **o),
    "few": lambda **o: few_shot_rows(
        X[:, 0, :2], SIGNS, CODES, CODES, np.zeros((2, 2)), **o
    ),
    "hoda": lambda **o: hoda(X, CODES, 2, **o),
    "match": lambda **o: T.factor_match_score([X[0], X[1]], [X[2], X[3]], **o),
    "multitask": lambda **o: multitask(X[:, 0], SIGNS, LEVELS, 2, **o),
    "network": lambda **o: T.tensor_network(X, LINKS, **o),
    "nonnegative": lambda **o: T.nonnegative_cp(abs(X), 2, **o),
    "ring": lambda **o: T.tensor_ring(X, 2, **o),
    "search": lambda **o: T.search_structure(X, max_fits=1, **o),
    "shared": lambda **o: T.shared_tucker(PEOPLE, 2, **o),
    "split": lambda **o: T.split_half_match(X, 2, **o),
    "train": lambda **o: T.tensor_train(X, **{"ranks": 2, **o}),
    "tucker": lambda **o: T.tucker(X, **{"ranks": 2, **o}),
}
COUNTS, SEEDS = ["a", None, 2.5, -1, True, [1]], ["a", 2.5, -1]
NUMBERS = ["a", None, math.nan, math.inf, True, [1.0]]
MODES = ["a", 1, [0.5], [7], [None]]
GIVEN = {
    "max_iter": (
        COUNTS,
        "ard block cmtf coupled cp hoda multitask network nonnegative ring search "
        "shared train tucker",
    ),
    "tol": (
        NUMBERS,
        "ard block cmtf coupled cp hoda multitask network nonnegative ring search "
        "shared train tucker",
    ),
    "ridge": ([*NUMBERS, -1.0], "block cmtf coupled cp hoda network ring"),
    "n_init": ([*COUNTS, 0], "block cmtf coupled cp nonnegative"),
    "random_state": (
        SEEDS,
        "ard block choose cmtf coupled cp multitask network nonnegative search split",
    ),
    "n_splits": (COUNTS, "choose split"),
    "n_folds": (COUNTS, "choose"),
    "held_out": ([*NUMBERS, 0.0, 1.0], "choose"),
    "balance": ([*NUMBERS, 0.0], "cmtf"),
    "compress": (["a", math.nan, 0.0, -1], "cp"),
    "gamma": ([*NUMBERS, 0.0], "few multitask"),
    "epsilon": ([*NUMBERS, -1.0], "few multitask"),
    "floor": ([*NUMBERS, -1.0], "network"),
    "penalty": ([*NUMBERS, 0.0], "search"),
    "initial_trips": (COUNTS, "search"),
    "n_jobs": (["a", None, 0, 1.5], "search"),
    "modes": (MODES, "match nonnegative"),
    "shared": (MODES, "coupled shared"),
    "weights": (["a", [1.0], [1.0, -1.0], [1.0, "a"]], "coupled shared"),
    "vector_mode": (["a", None, 1.5, 3, [1]], "block"),
    "start": (["a", 1, [X]], "network ring"),
    "error": (["a", math.nan, -0.1, 1.0], "train"),
    "energy": (["a", math.nan, 0.0, 1.1], "tucker"),
}


@pytest.mark.parametrize("option", GIVEN)
def test_an_error_names_the_option(option: str) -> None:
    values, functions = GIVEN[option]
    # Only one of ranks and error may be given.
    more = {"ranks": None} if option == "error" else {}
    for name in functions.split():
        for value in values:
            with pytest.raises(EEGTensorError, match=option):
                CALLS[name](**{option: value, **more})
                pytest.fail(f"{name} took {option}={value!r}")


def test_weights_of_trials_are_looked_at() -> None:
    for name in ("few", "multitask"):
        for weights in ("a", 1.0, np.ones(3), np.full(8, -1.0), np.full(8, np.nan)):
            with pytest.raises(EEGTensorError, match="weights"):
                CALLS[name](weights=weights)
    with pytest.raises(EEGTensorError, match="zero for all"):
        CALLS["multitask"](weights=np.zeros(8))
    # New people without a weight get the prior.
    rows, _ = CALLS["few"](weights=np.zeros(8))
    np.testing.assert_array_equal(rows, 0.0)


def test_numbers_of_numpy_are_numbers() -> None:
    model = T.cp(X, np.int64(2), n_init=np.int32(1), tol=np.float32(1e-3), max_iter=3)
    assert model.n_iter <= 3
    assert check_count("n", np.int8(0), least=0) == 0
    assert check_number("x", np.float64(0.5), least=0.5) == 0.5
    with pytest.raises(EEGTensorError, match=r"n=0.*from 1 up"):
        check_count("n", 0)
    with pytest.raises(EEGTensorError, match=r"x=0.*above 0"):
        check_number("x", 0, above=0.0)
    with pytest.raises(EEGTensorError, match="random_state=-3"):
        as_generator(-3)


def test_classes_and_levels_are_whole_numbers_in_arrays() -> None:
    for codes in (CODES / 2.0, CODES.astype(str), CODES.tolist(), CODES[:3]):
        with pytest.raises(EEGTensorError, match="codes have"):
            hoda(X, codes, 2)
    for levels in (LEVELS / 2.0, LEVELS.tolist(), LEVELS.astype(str)):
        with pytest.raises(EEGTensorError, match="levels"):
            multitask(X[:, 0], SIGNS, levels)
    with pytest.raises(EEGTensorError, match="y is list"):
        multitask(X[:, 0], SIGNS.tolist(), LEVELS)
