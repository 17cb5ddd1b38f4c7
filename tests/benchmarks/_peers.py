"""The peers' TSMNets, where they can be had: the authors' code and spd_learn."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from geoopt.optim import RiemannianAdam
from torch import Tensor, nn

Step = Callable[[], Tensor]


def load_spdnets(checkout: str | Path | None = None) -> types.SimpleNamespace:
    """The authors' modules ``tsmnet`` and ``batchnorm`` of a checkout."""
    path = Path(checkout or os.environ["EEGTENSOR_TSMNET"]).resolve()
    if not (path / "spdnets").is_dir():
        raise FileNotFoundError(f"{path} holds no folder spdnets")
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    # spdnets takes two names of skorch, for its callbacks only: stand-ins will do.
    skorch, callbacks = types.ModuleType("skorch"), types.ModuleType("callbacks")
    base = type("Callback", (), {"initialize": lambda self: self})
    setattr(callbacks, "Callback", base)  # noqa: B010
    setattr(skorch, "NeuralNet", object)  # noqa: B010
    setattr(skorch, "callbacks", callbacks)  # noqa: B010
    stubs = {"skorch": skorch, "skorch.callbacks": callbacks}
    added = [name for name in stubs if name not in sys.modules]
    sys.modules |= {name: stubs[name] for name in added}
    try:
        return types.SimpleNamespace(
            tsmnet=importlib.import_module("spdnets.models.tsmnet"),
            batchnorm=importlib.import_module("spdnets.batchnorm"),
        )
    finally:
        for name in added:
            del sys.modules[name]


def authors_optimizer(model: nn.Module) -> RiemannianAdam:
    """As their configuration has it: weight decay, but not of the BiMap."""
    undecayed = [p for n, p in model.named_parameters() if n == "spdnet.0.W"]
    decayed = [p for n, p in model.named_parameters() if n != "spdnet.0.W"]
    assert len(undecayed) == 1
    groups = [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]
    return RiemannianAdam(groups, lr=1e-3, weight_decay=1e-4)


def authors_step(
    x: Tensor, y: Tensor, domain: Tensor, *, classes: int, device: str = "cpu"
) -> tuple[nn.Module, Step] | None:
    """The authors' network and its step on trials in volts, or None without it."""
    if not os.environ.get("EEGTENSOR_TSMNET"):
        return None
    torch.manual_seed(0)
    model = load_spdnets().tsmnet.TSMNet(
        temporal_filters=4,
        bnorm="spddsbn",
        domains=domain.unique(),
        nclasses=classes,
        nchannels=x.shape[1],
        nsamples=x.shape[2],
        device=torch.device(device),
    )
    optimizer = authors_optimizer(model)
    # Its SPD part stays on the CPU, by its constructor.
    microvolts, y, domain = 1e6 * x.to(device), y.cpu(), domain.cpu()

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(microvolts, domain)[0], y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model.train(), step


def spd_learn_step(
    x: Tensor, y: Tensor, *, classes: int, device: str = "cpu"
) -> tuple[nn.Module, Step] | None:
    """The network of spd_learn, which knows no domains, and its step; or None."""
    with contextlib.suppress(ImportError):
        from spd_learn.models import TSMNet  # type: ignore[import-not-found]

        torch.manual_seed(0)
        model = TSMNet(n_chans=x.shape[1], n_outputs=classes).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
        microvolts, y = 1e6 * x.to(device), y.to(device)

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(microvolts), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return model.train(), step
    return None
