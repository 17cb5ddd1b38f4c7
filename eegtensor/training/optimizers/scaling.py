"""Learning rates for other batch sizes, and the largest that converges."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.geometry.spectral import eigvalsh
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.protocols import StepContext
from eegtensor.training.space import ParamSpace, Points, Tangent
from eegtensor.training.statistics import evaluating


def scale_lr(
    lr: float, batch_size: float, new_batch_size: float, rule: str = "sqrt"
) -> float:
    """Return the learning rate for another batch size.

    Parameters
    ----------
    lr : float
        That serves for batches of `batch_size` trials.
    batch_size, new_batch_size : float
    rule : "sqrt" | "linear"
        "sqrt" for optimizers that scale by squared gradients (Adam), "linear" for
        SGD.

    Raises
    ------
    EEGTensorError
        If a batch has no trials.

    References
    ----------
    D. Granziol, S. Zohren and S. Roberts, "Learning rates as a function of batch
    size: a random matrix theory approach to neural network training", JMLR 2022.
    """
    check_option("rule", rule, ("sqrt", "linear"))
    if not (batch_size > 0 and new_batch_size > 0):
        fail(
            f"batch_size={batch_size}, new_batch_size={new_batch_size}",
            fix="give positive numbers of trials",
        )
    ratio = new_batch_size / batch_size
    return float(lr * (ratio if rule == "linear" else ratio**0.5))


class Curvature(NamedTuple):
    """The largest curvature of a loss, and what follows from it.

    Attributes
    ----------
    largest : float
        Largest eigenvalue of the Hessian.
    lr_max : float
        2 / largest: plain gradient descent diverges above it.
    n_iterations : int
    """

    largest: float
    lr_max: float
    n_iterations: int


def largest_curvature(
    network: Network,
    batch: Batch,
    objective: Any,
    *,
    n_iterations: int = 20,
    tol: float = 1e-3,
    step: float = 1e-3,
    random_state: int = 0,
) -> Curvature:
    """Return the largest eigenvalue of the Hessian of a loss, by Lanczos.

    Products with the Hessian are central differences of gradients, on manifolds of
    the loss as a function of the tangent that leads to the weights (whose Hessian at
    zero is the Riemannian one) in the product metric; statistics are those of
    evaluation. Of a batch the eigenvalue is larger than of all trials, the more the
    smaller the batch: measure on batches as in training.

    Parameters
    ----------
    network : Network
        Its weights are put back bit for bit.
    batch : Batch
    objective : Objective | sequence of Objective or (weight, Objective)
    n_iterations : int
        At most; two gradients each.
    tol : float
        Relative change of the eigenvalue at which to stop.
    step : float
        Length of the difference, relative to that of the weights.
    random_state : int

    References
    ----------
    D. Granziol, S. Zohren and S. Roberts, "Learning rates as a function of batch
    size: a random matrix theory approach to neural network training", JMLR 2022.
    """
    check_count("n_iterations", n_iterations)
    check_number("step", step, above=0.0)
    space, loss = network.space, WeightedSum(objective)
    home = space.snapshot()
    reach = step * max(
        float(sum(p.double().square().sum() for p in home.values())) ** 0.5, step
    )
    generator = torch.Generator(batch.device).manual_seed(random_state)
    kept = [(p, p.grad) for p in network.model.parameters()]

    def gradient(u: Tangent) -> Points:
        space.assign(space.retract(u, home))
        network.model.zero_grad()
        context = StepContext(network, loss, batch)
        context.loss(batch).backward()  # type: ignore[no-untyped-call]
        return space.rgrad(_pulled(space, home, u, space.gradients()), home)

    def product(u: Tangent) -> Tangent:
        up, down = gradient(space.scale(u, reach)), gradient(space.scale(u, -reach))
        return {n: (up[n] - down[n]) / (2.0 * reach) for n in up}

    def add(u: Tangent, v: Tangent, factor: torch.Tensor) -> Tangent:
        return {n: leaf + factor.to(leaf) * v[n] for n, leaf in u.items()}

    try:
        with evaluating(network.model, *loss.modules):
            u = space.random_tangent(generator, home)
            basis = [space.scale(u, 1.0 / space.norm(u, home))]
            table = torch.zeros(0, 0, dtype=torch.float64)
            largest = previous = 0.0
            for count in range(1, n_iterations + 1):
                v = product(basis[-1])
                row = torch.stack([space.inner(v, b, home) for b in basis]).cpu()
                grown = torch.zeros(count, count, dtype=torch.float64)
                grown[:-1, :-1], grown[-1], grown[:, -1] = table, row, row
                table = grown
                largest = float(eigvalsh(table)[-1])
                for _ in range(2):
                    # Twice: once leaves rounding of the size of what is taken away.
                    for b in basis:
                        v = add(v, b, -space.inner(v, b, home))
                size = space.norm(v, home)
                if count > 2 and abs(largest - previous) <= tol * abs(largest):
                    break
                if not float(size) > 1e-9 * max(abs(largest), 1e-300):
                    break
                previous = largest
                basis.append(space.scale(v, 1.0 / size))
    finally:
        space.restore(home)
        for p, g in kept:
            p.grad = g
    return Curvature(largest, 2.0 / largest if largest > 0 else float("inf"), count)


def _pulled(space: ParamSpace, home: Points, u: Tangent, gradients: Points) -> Points:
    """Return the gradient of a tangent from that of the weights it leads to.

    Leaving out the derivative of the retraction would leave out the curvature of
    the manifold itself, a term as large as the others.
    """
    with torch.enable_grad():
        v = {n: leaf.detach().requires_grad_() for n, leaf in u.items()}
        points = [space.adapters[n].retract(home[n], leaf) for n, leaf in v.items()]
        found = torch.autograd.grad(points, [*v.values()], [gradients[n] for n in v])
    return dict(zip(v, found, strict=True))
