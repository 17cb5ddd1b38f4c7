"""Moving a trained network to new domains without labels, by one of several ways."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.domains import UNSEEN, Domain, encode_domains
from eegtensor.nn import DomainSPDBatchNorm
from eegtensor.training import device_of
from eegtensor.transfer.label_shift import (
    Centres,
    balance_classes,
    maximise_information,
)

ADAPTATIONS = ("refit", "online", "spdim-bias", "spdim-geodesic", "balanced")
PRIORS = ("source", "uniform")
# These look for a better centre than the mean; the others look at no prediction.
LABEL_SHIFT = ("spdim-bias", "spdim-geodesic", "balanced")
_BATCH = 256


def check_adaptation(adaptation: str, prior: str, prior_trials: float) -> None:
    """Raise for parameters that name no way to adapt."""
    check_option("adaptation", adaptation, ADAPTATIONS)
    check_option("prior", prior, PRIORS)
    if not prior_trials >= 0:
        fail(f"prior_trials={prior_trials!r}", fix="choose 0 or more")


def check_label_shift(network: Any, adaptation: str) -> None:
    """Raise if a network has no place for an adaptation to label shift.

    Raises
    ------
    EEGTensorError
        If its norm is not the affine-invariant one with the identity as bias.
    """
    norm = network.norm
    if adaptation not in LABEL_SHIFT:
        return
    published = (
        isinstance(norm, DomainSPDBatchNorm)
        and not network.ignores_domains
        and len(network.norms) == 1
        and norm.kind == "affine-invariant"
        and getattr(norm.space, "congruence", "") == "symmetric"
        and norm.bias is None
    )
    if not published:
        fail(
            f"adaptation={adaptation!r} needs one SPD norm by domain with "
            "metric='affine-invariant'",
            why="It moves the centre of the norm along that geometry",
            fix="set adaptation='refit', or norm='domain', features='spd' and "
            "metric='affine-invariant'",
        )


def encode(network: Any, names: Sequence[Domain]) -> Tensor:
    """Return the network's codes of domains, int64; -1 where it has no statistics."""
    if network.norm is None or network.ignores_domains:
        return torch.full((len(names),), UNSEEN)
    codes: Tensor = network.norm.encode(names)
    return codes


def retarget(
    network: Any,
    x: Tensor,
    names: Sequence[Domain],
    method: str,
    *,
    prior: Sequence[float] | None = None,
    prior_trials: float = 5.0,
) -> dict[Domain, str]:
    """Set a network's statistics of the domains of unlabelled trials, in place.

    Parameters
    ----------
    network : SPDNetwork
        In evaluation mode.
    x : Tensor
        What the network takes, all trials of the domains.
    names : sequence of Domain, one a trial
    method : str
        One of `ADAPTATIONS`.
    prior : sequence of float, one a class | None
        Shares that "balanced" aims at; alike by default.
    prior_trials : float
        For how many trials the sources' statistics count at the start of a
        domain, when "online".

    Returns
    -------
    done : dict of Domain to str
    """
    slots, table = encode_domains(names)
    network.add_domains(table, source=False)
    device = device_of(network)
    with torch.no_grad():
        S = torch.cat([network.spd(part.to(device)) for part in x.split(_BATCH)])
        codes = encode(network, names)
        if method == "online":
            # One after the other: a running mean on a manifold depends on the order.
            for i in range(len(S)):
                network.tail.update_statistics(
                    S[i : i + 1], codes[i : i + 1], prior_trials=prior_trials
                )
            return dict.fromkeys(table, "online")
        network.tail.fit_statistics(S, codes)
    if method == "refit":
        return dict.fromkeys(table, "refit")
    check_label_shift(network, method)
    X = network.tail.rectified(S.double())
    domains = torch.from_numpy(slots).to(device)
    found = _centres(network, X, domains, method, prior)
    _place(network.norm, encode(network, table), found)
    return dict(zip(table, found.action, strict=True))


def _centres(
    network: Any,
    X: Tensor,
    domains: Tensor,
    method: str,
    prior: Sequence[float] | None,
) -> Centres:
    head, norm = network.head, network.norm
    dtype = next(itertools.chain(head.parameters(), head.buffers())).dtype

    def decide(vectors: Tensor) -> Tensor:
        logits: Tensor = head(network.embed(vectors).to(dtype)).double()
        return logits

    def dispersion(variance: Tensor) -> Tensor:
        if norm.scale is None:
            return torch.ones_like(variance)
        factor: Tensor = norm.scale.detach().double() * (variance + norm.eps).rsqrt()
        return factor

    if method == "balanced":
        return balance_classes(
            X, decide, domains=domains, prior=prior, dispersion=dispersion
        )
    return maximise_information(
        X,
        decide,
        domains=domains,
        variant=method.removeprefix("spdim-"),
        dispersion=dispersion,
    )


def _place(norm: nn.Module, rows: Tensor, found: Centres) -> None:
    """Put centres and variances where the fit has put mean and dispersion."""
    # Domains whose trials were too few, or unconvincing, keep the refit.
    moved = torch.tensor([action in LABEL_SHIFT for action in found.action])
    rows, moved = rows[moved.to(rows.device)], moved.to(found.centre.device)
    for prefix in ("", "test_"):
        getattr(norm, f"{prefix}mean")[rows] = found.centre[moved]
        getattr(norm, f"{prefix}variance")[rows] = found.variance[moved]
