from __future__ import annotations

from itertools import pairwise

import pytest

from eegtensor import EEGTensorError
from eegtensor.training import momentum_schedule


@pytest.mark.parametrize(
    ("epoch", "eta"),
    [(1, 1.0), (10, 0.91), (20, 0.762), (30, 0.538), (40, 0.2), (50, 0.2)],
)
def test_training_momentum_of_the_published_run(epoch, eta):
    assert momentum_schedule(epoch, 50).eta == pytest.approx(eta, abs=6e-4)


def test_evaluation_momentum():
    first, last = momentum_schedule(1, 50), momentum_schedule(50, 50)
    assert first.eta_test == pytest.approx(0.15)
    assert last.eta_test == pytest.approx(1 - 0.85**0.2)
    assert last.eta_test == pytest.approx(0.032, abs=5e-4)
    theirs = [momentum_schedule(k, 50, compat="tsmnet2022") for k in (1, 50)]
    assert [t.eta_test for t in theirs] == pytest.approx([0.85, 0.968], abs=5e-4)
    assert [t.eta for t in theirs] == [first.eta, last.eta]


def test_without_domains():
    """SPDMBN: batch 50 of a nominal 500, tau0 = .35."""
    last = momentum_schedule(50, 50, batch_size=500, domain_batch_size=50, tau0=0.35)
    assert last.eta == pytest.approx(0.1)
    assert last.eta_test == pytest.approx(1 - 0.35**0.1)


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 5, 10, 11, 12, 13, 200])
def test_any_length_falls_from_one_to_the_share(n_epochs):
    etas = [momentum_schedule(k, n_epochs).eta for k in range(1, n_epochs + 1)]
    assert etas[0] == pytest.approx(1.0)
    assert all(a >= b for a, b in pairwise(etas))
    assert all(0.2 <= eta + 1e-12 for eta in etas)
    if n_epochs > 1:
        assert etas[-1] == pytest.approx(0.2)


def test_short_runs_settle_over_their_last_fifth():
    for n_epochs, first in ((5, 4), (10, 8), (11, 9), (12, 2), (50, 40)):
        etas = [momentum_schedule(k, n_epochs).eta for k in range(1, n_epochs + 1)]
        assert etas.index(pytest.approx(0.2)) == first - 1


def test_mistakes():
    with pytest.raises(EEGTensorError, match="count epochs from 1"):
        momentum_schedule(0, 50)
    with pytest.raises(EEGTensorError, match="at most the whole batch"):
        momentum_schedule(1, 50, batch_size=5)
    with pytest.raises(EEGTensorError, match="compat"):
        momentum_schedule(1, 50, compat="yes")
