"""A training step on a GPU never waits for the host, and the host never for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models._networks import NETWORKS, trials
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eegtensor.training import make_optimizer

LOOKS = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "bincount")


class NoLooks(TorchDispatchMode):
    """Refuses reading values, shapes that depend on them, and other devices."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(function)
        assert not any(look in name for look in LOOKS), name
        if name.startswith(("aten.index.", "aten.index_put")):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), name
        out = function(*args, **kwargs)
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        assert len({t.device for t in tensors}) < 2, name
        return out


def step(name: str, device: str) -> Callable[[], None]:
    """A step in the middle of training, of a network and its optimizer."""
    x, y, domain = (part.to(device) for part in trials())
    net = NETWORKS[name]().to(device)
    optimizer = make_optimizer(net)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x, domain), y).backward()
        optimizer.step()

    run()
    for norm in net.norms:
        norm.set_momentum(0.5, 0.2)
    return run


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_needs_no_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tensors without values: what would wait for a GPU cannot be answered here.
    run = step(name, "meta")
    # A list of numbers is copied to the device below what a mode sees.
    monkeypatch.setattr(torch, "tensor", None)
    with NoLooks():
        run()


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_does_not_wait_for_the_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    run = step(name, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 0.0)[x > 0],
        lambda x: x.index_put_((x > 0,), x.sum()),
        lambda x: torch.unique(x),
        lambda x: x.cpu(),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x + torch.ones(3),
    ],
)
def test_looks_are_noticed(look: Callable[[Tensor], Any]) -> None:
    x = torch.ones(3, device="meta")
    with pytest.raises((AssertionError, RuntimeError)), NoLooks():
        look(x)
