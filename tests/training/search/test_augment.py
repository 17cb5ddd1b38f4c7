"""Augmentations, their policy, and the search for one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, build, make_plugs, train
from eegtensor.training.recipes import (
    OPERATIONS,
    AdaptiveNaturalGradient,
    Augment,
    augmented,
    search_augmentation,
    uniform_policy,
)
from eegtensor.training.recipes.augmentations import (
    amplitude,
    channel_dropout,
    noise,
    shifted_spectrum,
    time_shift,
)
from eegtensor.training.recipes.naturalgradient import _utilities


def signals(n=16, c=4, t=128, seed=0, dtype=torch.float32):
    return torch.randn(
        n, c, t, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_each_operation_by_what_it_is():
    x, one = signals(400), torch.ones(400)
    silent = (channel_dropout(x, 0.3 * one, generator()) == 0).all(-1)
    assert abs(silent.double().mean() - 0.3) < 0.04
    rolled = time_shift(x, 0.25 * one, generator())
    shifts = []
    for a, b in zip(x[:50], rolled[:50], strict=True):
        (k,) = [k for k in range(-32, 33) if torch.equal(a.roll(k, -1), b)]
        shifts.append(k)
    assert min(shifts) < -15 and max(shifts) > 15
    ratio = amplitude(x, 0.5 * one, generator()) / x
    assert (ratio - ratio[:, :1, :1]).abs().max() < 1e-4
    assert abs(ratio[:, 0, 0].log().std() - 0.5) < 0.06
    loud = x * torch.tensor([1.0, 10.0, 100.0, 1e-6])[:, None]
    added = (noise(loud, 0.2 * one, generator()) - loud).std(dim=(0, 2))
    torch.testing.assert_close(added, 0.2 * loud.std(dim=(0, 2)), rtol=0.05, atol=0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_unit_does_not_matter_and_shape_stays(name):
    x = signals(dtype=torch.float64)
    policy = uniform_policy([name], probability=1.0)
    a, b = (augmented(s * x, policy, generator()) for s in (1.0, 1e-6))
    assert a.shape == x.shape and a.dtype == x.dtype
    torch.testing.assert_close(a, 1e6 * b, rtol=1e-8, atol=1e-8)
    assert not torch.equal(a, x)


def test_spectrum_moves_by_the_cycles_given():
    t = torch.arange(256, dtype=torch.float64)
    x = torch.sin(2 * torch.pi * 20 / 256 * t).expand(2, 3, 256)
    cycles = torch.tensor([5.0, -8.0]).double() / 256
    power = torch.fft.rfft(shifted_spectrum(x, cycles)).abs()
    assert power.argmax(-1).tolist() == [[25] * 3, [12] * 3]


def test_frequency_shift_channels_and_noise_are_braindecodes():
    functional = pytest.importorskip("braindecode.augmentation.functional")
    x = signals(5, 4, 200, dtype=torch.float64)
    hertz = torch.tensor([1.5, -2.0, 0.0, 3.0, 0.7], dtype=torch.float64)
    wanted, _ = functional.frequency_shift(x, torch.zeros(5), hertz, 100.0)
    got = shifted_spectrum(x, hertz / 100.0)
    # Theirs comes back in float32.
    torch.testing.assert_close(got.float(), wanted.float(), atol=1e-5, rtol=1e-5)
    flipped, _ = functional.sign_flip(x, torch.zeros(5))
    assert torch.equal(OPERATIONS["sign-flip"].function(x, None), flipped)
    reversed_, _ = functional.time_reverse(x, torch.zeros(5))
    assert torch.equal(OPERATIONS["time-reverse"].function(x, None), reversed_)


def test_policy_is_drawn_for_each_trial():
    policy = uniform_policy(["sign-flip"], probability=0.3)
    x = signals(1000)
    flipped = augmented(x, policy, generator())[:, 0, 0] == -x[:, 0, 0]
    assert abs(flipped.double().mean() - 0.3) < 0.05
    used = torch.tensor([True])
    assert torch.equal(augmented(x, policy, used=used), -x)
    with pytest.raises(EEGTensorError, match="operations"):
        uniform_policy(["mirror"])
    with pytest.raises(EEGTensorError, match="n_channels"):
        augmented(torch.randn(3, 4), policy)


class Conv(nn.Module):
    """Log powers of the channels; a sign is of the first samples."""

    def __init__(self, c=4, t=32):
        super().__init__()
        self.head = nn.Linear(c * t, 2)

    def forward(self, x):
        return self.head(x.flatten(1))


def test_in_a_run_by_name():
    x = signals(60, t=32)
    data = Batch(x, torch.arange(60) % 2)
    kept = x.clone()
    states = []
    for name in ("augment", "augment", None):
        torch.manual_seed(0)
        net = Conv()
        plugs = make_plugs(Setup(net, data, batch_size=20), perturbation=name)
        train(net, data, epochs=2, **plugs)
        states.append(net.head.weight.detach())
    assert torch.equal(x, kept)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    plug = build(
        "augment(operations=('noise',), probability=0.1)",
        "perturbation",
        Setup(net, data),
    )
    assert plug.policy.operations == ("noise",)
    with pytest.raises(EEGTensorError, match="front"):
        make_plugs(Setup(net, data), perturbation="augment", raw_trials=False)


def test_step_is_of_the_length_and_direction_of_the_natural_gradient():
    state = AdaptiveNaturalGradient(2, 2, delta=0.3)
    a = torch.tensor([True, False]), torch.tensor([0, 1])
    b = torch.tensor([False, False]), torch.tensor([1, 1])
    state.tell([a, b], torch.tensor([0.2, 0.7]))
    # G by hand: used - p is (.5, -.5) and (-.5, -.5), with u = 1 and -1.
    of_p, of_q = np.array([0.5, 0.0]), np.array([[0.25, -0.25], [0.0, 0.0]])
    length = math.sqrt((of_p**2 / 0.25).sum() + (of_q**2 / 0.5).sum())
    # The first step has the first delta; delta is adapted behind it, |s|^2 = gamma.
    np.testing.assert_allclose(state.probability, 0.5 + 0.3 / length * of_p)
    np.testing.assert_allclose(
        state.share, np.clip(0.5 + 0.3 / length * of_q, 0.05, 0.95)
    )
    beta = 0.3 / math.sqrt(4)
    gain = beta * (2 - beta)
    delta = 0.3 * math.exp(beta * (gain / 1.5 - gain))
    np.testing.assert_allclose(state.delta, delta)
    np.testing.assert_allclose(state.gamma, gain)
    # The second is shorter, and |s| and gamma are decayed sums.
    p, q = state.probability.clone(), state.share.clone()
    state.tell([a, b], torch.tensor([0.7, 0.2]))
    used = np.array([[1.0, 0.0], [0.0, 0.0]])
    of_p = -((used - p.numpy()) * [[1.0], [-1.0]]).mean(0)
    length = np.sqrt(
        (of_p**2 / (p * (1 - p)).numpy()).sum()
        + (
            ((np.array([[1.0, 0.0], [0.0, 1.0]]) - q.numpy())[0] / -2) ** 2
            / q[0].numpy()
        ).sum()
    )
    np.testing.assert_allclose(state.probability, p + delta / length * of_p, rtol=1e-6)
    beta = delta / math.sqrt(4)
    wanted = (1 - beta) ** 2 * gain + beta * (2 - beta)
    np.testing.assert_allclose(state.gamma, wanted)
    before = state.probability.clone()
    state.tell([a, b], torch.tensor([0.5, 0.5]))
    assert torch.equal(state.probability, before)


def test_search_finds_what_helps_and_what_destroys():
    """A shortcut in one channel of the training people; classes differ by sign."""

    def draw(n, shortcut, seed):
        g = torch.Generator().manual_seed(seed)
        y = torch.randint(2, (n,), generator=g)
        x = torch.randn(n, 4, 32, generator=g)
        s = (2.0 * y - 1)[:, None]
        x[:, 0] += 0.35 * s
        x[:, 1] += 0.35 * s
        x[:, 3] += 1.5 * (s if shortcut else s[torch.randperm(n, generator=g)])
        return Batch(1e-5 * x, y)

    torch.manual_seed(0)

    class Net(Conv):
        def forward(self, x):
            return super().forward(x * 1e5)

    found = search_augmentation(
        Net(),
        draw(400, True, 0),
        draw(400, False, 1),
        ["channel-dropout", "sign-flip"],
        n_steps=120,
        lr=0.05,
        look_ahead=4,
    )
    dropout, flip = found.policy.probability
    assert found.probabilities.shape == (120, 2)
    assert flip < 0.06, found.policy
    assert dropout > 0.7, found.policy
    Augment(policy=found.policy)


def test_trials_without_a_label_are_left_out_of_the_search():
    x = signals(60, t=32)
    y = torch.arange(60) % 2
    y[:40] = -1
    found = []
    for data in (Batch(x, y), Batch(x[40:], y[40:])):
        torch.manual_seed(0)
        found.append(
            search_augmentation(
                Conv(), data, Batch(x[40:], y[40:]), ["noise"], n_steps=3, look_ahead=1
            )
        )
    assert torch.equal(found[0].probabilities, found[1].probabilities)
    with pytest.raises(EEGTensorError, match="No trial has a label"):
        search_augmentation(
            Conv(), Batch(x, torch.full_like(y, -1)), Batch(x, y), ["noise"]
        )


def test_options_of_the_wrong_type():
    for options in ({"policy": 3}, {"magnitude": -1.0}, {"probability": 2}):
        with pytest.raises(EEGTensorError, match="What to do"):
            Augment(**options)
    with pytest.raises(EEGTensorError, match="n_levels"):
        uniform_policy(["noise"], n_levels=0)
    assert Augment("noise").policy.operations == ("noise",)


def test_utilities_of_quarters_and_of_ties():
    losses = torch.tensor([5.0, 1, 7, 3, 2, 8, 4, 6])
    assert _utilities(losses).tolist() == [0, 1, -1, 0, 1, -1, 0, 0]
    # Three share the places 2 to 4, of which one is among the best two.
    tied = _utilities(torch.tensor([1.0, 2, 2, 2, 5, 6, 7, 8]))
    torch.testing.assert_close(
        tied, torch.tensor([1, 1 / 3, 1 / 3, 1 / 3, 0, 0, -1, -1]).double()
    )
    assert _utilities(torch.ones(4)).tolist() == [0.0] * 4


def test_steps_grow_no_longer_than_the_first():
    state = AdaptiveNaturalGradient(2, 2, delta=0.1)
    a = torch.tensor([True, False]), torch.tensor([0, 1])
    b = torch.tensor([False, False]), torch.tensor([1, 1])
    lengths = []
    for _ in range(60):
        state.tell([a, b], torch.tensor([0.2, 0.7]))
        lengths.append(state.delta)
    assert min(lengths) < 0.1 and max(lengths) <= 0.1 and lengths[-1] > min(lengths)


def test_candidates_and_the_step_begin_at_the_same_weights(monkeypatch):
    from eegtensor.training.recipes import augmentationsearch as module

    starts, own = [], module._descend

    def descend(network, batch, lr):
        starts.append(network.space.snapshot()["head.weight"])
        own(network, batch, lr)

    monkeypatch.setattr(module, "_descend", descend)
    data = Batch(signals(40, t=32), torch.arange(40) % 2)
    torch.manual_seed(0)
    search_augmentation(Conv(), data, data, ["noise"], n_steps=3, look_ahead=1)
    assert len(starts) == 9
    for k in (0, 3, 6):
        assert torch.equal(starts[k], starts[k + 1])
        assert torch.equal(starts[k], starts[k + 2])
    assert not torch.equal(starts[0], starts[3])
