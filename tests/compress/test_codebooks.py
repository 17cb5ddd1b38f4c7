"""Weights as codes of learned tables (JLCM)."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import CodebookLayer, Codebooks, OneCodeAStep, compress
from eegtensor.compress.codebooks import rebuild_layer
from eegtensor.compress.codeweights import _Lookup, group_rows, scalar_table
from eegtensor.training import Batch, ShuffleSampler, make_optimizer, train


def test_with_as_many_codes_as_weights_nothing_is_lost():
    torch.manual_seed(0)
    layer = nn.Linear(16, 16)
    coded = CodebookLayer(layer, 8, n_groups=1)
    assert torch.equal(coded.quantised_weight(), layer.weight)
    assert torch.equal(coded.packed().weight, layer.weight)
    errors = [
        float((CodebookLayer(layer, b).quantised_weight() - layer.weight).norm())
        for b in (1, 2, 3, 4, 6)
    ]
    assert all(a > b for a, b in pairwise(errors))


def test_gradients_are_those_of_the_slope_and_of_sums():
    table = torch.tensor([[0.0, 1.0, 3.0, 7.0], [-1.0, 0.0, 0.5, 2.0]]).double()
    group = torch.tensor([0, 1, 0])
    position = torch.tensor([[0.2, 2.6], [1.0, 3.0], [1.4, 2.0]]).double()
    table.requires_grad_(True)
    position.requires_grad_(True)
    w = _Lookup.apply(position, table, group)
    assert w.tolist() == [[0.0, 7.0], [0.0, 2.0], [1.0, 3.0]]
    g = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).double()
    (w * g).sum().backward()
    slopes = [[1.0, 4.0], [0.75, 1.5], [1.5, 3.0]]
    assert torch.allclose(position.grad, g * torch.tensor(slopes).double())
    assert table.grad.tolist() == [[1.0, 5.0, 6.0, 2.0], [0.0, 3.0, 0.0, 4.0]]


def test_rows_are_grouped_by_their_spread():
    rows = (
        torch.randn(10, 50) * torch.tensor([1, 9, 2, 8, 3, 7, 4, 6, 5, 10.0])[:, None]
    )
    assert group_rows(rows, 2).tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]


def test_tables_do_not_depend_on_the_unit():
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    one, other = scalar_table(values, 8), scalar_table(1e-7 * values, 8)
    assert torch.allclose(one, 1e7 * other, rtol=1e-4)
    assert (one.diff() > 0).all()


def test_no_code_moves_more_than_one_in_a_step():
    torch.manual_seed(0)
    layer = nn.Linear(20, 12)
    coded = CodebookLayer(layer, 4, n_groups=2)

    class Watch:
        steps = ()

        def on_step_end(self, state):
            now = coded.position.detach().clone()
            self.steps = (*self.steps, now)

    watch, start = Watch(), coded.position.detach().clone()
    x = torch.randn(64, 20)

    class Squares:
        per_trial = False

        def __call__(self, model, batch, outputs, context):
            return 1e4 * (outputs - batch.y).square().mean()

    optimizer = make_optimizer(coded, "adam", lr=5.0, weight_decay=0.0)
    coded.table.requires_grad_(False)
    train(
        coded,
        Batch(x, -3 * layer(x).detach()),
        objective=Squares(),
        optimizer=optimizer,
        sampler=ShuffleSampler(64, batch_size=16, random_state=0),
        epochs=2,
        callbacks=[OneCodeAStep(), watch],
    )
    path = torch.stack([start, *watch.steps])
    moved = path.diff(dim=0).abs()
    assert moved.max() <= 1.0 + 1e-6 and moved.max() > 0.9
    assert path.min() >= 0.0 and path.max() <= 15.0


def test_tables_that_cross_are_sorted_and_weights_stay():
    coded = CodebookLayer(nn.Linear(20, 12), 3, n_groups=2)
    with torch.no_grad():
        coded.table[0, 2], coded.table[0, 3] = (
            coded.table[0, 3].clone(),
            coded.table[0, 2].clone(),
        )
    before = coded.quantised_weight().detach().clone()
    coded.bound()
    assert (coded.table.diff(dim=1) >= 0).all()
    assert torch.equal(coded.quantised_weight(), before)


def test_learning_rebuilds_outputs_better_than_k_means(net, toy):
    layer = net.body[4]
    seen = []
    hook = layer.register_forward_pre_hook(lambda m, a: seen.append(a[0].detach()))
    net.eval()(toy[0].x)
    net(toy[1].x[:480])
    hook.remove()
    coded = CodebookLayer(layer, 2)
    start = copy.deepcopy(coded)
    before, after = rebuild_layer(layer, coded, seen[0], epochs=15)
    assert after < 0.8 * before

    def error(model, x):
        wanted = layer(x)
        return float((model(x) - wanted).norm() / (wanted - layer.bias).norm())

    assert error(start, seen[0]) == pytest.approx(before, rel=1e-4)
    assert error(coded, seen[0]) == pytest.approx(after, rel=1e-4)
    # Also of trials that were not learned from.
    assert error(coded, seen[1]) < 0.85 * error(start, seen[1])
    assert torch.equal(coded.bias, layer.bias)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_storage_is_bits_and_tables_and_points_are_kept(bits, net, toy, score):
    recipe = f"codebooks(bits={bits}, n_groups=4, epochs=4, min_size=1024)"
    small = compress(net, recipe, data=Batch(toy[0].x))
    layer = small.body[4]
    assert layer.codes.numel() == 64 * 64 * bits // 8
    assert layer.table.shape == (4, 2**bits) and layer.group.dtype == torch.uint8
    assert score(small, toy[1]) >= score(net, toy[1]) - (4.0 if bits == 2 else 2.0)


def test_what_it_reports_and_refuses(net, toy):
    maker = Codebooks(bits=2, epochs=3)
    maker.prepare(net, toy[0])
    assert all(after <= before for before, after in maker.errors_.values())
    assert set(maker.errors_) == {"body.1", "body.4"}
    with pytest.raises(EEGTensorError, match="bits=9"):
        compress(net, "codebooks(bits=9)", data=toy[0])
