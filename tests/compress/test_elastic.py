"""Elastic numbers of bits (EQ-Net) and learned scales (LSQ)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import (
    Elastic,
    ElasticLayer,
    Form,
    GroupProgressive,
    compress,
    fake_quantise,
    search_forms,
    set_form,
)
from eegtensor.compress.elastic import best_scale
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    StepContext,
    WeightedSum,
    refit_statistics,
)
from eegtensor.training.objectives.weightshape import moments


def test_thirty_two_bits_are_the_identity():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    scale = x.abs().max() / 2**31
    assert (fake_quantise(x, scale, bits=32) - x).abs().max() <= 1e-5


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_scale_has_lsqs_gradient(bits):
    x = torch.linspace(-3, 3, 401, dtype=torch.float64)
    scale = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    fake_quantise(x, scale, bits=bits, gradient_scale=0.1).sum().backward()
    low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    v = x / 0.4
    each = torch.where(v <= low, low, torch.where(v >= high, high, v.round() - v))
    assert scale.grad.item() == pytest.approx(0.1 * each.sum().item(), abs=1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_start_is_the_best_of_those_tried_in_every_unit(symmetric):
    g = torch.Generator().manual_seed(0)
    rows = (
        torch.randn(3, 500, generator=g).abs()
        if not symmetric
        else torch.randn(3, 500, generator=g)
    )
    scale, offset = best_scale(rows, 3, symmetric=symmetric)
    error = (fake_quantise(rows, scale[:, None], offset[:, None], bits=3) - rows).norm()
    widest = rows.abs().amax(1) / 3.5
    plain = (fake_quantise(rows, widest[:, None], bits=3) - rows).norm()
    assert error < 0.8 * plain
    tiny = best_scale(1e-6 * rows, 3, symmetric=symmetric)
    for a, b in zip(tiny, (scale, offset), strict=True):
        assert torch.allclose(a, 1e-6 * b, rtol=1e-5)


def elastic(net, data, **options):
    maker = Elastic(**({"min_size": 1} | options))
    return maker, maker.prepare(net, data)


def test_a_step_has_the_sum_of_all_forms_gradients(net, toy):
    _, made = elastic(net, toy[0])
    made.train()
    batch, task = toy[0].pick(torch.arange(50)), WeightedSum(CrossEntropy())
    network = Network(made)
    generator = torch.Generator().manual_seed(3)
    context = StepContext(network, task, batch, step=1, generator=generator)
    objective = GroupProgressive(CrossEntropy(), soft=0.5)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    outputs = network(batch)
    loss = task(batch, outputs, context) + objective(made, batch, outputs, context)
    loss.backward()
    found = {
        n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None
    }
    # One form after the other, each by its own backward pass, on equal statistics.
    total = {n: torch.zeros_like(g) for n, g in found.items()}
    taught = None
    for k, form in enumerate([None, *objective.forms(made, context)]):
        made.load_state_dict(before)
        made.zero_grad()
        if form is not None:
            set_form(made, form)
        now = network(batch)
        part = task(batch, now, context)
        if k:
            told = (taught.exp() * (taught - now.log_softmax(1))).sum(1).mean()
            part = 0.5 * part + 0.5 * told
        part.backward()
        taught = now.detach().log_softmax(1)
        for n, p in made.named_parameters():
            if p.grad is not None:
                total[n] += p.grad
    for n, g in found.items():
        assert (g - total[n]).abs().max() <= 1e-5 * g.abs().max() + 1e-8, n


def test_other_forms_move_no_statistics_and_leave_the_largest(net, toy):
    _, made = elastic(net, toy[0])
    made.train()
    batch, network = toy[0].pick(torch.arange(50)), Network(made)
    context = StepContext(network, None, batch, step=1)
    outputs = network(batch)
    kept = {k: v.clone() for k, v in made.named_buffers()}
    GroupProgressive(CrossEntropy())(made, batch, outputs, context)
    assert all(torch.equal(v, kept[k]) for k, v in made.named_buffers())
    forms = {m.form for m in made.modules() if isinstance(m, ElasticLayer)}
    assert forms == {Form(8, 8)}


def test_points_of_eight_and_of_four_bits_and_the_shape_of_weights(
    net, toy, tuner, score
):
    maker, made = elastic(net, toy[0], keep_ends=False)
    tuner(12, lr=2e-3)(made, maker)
    assert score(made, toy[1]) >= score(net, toy[1]) - 0.3
    shapes = [
        moments(m.weight.detach()) for m in list(made.modules()) if hasattr(m, "form")
    ]
    for skewness, kurtosis in shapes[1:]:
        assert abs(float(kurtosis) - 1.8) <= 0.3 and abs(float(skewness)) < 0.3
    # Its running statistics are those of the largest form.
    set_form(made, Form(4, 4))
    refit_statistics(made, toy[0])
    four = score(made, toy[1])
    assert four >= score(net, toy[1]) - 2.0
    found = maker.finish(made)
    assert score(found, toy[1]) == four
    assert found.body[4].codes.numel() == 64 * 64 // 2


def test_forms_are_searched_within_their_bits(net, toy, score):
    _, made = elastic(net, toy[0], keep_ends=False)
    forms, best = search_forms(
        made, lambda m: score(m, toy[1]), mean_bits=4.0, n_tries=16
    )
    sizes = {n: m.weight.numel() for n, m in made.named_modules() if hasattr(m, "form")}
    bits = sum(forms[n].weight_bits * size for n, size in sizes.items())
    assert bits <= 4.0 * sum(sizes.values())
    assert best == score(made, toy[1])
    set_form(made, Form(2, 8))
    assert best > score(made, toy[1])


def test_what_cannot_be_is_refused(net):
    for options in ({"bits": (1, 8)}, {"bits": (2, 16)}, {"final": 3}):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            Elastic(**options)
    with pytest.raises(EEGTensorError, match="needs trials"):
        compress(net, "elastic")
    with pytest.raises(EEGTensorError, match="elastic layers"):
        search_forms(nn.Linear(2, 2), lambda m: 0.0)


def test_layers_that_no_trial_reaches_keep_their_inputs(toy):
    layer = ElasticLayer(nn.Linear(5, 4), (2, 8), None)
    x = torch.randn(3, 5)
    layer.form = Form(32, 2)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert Batch(x) is not None
