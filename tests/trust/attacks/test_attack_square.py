"""The Square attack: scores only, its queries, its squares, and surrogates."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.trust.attacks import PGD, Square, square
from eegtensor.trust.attacks.square import _share, _squared


class Counting:
    """A linear decoder that counts how many trials it was asked about."""

    def __init__(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.W = torch.randn(2, 60, generator=g)
        self.asked = 0

    def __call__(self, x):
        assert not torch.is_grad_enabled()
        self.asked += len(x)
        return x.flatten(1) @ self.W.T


@pytest.fixture
def trials():
    g = torch.Generator().manual_seed(1)
    return torch.randn(40, 3, 20, generator=g)


def test_every_score_is_counted_and_fooled_trials_are_left_alone(trials):
    x = trials
    f = Counting()
    y = torch.zeros(40, dtype=torch.int64)
    with torch.no_grad():
        wrong = f(x).argmax(1) == 1
    f.asked = 0
    found = square(f, x, y, eps=0.2, n_queries=60)
    assert f.asked == found.queries.sum()
    assert found.queries.max() <= 60
    assert (found.queries[wrong] == 1).all()
    assert torch.equal(found.x[wrong], x[wrong])
    with torch.no_grad():
        fooled = f(found.x).argmax(1) == 1
    # Who stopped early was fooled, who was not fooled used all queries.
    assert fooled[found.queries < 60].all()
    assert (found.queries[~fooled] == 60).all()


def test_it_stays_in_the_ball_and_at_its_border(trials):
    x = trials
    y = torch.zeros(40, dtype=torch.int64)
    found = square(Counting(), x, y, eps=0.05, n_queries=30)
    s = x.std(dim=(0, 2), keepdim=True, correction=0)
    size = ((found.x - x) / s).abs()
    asked = found.queries > 1
    torch.testing.assert_close(
        size[asked], torch.full_like(size[asked], 0.05), rtol=0, atol=1e-5
    )


def test_given_queries_enough_it_finds_the_worst_of_a_linear_decoder():
    # The worst lead is known in closed form: eps ||w||_1. Nothing is fooled on the way.
    g = torch.Generator().manual_seed(3)
    x = torch.randn(4, 2, 6, generator=g, dtype=torch.float64)
    w = torch.randn(12, generator=g, dtype=torch.float64)
    one = torch.ones(1, 1, 1, dtype=torch.float64)

    def f(x):
        z = x.flatten(1) @ w
        return torch.stack([z + 1000, -z], 1)

    y = torch.zeros(4, dtype=torch.int64)
    found = square(f, x, y, eps=0.5, n_queries=800, scale=one)
    gain = -((found.x - x).flatten(1) @ w)
    torch.testing.assert_close(gain, (0.5 * w.abs().sum()).expand(4))


def test_squares_hold_the_share_that_is_asked_for():
    d = torch.full((500, 8, 100), 2.0)
    g = torch.Generator().manual_seed(0)
    touched = torch.zeros(8, 100, dtype=torch.bool)
    for share in (0.5, 0.1, 0.01):
        new = _squared(d, 1.0, share, g)
        inside = new != d
        assert inside.flatten(1).double().mean() == pytest.approx(share, rel=0.25)
        # One sign a channel, over one segment that is the same for all channels.
        rows = inside.any(2)
        when = inside.any(1)
        assert torch.equal(inside, rows[:, :, None] & when[:, None, :])
        touched |= inside.any(0)
        edges = (when[:, 1:] != when[:, :-1]).sum(1)
        assert (edges <= 2).all()
    # Every channel and every sample has its turn.
    assert touched.all()


def test_a_square_always_changes_something():
    d = _squared(torch.zeros(300, 1, 1), 1.0, 1.0, torch.Generator().manual_seed(0))
    again = _squared(d, 1.0, 1.0, torch.Generator().manual_seed(1))
    assert (again != d).all()


def test_shares_are_halved_as_in_the_released_code():
    at = [_share(0.8, k, 10_000) for k in (10, 11, 51, 201, 501, 1001, 8001)]
    assert at == [0.8 / 2**k for k in (0, 1, 2, 3, 4, 5, 9)]
    assert _share(0.8, 12, 1000) == _share(0.8, 120, 10_000)


def test_surrogates_that_know_the_decoder_make_each_query_worth_more(trials):
    y = torch.zeros(40, dtype=torch.int64)

    def gain(surrogates):
        target = Counting()
        target.W[0] += 100
        # A lead that nothing closes: all trials use all queries.
        x = trials + 20
        found = square(target, x, y, eps=0.1, n_queries=40, surrogates=surrogates)
        assert target.asked == found.queries.sum() == 40 * 40
        w = target.W[1] - target.W[0]
        return float(((found.x - x).flatten(1) @ w).mean())

    twin = Counting()
    twin.W[0] += 100
    alone, helped, misled = gain([]), gain([twin]), gain([Counting(9)])
    assert helped > 1.2 * alone
    assert misled < helped


def test_fewer_trials_are_fooled_than_along_the_gradient(wave_net, wave_trials):
    x, y = (v.numpy() for v in wave_trials)
    found = Square(0.2, n_queries=60).perturb(wave_net, x, y)
    clean = PGD(0.0, n_steps=1).perturb(wave_net, x, y).accuracy
    white = PGD(0.2, n_steps=20).perturb(wave_net, x, y).accuracy
    assert white < found.accuracy < clean
    again = Square(0.2, n_queries=60).perturb(wave_net, x, y)
    assert (again.X == found.X).all()
    assert found.queries.shape == (200,)


def test_targets_are_reached(wave_net, wave_trials):
    x, y = (v.numpy()[:40] for v in wave_trials)
    found = Square(0.6, n_queries=300, targeted=True).perturb(wave_net, x, (y + 1) % 3)
    assert found.fooled.mean() > 0.5


def test_mistakes_are_explained(trials):
    y = torch.zeros(40, dtype=torch.int64)
    with pytest.raises(EEGTensorError, match="share=0"):
        square(Counting(), trials, y, share=0.0)
    with pytest.raises(EEGTensorError, match="n_queries=0"):
        square(Counting(), trials, y, n_queries=0)
