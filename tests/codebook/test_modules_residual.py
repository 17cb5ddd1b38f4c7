"""Levels and groups: what is subtracted is what was coded."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from eegtensor._check import EEGTensorError
from eegtensor.codebook import (
    GroupedQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
    encode_residual,
)


def correlated(n: int, scale: float, seed: int, dim: int = 32) -> Tensor:
    mix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(5)) / dim
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, dim, generator=g) @ torch.matrix_power(mix + torch.eye(dim), 3)
    return scale * X / X.norm(dim=1).mean()


def trained(module: ResidualQuantizer, scale: float) -> ResidualQuantizer:
    for seed in range(4):
        module(correlated(2000, scale, seed))
    return module.eval()


def left(module: ResidualQuantizer, scale: float) -> list[float]:
    """Held-out ||r_k|| / ||z|| after each level."""
    z = correlated(2000, scale, 99)
    ids = module(z).ids
    return [
        float((z - module.decode(ids[:, : k + 1])).norm() / z.norm())
        for k in range(module.n_levels)
    ]


@pytest.mark.parametrize("scale", [0.2, 1.0, 1e-6])
def test_every_level_lowers_the_error_and_the_published_rule_wastes_them(
    scale: float,
) -> None:
    ours = left(trained(ResidualQuantizer(32, 64, 6), scale), scale)
    assert all(b < 0.95 * a for a, b in itertools.pairwise(ours))
    # Specification 3.3: a unit vector taken from a residual of any size.
    theirs = left(trained(ResidualQuantizer(32, 64, 6, unit=True), scale), scale)
    if scale < 1:
        assert min(theirs) > 0.9 and theirs[-1] > 1
    else:
        assert theirs[-1] > 0.93 * theirs[0] > 1.2 * ours[-1]


def test_the_published_rule_is_the_published_rule() -> None:
    module = VectorQuantizer(32, 16, unit=True, decay=0.9, start="sample", revive=0.0)
    module(correlated(500, 1.0, 0))
    codes = module.codes.clone()
    z = correlated(500, 1.0, 1)
    out = module(z)
    v = normalize(z, dim=1)
    ids = torch.cdist(v, codes).argmin(dim=1)
    assert torch.equal(out.ids, ids)
    torch.testing.assert_close(out.values, codes[ids])
    for code in range(16):
        want = codes[code]
        if (ids == code).any():
            mean = normalize(v[ids == code].mean(dim=0), dim=0)
            want = normalize(0.9 * want + 0.1 * mean, dim=0)
        torch.testing.assert_close(module.codes[code], want)


def test_the_gradient_comes_once_and_the_loss_is_the_mean_of_the_levels() -> None:
    module = trained(ResidualQuantizer(32, 16, 3, commitment=1.0), 1.0).double()
    z = correlated(50, 1.0, 7).double().requires_grad_()
    out = module(z)
    out.values.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))
    rests = [z - module.decode(out.ids[:, :k]) for k in (1, 2, 3)]
    want = torch.stack([rest.square().mean() for rest in rests]).mean()
    torch.testing.assert_close(out.loss, want)


def test_it_codes_as_the_function_and_a_prefix_is_a_code() -> None:
    module = trained(ResidualQuantizer(32, 16, 4), 1.0)
    z = correlated(100, 1.0, 7)
    ids = module(z).ids
    assert torch.equal(encode_residual(z, module.tables), ids)
    some = module(z, n_levels=2)
    assert torch.equal(some.ids[:, :2], ids[:, :2]) and bool(
        (some.ids[:, 2:] < 0).all()
    )
    torch.testing.assert_close(module.decode(some.ids), some.values)
    torch.testing.assert_close(module.decode(ids[:, :2]), some.values)
    for wrong in (0, 5):
        with pytest.raises(EEGTensorError, match="give 1 to 4"):
            module(z, n_levels=wrong)
    with pytest.raises(EEGTensorError, match="5 levels, the module 4"):
        module.decode(torch.zeros(2, 5, dtype=torch.int64))


def test_dropout_draws_the_number_of_levels_of_a_batch() -> None:
    module = ResidualQuantizer(8, 4, 3, dropout=1.0)
    used = []
    for seed in range(60):
        before = [level.codes.clone() for level in module.levels]
        ids = module(correlated(50, 1.0, seed, 8)).ids
        used.append(int((ids[0] >= 0).sum()))
        assert bool(((ids >= 0) == (ids[:1] >= 0)).all())
        for k in range(used[-1], 3):
            assert torch.equal(before[k], module.levels[k].codes)
    assert used[0] == 3 and set(used[1:]) == {1, 2, 3}
    assert bool((module.eval()(correlated(50, 1.0, 0, 8)).ids >= 0).all())


@pytest.mark.parametrize("n_levels", [1, 3])
def test_groups_are_quantisers_of_their_parts(n_levels: int) -> None:
    module = GroupedQuantizer(32, 16, 4, n_levels=n_levels)
    for seed in range(3):
        module(correlated(500, 1.0, seed))
    module.eval()
    z = correlated(60, 1.0, 7).view(3, 20, 32)
    out = module(z)
    assert out.ids.shape == ((3, 20, 4) if n_levels == 1 else (3, 20, 4, 3))
    assert out.usage.dead.shape == (4 * n_levels,)
    for k, group in enumerate(module.groups):
        part = group(z[..., 8 * k : 8 * k + 8])
        assert torch.equal(out.values[..., 8 * k : 8 * k + 8], part.values)
        assert torch.equal(out.ids[:, :, k], part.ids)
    with pytest.raises(EEGTensorError, match="for 4 groups"):
        module.decode(torch.zeros(2, 5, dtype=torch.int64))
