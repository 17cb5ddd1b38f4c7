"""A few made-up trials that train a network as many real ones do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.batch import Batch, labels_of
from eegtensor.training.network import Network
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.refit import refit_statistics
from eegtensor.training.space import ParamSpace

METHODS = ("dcc", "dc")


def gradient_distance(
    made: dict[str, Tensor], real: dict[str, Tensor], space: ParamSpace
) -> Tensor:
    """Return sum over layers and output rows of 1 - cos of two gradients.

    Vectors (biases, norms) are left out; a leaf on a manifold is one row, of the
    Riemannian gradients.
    """
    total = next(iter(made.values())).new_zeros(())
    for name, adapter in space.adapters.items():
        a, b = made[name], real[name]
        if a.ndim < 2:
            continue
        if adapter.name == "euclidean":
            a, b = a.flatten(1), b.flatten(1)
        else:
            p = space.points()[name]
            a, b = (adapter.rgrad(p, g).flatten()[None] for g in (a, b))
        # Relative to the layer's own gradients: rows without any count nothing.
        floor = 1e-6 * (a.norm() * b.norm()).detach() + torch.finfo(a.dtype).tiny
        total = (
            total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + floor)).sum()
        )
    return total


def condense(
    make_model: Callable[[int], nn.Module],
    data: Batch,
    *,
    per_class: int = 1,
    method: str = "dcc",
    n_outer: int = 1000,
    n_inner: int = 10,
    n_network: int = 10,
    lr: float = 0.1,
    momentum: float = 0.5,
    lr_network: float = 0.01,
    batch_size: int = 64,
    outer_warmup: int = 250,
    inner_warmup: int = 10,
    random_state: int = 0,
) -> Batch:
    """Return made-up trials, `per_class` of each class, whose gradients are the data's.

    Trials start as real ones. For networks from many random starts, their gradient
    is matched to that of real trials: class by class ("dc"), or that of all made-up
    trials together to the mean of the classes' ("dcc"), which keeps what tells
    classes apart; "dcc" starts class by class. In between the network learns from
    the made-up trials.

    Parameters
    ----------
    make_model : callable
        Returns an untrained network for a seed. Its gradient must itself have a
        derivative.
    data : Batch
        Trials of one array, with labels. Made-up trials keep the domains of those
        they start from.
    per_class : int
    method : "dcc" | "dc"
    n_outer, n_inner, n_network : int
        Networks, steps of the trials with each, and steps of the network in between.
    lr, momentum : float
        Of the trials, in standard deviations of the channel.
    lr_network : float
    batch_size : int
        Real trials of a class.
    outer_warmup, inner_warmup : int
        Class by class before both have passed either of these.
    random_state : int

    References
    ----------
    S. Lee et al., "Dataset condensation with contrastive signals", ICML 2022, eq. 5;
    B. Zhao et al., "Dataset condensation with gradient matching", ICLR 2021.
    """
    check_option("method", method, METHODS)
    check_count("per_class", per_class)
    check_count("n_outer", n_outer)
    check_count("n_inner", n_inner)
    check_number("lr", lr, above=0.0)
    y = labels_of(data, "Condensation")
    if not isinstance(data.x, Tensor):
        fail("Trials of several arrays cannot be made up", fix="give one array")
    generator = torch.Generator(y.device).manual_seed(random_state)
    members = [torch.nonzero(y == c).flatten() for c in y[y >= 0].unique()]

    few = min((len(index) for index in members), default=0)
    if few < per_class:
        fail(
            f"per_class={per_class}, but a class has {few} labelled trials",
            why="Made-up trials start as real ones",
            fix="give more trials of each class, or make fewer up",
        )

    def drawn(index: Tensor, n: int) -> Tensor:
        order = torch.randperm(len(index), generator=generator, device=y.device)
        return index[order[:n]]

    scale = channel_scale(data.x)
    scale = torch.where(scale > 0, scale, 1.0)
    start = data.pick(torch.cat([drawn(index, per_class) for index in members]))
    z = (start.x / scale).detach().requires_grad_()
    ways = torch.optim.SGD([z], lr=lr, momentum=momentum)

    def made(rows: Tensor) -> Batch:
        return replace(start.pick(rows), x=(z * scale)[rows], index=None)

    everything = torch.arange(len(z), device=y.device)
    own_class = labels_of(start, "")
    for outer in range(n_outer):
        model = make_model(random_state + outer)
        network = Network(model)
        for inner in range(n_inner):
            # Of real trials, and fixed: one made-up trial has no statistics.
            refit_statistics(
                model, data.pick(torch.cat([drawn(i, 16) for i in members]))
            )
            model.eval()
            real = [
                _gradient(network, data.pick(drawn(index, batch_size)))
                for index in members
            ]
            late = outer >= outer_warmup or inner >= inner_warmup
            if method == "dcc" and late:
                mean = {n: sum(g[n] for g in real) / len(real) for n in real[0]}
                loss = gradient_distance(
                    _gradient(network, made(everything), graph=True),
                    mean,  # type: ignore[arg-type]
                    network.space,
                )
            else:
                loss = torch.stack(
                    [
                        gradient_distance(
                            _gradient(
                                network,
                                made(everything[own_class == y[index[0]]]),
                                graph=True,
                            ),
                            g,
                            network.space,
                        )
                        for index, g in zip(members, real, strict=True)
                    ]
                ).sum()
            (z.grad,) = torch.autograd.grad(loss, z)
            ways.step()
            if inner == n_inner - 1:
                break
            for _ in range(n_network):
                g = _gradient(
                    network, replace(made(everything), x=(z * scale).detach())
                )
                space = network.space
                move = space.scale(space.rgrad(g), -lr_network)
                space.assign(space.retract(move))
    return replace(start, x=(z * scale).detach(), index=None)


def _gradient(
    network: Network, batch: Batch, *, graph: bool = False
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy by name of parameter."""
    leaves = network.space.leaves
    loss = F.cross_entropy(network(batch), labels_of(batch, "Condensation"))
    found = torch.autograd.grad(
        loss, list(leaves.values()), create_graph=graph, allow_unused=True
    )
    return {
        name: torch.zeros_like(p) if g is None else (g if graph else g.detach())
        for (name, p), g in zip(leaves.items(), found, strict=True)
    }
