"""Blocks of any number from two (TLEG)."""

from __future__ import annotations

import copy

import geoopt
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import FineTune, LinearBlocks, expand_blocks, tie_blocks
from eegtensor.nn.axial import AxialBlock
from eegtensor.training import Batch


class Deep(nn.Module):
    """Residual blocks between two linear layers."""

    def __init__(self, depth, width=16, seed=0):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            super().__init__()
            self.enter = nn.Linear(8, width)
            self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
            self.head = nn.Linear(width, 3)

    def forward(self, x):
        h = self.enter(x.square().mean(2).log())
        for block in self.blocks:
            h = block(h)
        return self.head(h)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.into = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, width)

    def forward(self, h):
        return h + self.out(F.gelu(self.into(self.norm(h))))


def test_numbers_do_not_depend_on_the_depth():
    blocks = Deep(4).blocks
    counts = {
        sum(p.numel() for p in LinearBlocks(blocks, d).parameters()) for d in (3, 8, 12)
    }
    assert counts == {2 * sum(p.numel() for p in blocks[0].parameters())}


def test_gradients_are_sums_over_blocks():
    torch.manual_seed(0)
    model = Deep(5).double()
    tied = tie_blocks(model, "blocks")
    free = expand_blocks(tied, "blocks", 5)
    x = torch.randn(7, 8, 20).double()
    assert torch.allclose(tied(x), free(x), rtol=1e-12)
    for net in (tied, free):
        net(x).square().sum().backward()
    for name, a in tied.blocks.a.items():
        each = [
            dict(b.named_parameters())[name.replace(":", ".")].grad for b in free.blocks
        ]
        assert torch.allclose(a.grad, sum(each), rtol=1e-10, atol=1e-12)
        second = sum(k / 5 * g for k, g in enumerate(each))
        assert torch.allclose(tied.blocks.b[name].grad, second, rtol=1e-10, atol=1e-12)


def test_weights_are_on_the_line_and_start_nearest_to_the_blocks():
    model = Deep(4)
    a, b = torch.randn(16, 32), torch.randn(16, 32)
    for k, block in enumerate(model.blocks):
        block.out.weight.data = a + k / 4 * b
    tied = LinearBlocks(model.blocks)
    assert torch.allclose(tied.a["out:weight"], a, atol=1e-5)
    assert torch.allclose(tied.b["out:weight"], b, atol=1e-5)
    longer = tied.expanded(8)
    assert torch.allclose(longer[6].out.weight, a + 6 / 8 * b, atol=1e-5)
    one = LinearBlocks(model.blocks[:1])
    assert (one.b["out:weight"] == 0).all()
    assert torch.equal(one.a["out:weight"], model.blocks[0].out.weight)


def test_it_stands_in_for_a_list_of_blocks():
    blocks = nn.ModuleList(AxialBlock(8, 2, dropout=0.5) for _ in range(3))
    tied = LinearBlocks(blocks, 4)
    h, present = torch.randn(2, 3, 4, 8), torch.ones(2, 3, 4, dtype=torch.bool)
    assert len(tied) == len(list(tied)) == 4
    tied.eval()
    told = h
    for block in tied:
        told = block(told, present)
    assert torch.equal(told, tied(h, present))
    assert not torch.equal(tied.train()(h, present), told)
    twin = copy.deepcopy(tied.eval())
    assert torch.equal(twin(h, present), told)
    assert all(name[:2] in ("a.", "b.") for name in tied.state_dict())


def test_what_has_no_line_is_refused():
    curved = nn.ModuleList(Block(4) for _ in range(2))
    curved[0].out.weight = geoopt.ManifoldParameter(
        torch.linalg.qr(torch.randn(8, 4))[0].mT.contiguous().mT,
        manifold=geoopt.EuclideanStiefel(),
    )
    with pytest.raises(EEGTensorError, match=r"manifold|not alike"):
        LinearBlocks(curved)
    with pytest.raises(EEGTensorError, match="statistics"):
        LinearBlocks(nn.ModuleList([nn.BatchNorm1d(3)]))
    with pytest.raises(EEGTensorError, match="not alike"):
        LinearBlocks(nn.ModuleList([Block(4), Block(6)]))
    with pytest.raises(EEGTensorError, match="tie"):
        expand_blocks(Deep(2), "blocks", 3)


class Soft:
    """Cross-entropy with a teacher's probabilities."""

    per_trial = True

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, model, batch, outputs, context):
        p = self.logits[batch.index].softmax(1)
        return -(p * outputs.log_softmax(1)).sum(1)


def test_expanded_networks_learn_in_fewer_epochs_than_new_ones(toy, score):
    from eegtensor.compress import Compressor

    data = Batch(toy[0].x, toy[0].y)
    plain = Compressor()
    teacher = Deep(6)
    FineTune(data, epochs=15, batch_size=40, lr=3e-3)(teacher, plain)
    with torch.no_grad():
        told = teacher(data.x)
    # The auxiliary network learns from the teacher alone.
    auxiliary = tie_blocks(Deep(6, seed=1), "blocks")
    FineTune(data, Soft(told), epochs=15, batch_size=40, lr=3e-3)(auxiliary, plain)
    expanded = expand_blocks(auxiliary, "blocks", 4)
    new = Deep(4, seed=2)
    reached = {}
    for name, net in (("expanded", expanded), ("new", new)):
        found = []
        for _ in range(6):
            FineTune(data, epochs=1, batch_size=40, lr=1e-3)(net, plain)
            found.append(score(net, toy[1]))
        reached[name] = found
    best = max(reached["new"])
    first = next(k for k, p in enumerate(reached["expanded"]) if p >= best)
    assert first < reached["new"].index(best)
