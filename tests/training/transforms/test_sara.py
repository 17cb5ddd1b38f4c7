"""SaRA: only the smallest weights move."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    Checkpoint,
    CrossEntropy,
    Setup,
    ShuffleSampler,
    StepContext,
    build,
    make_optimizer,
    train,
)
from eegtensor.training.network import Network
from eegtensor.training.transforms import SaRA


class Wide(nn.Module):
    def __init__(self, n=70):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            super().__init__()
            self.first, self.second = nn.Linear(12, n), nn.Linear(n, n)
            self.norm, self.head = nn.BatchNorm1d(n), nn.Linear(n, 2)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.second(torch.relu(self.first(x))))))


def trials(n=120):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 12, generator=g)
    return Batch(x, (x[:, 0] * x[:, 1] > 0).long())


def run(net, sara, epochs=4, decay=0.1, lr=1e-2, **options):
    data = options.pop("data", None) or trials()
    return train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-adam", lr=lr, weight_decay=decay),
        sampler=ShuffleSampler(len(data), batch_size=30, random_state=0),
        epochs=epochs,
        grad_transform=sara,
        random_state=0,
        **options,
    )


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_the_share_that_was_asked_for_moves_and_no_bit_of_the_rest(share):
    net, sara = Wide(), SaRA(share, progressive=1.0)
    before = copy.deepcopy(net)
    run(net, sara)
    moved = total = 0
    for (name, p), q in zip(net.named_parameters(), before.parameters(), strict=True):
        changed = p.detach() != q.detach()
        if p.ndim < 2:
            assert not changed.any(), name
            continue
        mask = sara.masks[name]
        assert torch.equal(p.detach()[~mask], q.detach()[~mask])
        assert (q.detach().abs() < sara.threshold).eq(mask).all()
        # The sign stays part of the weight: none starts at its size.
        assert (q.detach()[mask] < 0).any()
        moved, total = moved + int(mask.sum()), total + p.numel()
        assert changed[mask].float().mean() > 0.9
    assert moved == int(share * total)


def test_after_half_of_the_epochs_what_grew_stays_where_it_is():
    net, sara = Wide(), SaRA(0.2)
    states, masks = [], []

    class Watch:
        def on_epoch_end(self, state):
            states.append(copy.deepcopy(net))
            masks.append({n: m.clone() for n, m in sara.masks.items()})

    run(net, sara, epochs=6, callbacks=[Watch()])
    grown = 0
    for name, mask in masks[0].items():
        middle, end = (s.get_parameter(name).detach() for s in (states[2], states[-1]))
        kept = mask & (middle.abs() < sara.threshold)
        assert torch.equal(masks[-1][name], kept)
        left = mask & ~kept
        grown += int(left.sum())
        assert torch.equal(middle[left], end[left])
    assert grown > 20


def test_the_nuclear_norm_falls_and_its_gradient_is_the_polar_factor():
    net = Wide()
    sara = SaRA(0.15, nuclear=0.1, progressive=1.0)
    with torch.no_grad():
        before = copy.deepcopy(net)
    run(net, sara, epochs=3)
    plain, none = copy.deepcopy(before), SaRA(0.15, nuclear=0.0, progressive=1.0)
    run(plain, none, epochs=3)
    mask = sara.masks["second.weight"]

    def norm(model):
        part = model.second.weight.detach() * mask
        return float(torch.linalg.matrix_norm(part, "nuc"))

    assert norm(net) < 0.9 * norm(plain)
    context = StepContext(Network(net), None, None, step=1)
    zeros = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    found = sara(zeros, context)["second.weight"]
    weight = net.second.weight.detach().double().requires_grad_(True)
    (0.1 * torch.linalg.matrix_norm(weight * mask, "nuc")).backward()
    assert torch.allclose(found.double(), weight.grad, atol=1e-4)


def test_manifold_leaves_keep_their_bits(toy, trials):
    net = toy()
    before = copy.deepcopy(net)
    run(net, SaRA(0.5), data=trials(96))
    for (name, p), q in zip(net.named_parameters(), before.parameters(), strict=True):
        same = torch.equal(p.detach(), q.detach())
        assert same == (name != "head.weight"), name


def test_a_run_that_stops_goes_on_to_the_same_bits(tmp_path):
    whole, parts = Wide(), Wide()
    run(whole, SaRA(0.2), epochs=6)
    checkpoint = Checkpoint(tmp_path / "run")

    class Stop:
        def on_epoch_start(self, state):
            if state.epoch == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(parts, SaRA(0.2), epochs=6, checkpoint=checkpoint, callbacks=[Stop()])
    again = Wide()
    run(again, SaRA(0.2), epochs=6, checkpoint=Checkpoint(tmp_path / "run"))
    for p, q in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_by_name_and_mistakes():
    net, data = Wide(), trials()
    made = build("sara(share=0.1)", "gradient transform", Setup(net, data))
    assert isinstance(made, SaRA) and made.share == 0.1
    for options in ({"share": 0.0}, {"share": 2.0}, {"progressive": -1.0}):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            SaRA(**options)
    with pytest.raises(EEGTensorError, match="chosen no"):
        SaRA()({}, None)
