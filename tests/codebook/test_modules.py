"""Codebooks that learn, against their recursions written out and their laws."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from eegtensor._check import EEGTensorError
from eegtensor.codebook import (
    FiniteScalarQuantizer,
    GroupedQuantizer,
    LookupFreeQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

MAKE = {
    "ema": lambda: VectorQuantizer(6, 16),
    "cosine": lambda: VectorQuantizer(6, 16, cosine=True, gradient="rotation"),
    "unit": lambda: VectorQuantizer(6, 16, unit=True),
    "gradient": lambda: VectorQuantizer(6, 16, update="gradient"),
    "simvq": lambda: VectorQuantizer(6, 16, update="gradient", simvq=True),
    "residual": lambda: ResidualQuantizer(6, 16, 3, dropout=0.5),
    "grouped": lambda: GroupedQuantizer(6, 16, 2),
    "grouped residual": lambda: GroupedQuantizer(6, 16, 3, n_levels=2),
    "finite scalar": lambda: FiniteScalarQuantizer((5, 4, 3, 2, 3, 4)),
    "lookup-free": lambda: LookupFreeQuantizer(6),
}


def vectors(n: int = 400, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def clusters(n: int = 4000, k: int = 32, dim: int = 6, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = 20 * torch.randn(k, dim, generator=torch.Generator().manual_seed(9))
    return centres[torch.randint(k, (n,), generator=g)] + torch.randn(
        n, dim, generator=g
    )


def state(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("name", MAKE)
def test_values_are_the_decoded_ids_and_shapes_fit(
    name: str, device: torch.device
) -> None:
    module = MAKE[name]().to(device)
    z = vectors(120).to(device).view(3, 40, 6)
    for mode in (True, False):
        out = module.train(mode)(z)
        assert out.values.shape == z.shape and out.ids.shape[:2] == (3, 40)
        assert out.loss.ndim == 0 and torch.isfinite(out.loss)
        assert out.usage is not None and (out.usage.perplexity >= 1).all()
    torch.testing.assert_close(module.decode(out.ids), out.values)


@pytest.mark.parametrize("name", MAKE)
def test_evaluation_changes_nothing_and_copies_agree(name: str) -> None:
    module = MAKE[name]()
    for seed in range(3):
        module(vectors(seed=seed))
    module.eval()
    before = state(module)
    z = vectors(seed=7)
    want = module(z)
    assert same(before, state(module))
    loaded = MAKE[name]().eval()
    loaded.load_state_dict(module.state_dict())
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert torch.equal(other(z).ids, want.ids)
        # Training goes on alike, draws of dead codes and of levels included.
        one, two = copy.deepcopy(module).train(), other.train()
        assert torch.equal(one(z).ids, two(z).ids) and same(state(one), state(two))


@pytest.mark.parametrize("name", MAKE)
def test_export_in_evaluation(name: str) -> None:
    module = MAKE[name]()
    module(vectors())
    module.eval()
    n = torch.export.Dim("n", min=2, max=4096)
    exported = torch.export.export(
        module, (vectors(50),), dynamic_shapes=({0: n},)
    ).module()
    z = vectors(33, seed=3)
    assert torch.equal(exported(z).ids, module(z).ids)


def test_codes_follow_the_running_mean() -> None:
    module = VectorQuantizer(6, 8, decay=0.9, revive=0.0).double()
    first = vectors().double()
    module(first)
    codes, counts = module.codes.clone(), module.counts.clone()
    sums = codes * counts[:, None]
    # The first ten batches weigh alike; later the decay counts.
    for seed, d in enumerate(
        [2 / 3, 3 / 4, 4 / 5, 5 / 6, 6 / 7, 7 / 8, 8 / 9, 0.9, 0.9]
    ):
        z = vectors(seed=seed).double()
        ids = torch.cdist(z, codes).argmin(dim=1)
        hot = torch.nn.functional.one_hot(ids, 8).double()
        counts = d * counts + (1 - d) * hot.sum(dim=0)
        sums = d * sums + (1 - d) * hot.T @ z
        codes = sums / counts[:, None]
        assert torch.equal(module(z).ids, ids)
    torch.testing.assert_close(module.codes, codes)
    torch.testing.assert_close(module.counts, counts)


def test_commitment_and_codebook_loss_and_their_gradients() -> None:
    z = vectors().double().requires_grad_()
    ema = VectorQuantizer(6, 8, commitment=0.5).double().eval()
    out = ema(z)
    gap = z.detach() - ema.codes[out.ids]
    torch.testing.assert_close(out.loss, 0.5 * gap.square().mean())
    (slope,) = torch.autograd.grad(out.loss, z)
    torch.testing.assert_close(slope, gap / gap.numel())
    module = VectorQuantizer(6, 8, update="gradient", commitment=0.5).double().eval()
    out = module(z)
    gap = module.codes[out.ids].detach() - z.detach()
    torch.testing.assert_close(out.loss, 1.5 * gap.square().mean())
    (slope,) = torch.autograd.grad(out.loss, module.codes)
    want = torch.zeros_like(slope).index_add_(0, out.ids, 2 * gap / gap.numel())
    torch.testing.assert_close(slope, want)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_revival_leaves_no_dead_code_on_clusters(update: str) -> None:
    def dead(revive: float) -> int:
        module = VectorQuantizer(
            6, 32, update=update, revive=revive, start="random", decay=0.8
        )
        steps = torch.optim.Adam(module.parameters(), 0.1) if update != "ema" else None
        for seed in range(60):
            out = module(clusters(seed=seed))
            if steps is not None:
                steps.zero_grad()
                out.loss.backward()
                steps.step()
        return int(module.eval()(clusters(seed=99)).usage.dead)

    assert dead(0.0) > 8
    assert dead(2.0) == 0


def test_small_batches_do_not_kill_living_codes() -> None:
    module = VectorQuantizer(6, 32)
    module(clusters(640))
    before = module.codes.clone()
    for seed in range(60):
        # One vector a code: fewer than the threshold, and no reason to revive.
        module(clusters(32, seed=seed))
    assert float((module.codes - before).norm(dim=1).max()) < 3


@pytest.mark.parametrize("name", ["ema", "gradient", "residual", "simvq"])
def test_learning_lowers_the_error_in_any_unit(name: str) -> None:
    errors = []
    for unit in (1.0, 2.0**-20):
        torch.manual_seed(0)
        module = MAKE[name]()
        before = None
        steps = torch.optim.SGD(
            [*module.parameters(), nn.Parameter(torch.zeros(1))], 2.0
        )
        for seed in range(30):
            out = module(unit * vectors(seed=seed))
            if before is None:
                module.eval()
                before = module(unit * vectors(seed=99)).loss / unit**2
                module.train()
            if out.loss.requires_grad:
                steps.zero_grad()
                (out.loss / unit**2).backward()
                if unit == 1:
                    steps.step()
        after = module.eval()(unit * vectors(seed=99)).loss / unit**2
        if unit == 1:
            assert after < before
        errors.append(float(after.detach()))
    if name in ("ema", "residual"):
        assert errors[0] == pytest.approx(errors[1], rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_come_back(dtype: torch.dtype) -> None:
    module = VectorQuantizer(6, 16)
    out = module(vectors().to(dtype))
    assert out.values.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module.eval()(vectors()).ids, module(vectors()).ids)


def test_the_seed_decides() -> None:
    def run(seed: int) -> dict[str, Tensor]:
        module = ResidualQuantizer(6, 16, 3, dropout=0.5, random_state=seed)
        for k in range(5):
            module(vectors(seed=k))
        return state(module)

    assert same(run(0), run(0)) and not same(run(0), run(1))


def test_an_empty_batch_teaches_nothing() -> None:
    module = VectorQuantizer(6, 16)
    module(vectors())
    before = state(module)
    assert module(vectors(0)).ids.shape == (0,) and same(before, state(module))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(EEGTensorError, match="simvq=True with update='ema'"):
        VectorQuantizer(6, 16, simvq=True)
    with pytest.raises(EEGTensorError, match="decay=1"):
        VectorQuantizer(6, 16, decay=1.0)
    with pytest.raises(EEGTensorError, match="gradient='slope'"):
        ResidualQuantizer(6, 16, 2, gradient="slope")
    with pytest.raises(EEGTensorError, match="does not split"):
        GroupedQuantizer(7, 16, 2)
    module = VectorQuantizer(6, 16)
    with pytest.raises(EEGTensorError, match=r"shape \(3, 5\), the quantiser has"):
        module(torch.zeros(3, 5))
    with pytest.raises(EEGTensorError, match="between 0 and 16, codes"):
        module.decode(torch.tensor([0, 16]))
    with pytest.raises(EEGTensorError, match="1 of 3 vectors"):
        module.eval()(torch.tensor([[0.0] * 6, [torch.nan] * 6, [1.0] * 6]))
