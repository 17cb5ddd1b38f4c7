"""Self-similarity of sinusoids and of noise, and the slow copy."""

from __future__ import annotations

import math

import geoopt
import numpy as np
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    Network,
    ShuffleSampler,
    StepContext,
    make_optimizer,
    train,
)
from eegtensor.training.objectives import SelfSimilarity
from eegtensor.training.objectives.rhythms import (
    band_loss,
    diagonal_spread,
    pearson,
    similarity_matrix,
    wave_of,
)

SFREQ = 128.0


def rhythm(f, n=128, seed=0):
    """A sinusoid and its quadrature: a rhythm whose cosines depend on lag alone."""
    t = torch.arange(n, dtype=torch.float64) / SFREQ
    phase = 2 * math.pi * f * t + seed
    return torch.stack([phase.cos(), phase.sin()], 1)[None]


def noise(n=128, d=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(4, n, d, generator=g, dtype=torch.float64)


def both(h):
    S = similarity_matrix(h)
    return float(diagonal_spread(S).mean()), float(
        band_loss(wave_of(S), SFREQ, 8, 13).mean()
    )


def test_a_rhythm_in_the_band_has_no_loss_and_noise_has():
    spread, outside = both(rhythm(10.0))
    assert spread < 1e-6 and outside < 0.02
    assert both(rhythm(30.0))[1] > 100
    worse = both(noise())
    assert worse[0] > 5 * max(spread, 1e-3) and worse[1] > 5 * outside


def test_parts_are_those_worked_out_one_entry_at_a_time():
    h = noise(12, 3)
    S = similarity_matrix(h)
    for i in range(4):
        a = h[i].numpy()
        unit = a / np.linalg.norm(a, axis=1, keepdims=True)
        matrix = unit @ unit.T
        np.testing.assert_allclose(S[i].numpy(), matrix, atol=1e-12)
        diagonals = [np.diagonal(matrix, k) for k in range(12)]
        np.testing.assert_allclose(
            wave_of(S)[i].numpy(), [d.mean() for d in diagonals], atol=1e-12
        )
        spread = np.mean([d.std() * len(d) / 12 for d in diagonals[:-1]])
        assert float(diagonal_spread(S)[i]) == pytest.approx(spread, abs=2e-6)
        r = np.corrcoef(a[:, 0], a[:, 1])[0, 1]
        assert float(pearson(h[:, :, 0], h[:, :, 1])[i]) == pytest.approx(r)


class Sequences(nn.Module):
    """Two filters over time of mixed channels; a manifold, and a batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        frame = torch.linalg.qr(torch.randn(4, 2))[0].contiguous()
        self.frame = geoopt.ManifoldParameter(frame, manifold=geoopt.EuclideanStiefel())
        self.conv = nn.Conv1d(2, 2, 9, padding=4)
        self.norm = nn.BatchNorm1d(2)
        self.head = nn.Identity()

    def forward(self, x):
        return self.norm(self.conv(self.frame.T @ x)).mT


def recordings(n=24, seed=0):
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(128) / SFREQ
    phase = 2 * math.pi * torch.rand(n, 1, generator=g)
    alpha = torch.sin(2 * math.pi * 10 * t + phase)
    mixing = torch.randn(4, 1, generator=g)
    return mixing * alpha[:, None] + torch.randn(n, 4, 128, generator=g)


def run(method, epochs=15, x=None):
    net, data = Sequences(), Batch(recordings() if x is None else x)
    history = train(
        net,
        data,
        objective=method,
        optimizer=make_optimizer(net, "riemannian-adam", lr=0.02, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=12),
        epochs=epochs,
        random_state=0,
    )
    return net, history


def test_training_finds_the_rhythm():
    untrained = Sequences().eval()
    net, _ = run(SelfSimilarity(SFREQ))
    alone, _ = run(SelfSimilarity(SFREQ, similarity=0.0))
    fresh = recordings(seed=1)

    def share(model):
        h = model(fresh).detach()
        power = torch.fft.rfft(h - h.mean(1, keepdim=True), dim=1).abs().square().sum(2)
        return float((power[:, 8:14].sum(1) / power.sum(1)).mean())

    # The slow copy holds it back: more slowly, the same way.
    assert share(net) > share(untrained) + 0.02
    assert share(alone) > share(untrained) + 0.3


def test_the_slow_copy_moves_by_its_share_and_stays_on_the_manifold():
    method = SelfSimilarity(SFREQ, momentum=0.75)
    trace = []

    class Watch:
        def on_step_end(self, state):
            slow = dict(method.teacher.named_parameters())
            trace.append(
                (slow["conv.weight"].clone(), state.model.conv.weight.detach().clone())
            )

    net, data = Sequences(), Batch(recordings(12))
    first = net.conv.weight.detach().clone()
    train(
        net,
        data,
        objective=method,
        optimizer=make_optimizer(net, "riemannian-adam", lr=0.1, weight_decay=0.0),
        sampler=ShuffleSampler(12, batch_size=12),
        epochs=3,
        callbacks=[Watch()],
    )
    slow = first
    for copy, own in trace:
        slow = 0.75 * slow + 0.25 * own
        torch.testing.assert_close(copy, slow, rtol=1e-5, atol=1e-6)
    frame = dict(method.teacher.named_parameters())["frame"].as_subclass(torch.Tensor)
    torch.testing.assert_close(frame.T @ frame, torch.eye(2), atol=1e-6, rtol=0)


def test_losses_do_not_depend_on_the_unit_of_the_noise():
    class Unit(Sequences):
        def forward(self, x):
            return super().forward(x / x.detach().std())

    losses = []
    for unit in (1.0, 1e-6):
        method = SelfSimilarity(SFREQ)
        net, data = Unit(), Batch(recordings(8) * unit)
        history = train(
            net,
            data,
            objective=method,
            optimizer=make_optimizer(net, "riemannian-sgd", lr=0.0, weight_decay=0.0),
            sampler=ShuffleSampler(8, batch_size=8),
            epochs=1,
        )
        losses.append(history[0]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="low=20"):
        SelfSimilarity(SFREQ, low=20, high=10)
    with pytest.raises(EEGTensorError, match="sequences"):
        SelfSimilarity(SFREQ)(None, Batch(torch.ones(2, 3)), torch.ones(2, 3), None)


def test_the_slow_copy_listens_in_training_and_has_the_networks_statistics():
    method, modes = SelfSimilarity(SFREQ), []

    class Watch:
        def on_step_end(self, state):
            modes.append(method.teacher.training)
            pairs = zip(method.teacher.buffers(), state.model.buffers(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)

    # As it is left by a run before.
    net, data = Sequences().eval(), Batch(recordings(12))
    more = {"sampler": ShuffleSampler(12, batch_size=6), "epochs": 1}
    for _ in range(2):
        train(
            net,
            data,
            objective=method,
            optimizer=make_optimizer(net, "riemannian-adam", lr=0.1, weight_decay=0.0),
            callbacks=[Watch()],
            **more,
        )
        # A second run begins with a copy of what the network is by then.
        slow = dict(method.teacher.named_parameters())["conv.weight"]
        assert (slow - net.conv.weight).abs().max() < 0.2
        with torch.no_grad():
            net.conv.weight += 5.0
    assert modes == [True] * 4


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 0.5, 3.0)])
def test_the_loss_is_the_published_sum(weights):
    torch.manual_seed(0)
    net, teacher = (nn.Linear(3, 2).double() for _ in range(2))
    x = torch.randn(4, 32, 3, dtype=torch.float64)
    similarity, toeplitz, power = weights
    method = SelfSimilarity(
        SFREQ, noise=0.0, similarity=similarity, toeplitz=toeplitz, power=power
    )
    method.teacher = teacher
    context = StepContext(Network(net), None, Batch(x))
    got = method(net, Batch(x), net(x), context)
    S, T = similarity_matrix(net(x)), similarity_matrix(teacher(x))
    agree = torch.zeros(4, dtype=torch.float64)
    for a, b in ((S.flatten(1), T.flatten(1)), (wave_of(S), wave_of(T))):
        r = [np.corrcoef(*pair)[0, 1] for pair in zip(*_arrays(a, b), strict=True)]
        agree = agree + (a - b).square().mean(1) + 1 - torch.tensor(r)
    wanted = 0.5 * similarity * agree + 0.5 * toeplitz * diagonal_spread(S)
    wanted = wanted + 0.2 * power * band_loss(wave_of(S), SFREQ, 8.0, 13.0)
    torch.testing.assert_close(got, wanted)


def _arrays(*tensors):
    return [t.detach().numpy() for t in tensors]
