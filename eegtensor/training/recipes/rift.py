"""RiFT: win clean accuracy back where robustness does not live."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail, listing
from eegtensor.training.batch import Batch, labels_of
from eegtensor.training.device import device_of
from eegtensor.training.network import Network
from eegtensor.training.perturbations._adversary import Budget
from eegtensor.training.recipes._oneweight import Climb, OneWeight, Tune
from eegtensor.training.space import ParamSpace, Points
from eegtensor.training.statistics import StatisticsGuard, evaluating


@dataclass(frozen=True)
class RiFT:
    """What `rift` found.

    Attributes
    ----------
    criticality : dict of str to float
        How far the loss of attacked trials can be raised by each weight.
    name : str
        The weight that was fine-tuned.
    alpha : float
        How far the network went from the robust weight (0) to the tuned one (1).
    steps : list of (alpha, clean accuracy, robust accuracy)
    """

    criticality: dict[str, float]
    name: str
    alpha: float
    steps: list[tuple[float, float, float]]


def rift(
    model: nn.Module,
    data: Batch,
    *,
    valid: Batch | None = None,
    eps: float = 0.1,
    n_steps: int = 10,
    step_size: float | None = None,
    norm: str = "linf",
    radius: float = 0.1,
    ascent_epochs: int = 10,
    ascent_lr: float = 1.0,
    epochs: int = 10,
    lr: float = 1e-3,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    n_alphas: int = 11,
    random_state: int = 0,
) -> RiFT:
    """Fine-tune the weight of a robust network that robustness needs least.

    1. The trials are attacked once, at the network as it is.
    2. The criticality of each weight (matrix or kernel) is how far the loss of these
       rises when that weight alone is moved within ``radius`` of its norm, found by
       projected gradient ascent.
    3. The least critical one is fine-tuned on clean trials.
    4. Of the points on the way from its robust to its tuned value, the network ends at
       the one with the best clean accuracy among those whose robust accuracy is not
       below that at the start; among equals at the first.

    Weights on manifolds move along tangents: of Stiefel and SPD weights the norm is
    that of the metric (of SPD the root of the size), the way is that of the retraction.
    All is done in evaluation statistics, which stay as they are, as do all other
    weights.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    data : Batch
        Training trials: those attacked in step 1, and fine-tuned on.
    valid : Batch | None
        Trials that step 4 measures; `data` by default.
    eps, n_steps, step_size, norm
        Of the attack, as in `PGD`.
    radius : float
        Relative to each weight's norm.
    ascent_epochs, ascent_lr : int, float
        Of step 2.
    epochs, lr, momentum, weight_decay
        Of step 3, SGD; the rate is a tenth from half of the epochs on. No decay on
        manifolds.
    batch_size, n_alphas, random_state : int

    Returns
    -------
    found : RiFT

    Raises
    ------
    EEGTensorError
        If the network has no such weight, or an option is out of range.

    Notes
    -----
    The authors' script takes the trials of step 1 from the test set; here they are
    training trials.

    References
    ----------
    K. Zhu et al., "Improving generalization of adversarial training via robust critical
    fine-tuning", ICCV 2023, eq. 3 to 6.
    """
    budget = Budget.checked(eps, n_steps, step_size, norm)
    check_number("radius", radius, above=0.0)
    check_count("n_alphas", n_alphas, least=2)
    for name, value in (("ascent_epochs", ascent_epochs), ("epochs", epochs)):
        check_count(name, value)
    place = device_of(model)
    data = replace(data.to(place), index=None, weight=None)
    valid = data if valid is None else replace(valid.to(place), weight=None)
    for part in (data, valid):
        labels_of(part, "rift")
    space, run = ParamSpace(model), OneWeight(Network(model), batch_size, random_state)
    names = [name for name, p in space.leaves.items() if p.ndim >= 2]
    if not names:
        fail(
            "The network has no weight that could be fine-tuned",
            why=f"Trainable are {listing(space.leaves) or 'none'}, all vectors",
            fix="set requires_grad=True on its weights",
        )
    with StatisticsGuard(model, "transient"), evaluating(model):
        attacked = run.attacked(data, budget)
        start, base = space.snapshot(), run.loss(attacked)
        criticality = {}
        for name in names:
            climb = Climb(space, name, radius, ascent_lr)
            highest = base
            for epoch in range(ascent_epochs):
                run.epoch(attacked, space, name, climb, epoch)
                highest = max(highest, run.loss(attacked))
            criticality[name] = highest - base
            space.restore(start)
        name = min(criticality, key=lambda n: criticality[n])
        tune = Tune(space, name, lr, momentum, weight_decay)
        for epoch in range(epochs):
            tune.lr = lr / 10 if epoch >= epochs / 2 else lr
            run.epoch(data, space, name, tune, epoch)
        tuned = space.points()[name].clone()
        steps = []
        for k in range(n_alphas):
            alpha = k / (n_alphas - 1)
            space.assign(between(space, start, name, tuned, alpha))
            robust = run.accuracy(run.attacked(valid, budget))
            steps.append((alpha, run.accuracy(valid), robust))
        kept = [step for step in steps if step[2] >= steps[0][2]]
        alpha = max(kept, key=lambda step: step[1])[0]
        space.assign(between(space, start, name, tuned, alpha))
    return RiFT(criticality, name, alpha, steps)


def between(
    space: ParamSpace, start: Points, name: str, tuned: Tensor, alpha: float
) -> Points:
    """Return weights of which one is a share of the way to another value of it."""
    if alpha == 0:
        return start
    adapter, p = space.adapters[name], start[name]
    return start | {name: adapter.retract(p, alpha * adapter.log(p, tuned))}
