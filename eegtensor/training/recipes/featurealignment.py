"""Adaptive feature alignment: statistics of clean and attacked trials, mixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eegtensor._check import check_count, fail
from eegtensor.nn._statistics import RunningStatistics
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.network import Network, chunks, inner_module
from eegtensor.training.perturbations._adversary import (
    Budget,
    moved,
    signals_of,
    worst,
)
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.refit import refit_statistics
from eegtensor.training.statistics import StatisticsGuard, evaluating

# Strengths of the attack that the gate learns from, in eps.
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


class AdaptiveFeatures(nn.Module):
    """A network whose norms have two sets of statistics, mixed for each trial (AFA).

    A gate looks at the features that the clean statistics give and says lambda in
    [0, 1], 1 for clean trials, 0 for those attacked with all of eps. Torch's batch
    norms return ``lambda BN_clean(x) + (1 - lambda) BN_attacked(x)``; norms of domains
    normalise each trial by a mean on the geodesic from the clean mean of its domain to
    the attacked one, and by a dispersion between. In evaluation only: `align_features`
    makes one of a trained network.

    Parameters
    ----------
    network : torch.nn.Module
        Its own statistics are the clean ones. Norms of domains or of torch.
    n_features : int
        What enters its head.
    hidden : int
        Units of the gate.

    References
    ----------
    T. Wang et al., "Adaptive feature alignment for adversarial training" (source list
    001, entry 44): a reconstruction from its abstract.
    """

    def __init__(self, network: nn.Module, n_features: int, hidden: int = 32) -> None:
        super().__init__()
        self.network = network
        self.gate = nn.Sequential(
            nn.BatchNorm1d(n_features, affine=False),
            nn.Linear(n_features, check_count("hidden", hidden)),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )
        for i, norm in enumerate(self._norms()):
            for name, value in _statistics(norm).items():
                self.register_buffer(f"attacked_{i}_{name}", value.clone())

    def _norms(self) -> list[nn.Module]:
        kinds = (RunningStatistics, _BatchNorm)
        norms: list[nn.Module] = [
            m for m in self.network.modules() if isinstance(m, kinds)
        ]
        if not norms or getattr(inner_module(self.network), "ignores_domains", False):
            fail(
                f"{type(self.network).__name__} has no statistics of domains, nor a "
                "batch norm of torch",
                fix="build it with norm='domain'",
            )
        return norms

    def hold_attacked(self) -> None:
        """Take the network's statistics as those of attacked trials."""
        for i, norm in enumerate(self._norms()):
            for name, value in _statistics(norm).items():
                setattr(self, f"attacked_{i}_{name}", value.clone())

    def lambdas(self, x: Tensor, domain: Tensor | None = None) -> Tensor:
        """Return the share of the clean statistics for each trial, (n_trials,)."""
        network = Network(self.network, keeps_features=True)
        network(Batch(x, domain=domain))
        assert network.features is not None
        share: Tensor = self.gate(network.features.float()).sigmoid().squeeze(1)
        return share

    def forward(
        self,
        x: Tensor,
        domain: Tensor | None = None,
        *,
        share: Tensor | None = None,
    ) -> Tensor:
        """Return logits, shape (n_trials, n_outputs).

        Parameters
        ----------
        x : Tensor, shape (n_trials, n_channels, n_times)
        domain : Tensor of int64, shape (n_trials,) | None
        share : Tensor, shape (n_trials,) | None
            Lambda of each trial, in place of the gate's.
        """
        if self.training:
            fail(
                "AdaptiveFeatures is for evaluation",
                why="Training would move both sets of statistics by one batch",
                fix="call eval() first",
            )
        share = self.lambdas(x, domain) if share is None else share
        with self._mixed(share, domain):
            place = torch.arange(len(x), device=x.device)
            out: Tensor = Network(self.network)(
                Batch(x, domain=None if domain is None else place)
            )
        return out

    @contextmanager
    def _mixed(self, share: Tensor, domain: Tensor | None) -> Iterator[None]:
        """Inside, trial k of a batch is normalised as domain k."""
        with ExitStack() as stack:
            stack.enter_context(StatisticsGuard(self.network, "transient"))
            for i, norm in enumerate(self._norms()):
                other = {
                    name: getattr(self, f"attacked_{i}_{name}")
                    for name in _statistics(norm)
                }
                if isinstance(norm, RunningStatistics):
                    _mix_domains(norm, other, share, domain)
                else:
                    handle = norm.register_forward_hook(_mixing(other, share))
                    stack.callback(handle.remove)
            yield


