"""The shortlist in bfloat16: the same code as in float64, or an honest -1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eegtensor.codebook import _shortlist as short
from eegtensor.codebook import prepare_codes, search


def nearest(X: Tensor, codes: Tensor) -> Tensor:
    X, codes = X.double(), codes.double()
    return ((codes**2).sum(dim=1) / 2 - X @ codes.T).argmin(dim=1)


def drawn(kind: str, n_codes: int = 1500, dim: int = 48) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    X, codes = (
        torch.randn(700, dim, generator=g),
        torch.randn(n_codes, dim, generator=g),
    )
    if kind == "far":
        return X + 30, codes + 30
    if kind == "volts":
        return 1e-6 * X, 1e-6 * codes
    if kind == "heavy":
        return X / X[:, :1], codes / codes[:, :1].abs().clamp_min(1e-2)
    if kind == "near":
        return codes[:700] + 1e-2 * X, codes
    return X, codes


@pytest.mark.parametrize("kind", ["gauss", "far", "volts", "heavy", "near"])
def test_what_it_finds_is_the_nearest(kind: str) -> None:
    X, codes = drawn(kind)
    ready = prepare_codes(codes)
    rough = short.round_codes(ready.table)
    found = short.shortlist(X - ready.centre, ready.table, ready.offset, rough)
    sure = found >= 0
    least = {"far": 0.3, "heavy": 0.0}.get(kind, 0.9)
    assert sure.double().mean() > least
    want = nearest(X, codes)
    wrong = sure & (found != want)
    # Where float32 cannot tell two codes apart, either will do.
    apart = (X - codes[found.clamp_min(0)]).double().norm(dim=1)
    best = (X - codes[want]).double().norm(dim=1)
    assert int(wrong.sum()) <= 1 and bool((apart <= best * (1 + 1e-6))[sure].all())


def test_search_completes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    X, codes = drawn("gauss")
    # None is sure: all are looked for again.
    monkeypatch.setattr(short, "_MOST_BLOCKS", 0)
    ready = prepare_codes(codes)
    ready = ready._replace(rough=short.round_codes(ready.table))
    assert torch.equal(search(X, ready), nearest(X, codes))


def test_by_angle_in_any_unit() -> None:
    X, codes = drawn("gauss")
    codes = codes * torch.logspace(-2, 2, len(codes))[:, None]
    unit = codes.double() / codes.double().norm(dim=1, keepdim=True)
    want = (X.double() @ unit.T).argmax(dim=1)
    ready = prepare_codes(codes, cosine=True)
    rough = short.round_codes(ready.table, cosine=True)
    found = short.shortlist(1e-9 * X, ready.table, ready.offset, rough)
    assert (found >= 0).double().mean() > 0.9
    assert torch.equal(found[found >= 0], want[found >= 0])
    assert torch.equal(search(1e-9 * X, ready), want)


def test_the_first_of_equal_codes_and_vectors_that_are_not_finite() -> None:
    codes = torch.randn(600, 48, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([codes, codes])
    X = codes.clone()
    X[5, 0] = torch.nan
    ready = prepare_codes(twice)
    rough = short.round_codes(ready.table)
    found = short.shortlist(X - ready.centre, ready.table, ready.offset, rough)
    want = torch.arange(600)
    want[5] = -1
    assert torch.equal(found, want)
