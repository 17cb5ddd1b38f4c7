"""The peers' TSMNets, where they can be had: the authors' code and spd_learn."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geoopt
import torch
from torch import Tensor, nn

Step = Callable[[], Tensor]


def authors_code() -> Any | None:
    """Module ``spdnets.models.tsmnet`` of the checkout EEGTENSOR_TSMNET, or None."""
    path = os.environ.get("EEGTENSOR_TSMNET")
    if not path:
        return None
    if not (Path(path) / "spdnets").is_dir():
        raise FileNotFoundError(f"EEGTENSOR_TSMNET={path} holds no folder spdnets")
    if path not in sys.path:
        sys.path.insert(0, path)
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
        return importlib.import_module("spdnets.models.tsmnet")
    finally:
        for name in added:
            del sys.modules[name]


def authors_step(
    x: Tensor, y: Tensor, domain: Tensor, *, classes: int, device: str = "cpu"
) -> tuple[nn.Module, Step] | None:
    """The authors' network and its training step on trials in volts."""
    module = authors_code()
    if module is None:
        return None
    torch.manual_seed(0)
    model = module.TSMNet(
        temporal_filters=4,
        bnorm="spddsbn",
        domains=domain.unique(),
        nclasses=classes,
        nchannels=x.shape[1],
        nsamples=x.shape[2],
        device=torch.device(device),
    )
    W = [p for n, p in model.named_parameters() if n == "spdnet.0.W"]
    rest = [p for n, p in model.named_parameters() if n != "spdnet.0.W"]
    groups: list[dict[str, Any]] = [
        {"params": rest},
        {"params": W, "weight_decay": 0.0},
    ]
    optimizer = geoopt.optim.RiemannianAdam(groups, lr=1e-3, weight_decay=1e-4)
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
