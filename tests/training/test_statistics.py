"""Statistics are back bit for bit, and gradients do not notice."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import StatisticsGuard, copy_statistics, evaluating


class Growing(nn.Module):
    """Replaces its buffer by a larger one, adds a new one, and counts its calls."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(1, 3))
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.register_buffer("empty", None)

    def train(self, mode=True):
        if not mode:
            self.hidden.data.fill_(7)
        return super().train(mode)

    def forward(self, x):
        self.calls += 1
        self.table = torch.cat([self.table, x[:1]])
        self.hidden.data.add_(1)
        self.empty = x.sum()
        self.register_buffer("late", x.mean())
        return x


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), Growing()
    ).train()


def buffers(net):
    return [dict(m._buffers) for m in net.modules()]


def assert_untouched(net, kept):
    tensors, values = kept
    now = buffers(net)
    assert [list(b) for b in now] == [list(b) for b in tensors]
    for a, b, v in zip(now, tensors, values, strict=True):
        for name in a:
            assert a[name] is b[name], "the same tensor"
            assert a[name] is None or torch.equal(a[name], v[name])


@pytest.mark.parametrize("mode", ["transient", "eval"])
@pytest.mark.parametrize("error", [False, True])
def test_everything_is_back(net, mode, error):
    kept = buffers(net), copy.deepcopy(buffers(net))
    training = [m.training for m in net.modules()]
    net[3].calls = 2
    net[2].eval()
    training[3] = False
    try:
        with StatisticsGuard(net, mode):
            net(torch.randn(5, 3) + 4)
            assert net[3].late is not None and net[3].calls == 3
            assert net[3].hidden.tolist() == [8 if mode == "eval" else 1] * 3
            if error:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert_untouched(net, kept)
    assert [m.training for m in net.modules()] == training
    assert net[3].calls == 2


def test_commit_moves_and_transient_moves_a_copy(net):
    x = torch.randn(5, 3) + 4
    with StatisticsGuard(net, "transient"):
        net(x)
        moved = net[1].running_mean.clone()
    assert net[1].running_mean.abs().max() == 0
    with StatisticsGuard(net, "commit"):
        net(x)
    torch.testing.assert_close(net[1].running_mean, moved, rtol=0, atol=0)
    assert moved.abs().min() > 0


def test_eval_normalises_by_the_statistics_and_keeps_dropout(net):
    with StatisticsGuard(net, "eval"):
        assert not net[1].training and not net[3].training
        assert net[2].training and net[0].training, "they have no statistics"
        x = torch.randn(5, 3) + 4
        z = net[0](x)
        torch.testing.assert_close(net[1](z), z / (1 + 1e-5) ** 0.5)


def test_only_modules_with_statistics_are_evaluated():
    outer = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3, track_running_stats=False))
    outer.register_buffer("scale", torch.ones(()))
    with StatisticsGuard(outer, "eval"):
        assert not outer.training and outer[0].training and outer[1].training
    assert outer.training


def test_an_error_at_the_door_leaves_nothing_behind(net):
    kept = buffers(net), copy.deepcopy(buffers(net))

    def fail(mode=True):
        raise RuntimeError("no evaluation")

    net[3].train = fail
    with pytest.raises(RuntimeError, match="no evaluation"):
        StatisticsGuard(net, "eval").__enter__()
    assert_untouched(net, kept)
    assert all(m.training for m in net.modules())


def test_a_gradient_may_flow_after_the_guard():
    # Evaluation keeps the buffer itself for the backward pass.
    norm = nn.BatchNorm1d(3)
    norm.running_var.fill_(4.0)
    x = torch.randn(5, 3, requires_grad=True)
    with StatisticsGuard(norm, "eval"):
        y = norm(x)
    norm(torch.randn(5, 3))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.full((5, 3), 0.5), rtol=1e-5, atol=0)


def test_shared_buffers_stay_shared():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    net[1].running_mean = net[0].running_mean
    with StatisticsGuard(net, "transient"):
        assert net[1].running_mean is net[0].running_mean
    assert net[1].running_mean is net[0].running_mean


def test_second_pass_starts_where_the_first_did(toy, trials):
    """momentum = 0 and a second update are both wrong; the snapshot is exact."""
    batch = trials(40, dtype=torch.float64)
    net = toy(dropout=0.0, dtype=torch.float64)
    net.norm.mean.normal_(generator=torch.Generator().manual_seed(1))

    def gradient(model, x):
        model.zero_grad()
        model(x, batch.domain).logsumexp(1).sum().backward()
        return model.frame.grad.clone()

    moved = batch.x * 1.1
    wanted = gradient(copy.deepcopy(net), moved)
    start = copy_statistics(net)
    gradient(net, batch.x)
    committed = {k: v.clone() for k, v in net.named_buffers()}
    with StatisticsGuard(net, "transient", start=start):
        got = gradient(net, moved)
    assert torch.equal(got, wanted)
    assert all(torch.equal(v, committed[k]) for k, v in net.named_buffers())
    with StatisticsGuard(net, "transient"):
        naive = gradient(net, moved)
    assert (naive - wanted).norm() / wanted.norm() > 0.05, "the test can fail"


def test_evaluating_puts_flags_back(net):
    net[1].eval()
    with pytest.raises(ZeroDivisionError), evaluating(net):
        assert not any(m.training for m in net.modules())
        _ = 1 / 0
    assert [m.training for m in net] == [True, False, True, True]


def test_unknown_mode(net):
    with pytest.raises(EEGTensorError, match="mode='off' is not known"):
        StatisticsGuard(net, "off")