def align_features(
    model: nn.Module,
    data: Batch,
    *,
    eps: float = 0.1,
    n_steps: int = 10,
    step_size: float | None = None,
    norm: str = "linf",
    hidden: int = 32,
    epochs: int = 200,
    lr: float = 1e-2,
    random_state: int = 0,
) -> AdaptiveFeatures:
    """Return a trained network with statistics for clean and for attacked trials.

    Statistics are fitted to the trials as they are and as they are attacked with eps;
    the gate then learns the strength of attacks of 0 to 1 eps. Weights stay.

    Parameters
    ----------
    model : torch.nn.Module
        Used itself; its statistics become those of `data`.
    data : Batch
    eps, n_steps, step_size, norm
        Of the strongest attack, as in `PGD`.
    hidden, epochs, lr : int, int, float
        Of the gate, trained by Adam on all trials at once.
    random_state : int

    Raises
    ------
    EEGTensorError
        If the network has no norm with statistics that can be mixed.
    """
    budget = Budget.checked(eps, n_steps, step_size, norm)
    place = device_of(model)
    data = data.to(place)
    generator = torch.Generator(place).manual_seed(random_state)
    refit_statistics(model, data)
    network = Network(model, keeps_features=True)
    scale = channel_scale(signals_of(data, "align_features"))
    with evaluating(model):
        parts = [
            worst(network, part, budget, generator=generator, scale=scale)
            for part in chunks(data, 256)
        ]
        d, rows = torch.cat(parts), []
        for strength in STRENGTHS:
            with torch.no_grad():
                network(moved(data, strength * d, scale))
            assert network.features is not None
            rows.append(network.features)
    with torch.random.fork_rng([]):
        torch.manual_seed(random_state)
        made = AdaptiveFeatures(model, rows[0].shape[1], hidden).to(place)
    with StatisticsGuard(model, "transient"):
        refit_statistics(model, moved(data, d, scale))
        made.hold_attacked()
    h = torch.cat(rows).float()
    target = 1 - torch.tensor(STRENGTHS, device=place).repeat_interleave(len(data))
    made.gate.train()
    optimizer = torch.optim.Adam(made.gate.parameters(), lr=lr, weight_decay=1e-3)
    for _ in range(check_count("epochs", epochs)):
        optimizer.zero_grad()
        share = made.gate(h).squeeze(1)
        nn.functional.binary_cross_entropy_with_logits(share, target).backward()
        optimizer.step()
    return made.eval()


def _statistics(norm: Any) -> dict[str, Tensor]:
    """Return the buffers of a norm that evaluation normalises by."""
    if isinstance(norm, RunningStatistics):
        names = ("test_mean", "test_variance")
    else:
        names = ("running_mean", "running_var")
    return {name: getattr(norm, name).detach() for name in names}


def _mix_domains(
    norm: Any, other: dict[str, Tensor], share: Tensor, domain: Tensor | None
) -> None:
    """Give a norm one row a trial, between the two statistics of its domain."""
    last = norm.n_domains
    if domain is None:
        codes = torch.full_like(share, last, dtype=torch.int64)
    else:
        codes = torch.where(domain < 0, last, domain)
        codes = torch.where(norm.seen[codes], codes, last)
    t = (1 - share).double()
    clean = (norm.test_mean[codes], norm.test_variance[codes])
    attacked = (other["test_mean"][codes], other["test_variance"][codes])
    mean = norm.space.move(clean, attacked, t)[0]
    flat = t.view(-1, *[1] * (clean[1].ndim - 1))
    variance = torch.lerp(clean[1], attacked[1], flat)
    # The last row is that of no domain, which no trial is.
    for name, rows in (("mean", mean), ("variance", variance)):
        old = norm._buffers[f"test_{name}"]
        norm._buffers[f"test_{name}"] = torch.cat([rows, old[-1:]])
        norm._buffers[name] = norm._buffers[f"test_{name}"]
    norm._buffers["seen"] = torch.ones(len(t) + 1, dtype=torch.bool, device=t.device)


def _mixing(other: dict[str, Tensor], share: Tensor) -> Any:
    def mix(norm: Any, args: Any, out: Tensor) -> Tensor:
        if len(out) != len(share):
            fail(f"A batch norm got {len(out)} rows of {len(share)} trials")
        there = nn.functional.batch_norm(
            args[0],
            other["running_mean"],
            other["running_var"],
            norm.weight,
            norm.bias,
            False,
            0.0,
            norm.eps,
        )
        return torch.lerp(there, out, share.to(out).view(-1, *[1] * (out.ndim - 1)))

    return mix
