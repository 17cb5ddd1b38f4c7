"""A new person by 20 to 40 numbers: the coefficients of a subspace of weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.network import Network
from eegtensor.training.objectives.crossentropy import CrossEntropy
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.protocols import StepContext
from eegtensor.training.statistics import evaluating
from eegtensor.training.subspace import Frame
from eegtensor.training.transforms.pbfgs import Minimum, bfgs


def calibrate_in_subspace(
    network: Network,
    batch: Batch,
    frame: Frame,
    *,
    objective: Any = None,
    n_steps: int = 20,
    search: str = "interpolation",
    ridge: float = 1e-2,
    start: Tensor | None = None,
) -> Minimum:
    """Fit the coefficients of a frame to the labelled trials of a new person.

    Of the network only `len(frame)` numbers, 20 to 40, are learned; statistics are
    those of evaluation, so adapt them to the person first. The network ends with
    the weights found; ``frame.base`` takes them back.

    Parameters
    ----------
    network : Network
    batch : Batch
        Labelled trials; all of them in each step.
    frame : Frame
        Such as `trajectory_frame` of the weights along the training run, with the
        trained weights as its base.
    objective : Objective | sequence of Objective or (weight, Objective) | None
        Cross-entropy by default.
    n_steps : int
        Of BFGS.
    search : "backtracking" | "interpolation"
    ridge : float
        Weight of ``|a / r|^2 / 2`` in the loss, with r the root mean square of the
        weights at the base per direction: a few trials would move coefficients far.
    start : Tensor, shape (n_directions,) | None
        Zero, the base, by default.

    Raises
    ------
    EEGTensorError
        If ridge is negative, or the loss at the start is not finite.
    """
    check_number("ridge", ridge, least=0.0)
    loss = WeightedSum(CrossEntropy() if objective is None else objective)
    model, space = network.model, frame.space
    place = device_of(model)
    batch = batch.to(place)
    kept = [(p, p.grad) for p in model.parameters()]
    size = sum(float(p.double().square().sum()) for p in frame.base.values())
    pull = ridge * len(frame) / max(size, 1e-300)

    def function(a: Tensor, wants_gradient: bool) -> tuple[float, Tensor | None]:
        with torch.no_grad():
            space.assign(frame.points(a))
        model.zero_grad()
        with torch.set_grad_enabled(wants_gradient):
            value = StepContext(network, loss, batch).loss(batch)
        total = float(value.detach()) + 0.5 * pull * float(a @ a)
        if not wants_gradient:
            return total, None
        value.backward()  # type: ignore[no-untyped-call]
        return total, frame.gradient(a, space.gradients()) + pull * a

    zero = torch.zeros(len(frame), dtype=torch.float64, device=place)
    with evaluating(model, *loss.modules):
        try:
            found = bfgs(
                function,
                zero if start is None else start,
                n_steps=n_steps,
                search=search,
            )
        finally:
            for p, g in kept:
                p.grad = g
    if (
        not torch.isfinite(found.coefficients).all()
        or found.losses[0] != found.losses[0]
    ):
        fail(
            "The loss at the start of the calibration is not finite",
            fix="check the trials and the statistics of the person's domain",
        )
    with torch.no_grad():
        space.assign(frame.points(found.coefficients))
    return found
