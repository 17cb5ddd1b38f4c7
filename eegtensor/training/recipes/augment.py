"""Augmentation of trials by a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.recipes.augmentations import OPERATIONS, check_signal

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class Policy(NamedTuple):
    """How likely each augmentation is, and with which magnitude.

    Attributes
    ----------
    operations : tuple of str
        Names in `OPERATIONS`, in the order of use.
    probability : Tensor, shape (n_operations,)
    levels : Tensor, shape (n_operations, n_levels)
        Magnitudes.
    share : Tensor, shape (n_operations, n_levels)
        Probability of each magnitude where the operation is used; rows add up to 1.
    """

    operations: tuple[str, ...]
    probability: Tensor
    levels: Tensor
    share: Tensor


def uniform_policy(
    operations: Sequence[str],
    *,
    probability: float = 0.5,
    n_levels: int = 4,
    magnitude: float = 1.0,
) -> Policy:
    """Return the policy that prefers nothing.

    Parameters
    ----------
    operations : sequence of str
    probability : float
        Of each operation.
    n_levels : int
        Magnitudes from 1 / n_levels of the largest to `magnitude` times it.
    magnitude : float
    """
    if not operations:
        fail("There are no augmentations", fix=f"choose among {', '.join(OPERATIONS)}")
    for name in operations:
        check_option("operations", name, tuple(OPERATIONS))
    if not 0 <= check_number("probability", probability) <= 1:
        fail(f"probability={probability}", fix="give a number from 0 to 1")
    check_number("magnitude", magnitude, above=0.0)
    check_count("n_levels", n_levels)
    steps = torch.arange(1, n_levels + 1) / n_levels * magnitude
    largest = torch.tensor([OPERATIONS[name].largest for name in operations])
    shape = (len(operations), n_levels)
    return Policy(
        tuple(operations),
        torch.full((len(operations),), probability),
        largest[:, None] * steps,
        torch.full(shape, 1.0 / n_levels),
    )


def augmented(
    x: Tensor,
    policy: Policy,
    generator: torch.Generator | None = None,
    *,
    used: Tensor | None = None,
    level: Tensor | None = None,
) -> Tensor:
    """Return augmented trials.

    Parameters
    ----------
    x : Tensor, shape (n_trials, n_channels, n_times)
    policy : Policy
    generator : torch.Generator | None
        On the device of the trials.
    used : Tensor of bool, shape (n_operations,) or (n_operations, n_trials) | None
        Which operations are used; drawn for each trial by default.
    level : Tensor of int64, shape (n_operations,) | None
        Which magnitude; drawn for each trial by default.
    """
    check_signal(x)
    n = len(x)
    for k, name in enumerate(policy.operations):
        if used is None:
            drawn = torch.rand(n, generator=generator, device=x.device)
            chosen = drawn < policy.probability[k].to(x.device)
        else:
            chosen = used[k].to(x.device).expand(n)
        if level is None:
            share = policy.share[k].to(x.device)
            which = torch.multinomial(share, n, True, generator=generator)
        else:
            which = level[k].to(x.device).expand(n)
        size = policy.levels[k].to(x)[which]
        changed = OPERATIONS[name].function(x, size, generator)
        x = torch.where(chosen[:, None, None], changed, x)
    return x


class Augment:
    """Each trial is changed in ways that leave its class, with a probability each.

    Parameters
    ----------
    operations : tuple of str
        "channel-dropout", "time-shift", "frequency-shift", "amplitude", "noise",
        "sign-flip", "time-reverse".
    probability : float
    magnitude : float
        Of the largest of each operation: half the channels, a quarter of the trial,
        0.02 cycles a sample, a factor of e^0.5, half a standard deviation.
    policy : Policy | None
        In place of the others, such as that of `search_augmentation`.
    """

    where: Literal["input"] = "input"
    extra_gradients = 0
    needs = ("raw trials",)

    def __init__(
        self,
        operations: tuple[str, ...] = ("channel-dropout", "amplitude", "noise"),
        probability: float = 0.5,
        magnitude: float = 1.0,
        policy: Policy | None = None,
    ) -> None:
        if policy is not None and not isinstance(policy, Policy):
            fail(
                f"policy is a {type(policy).__name__}",
                fix="give what search_augmentation found, or uniform_policy(...)",
            )
        if isinstance(operations, str):
            operations = (operations,)
        self.policy = policy or uniform_policy(
            operations, probability=probability, magnitude=magnitude
        )

    def sample(self, context: StepContext) -> Changed:
        """Return the changed trials of the step."""
        batch = context.batch
        x = augmented(check_signal(batch.x), self.policy, context.generator)
        return Changed(replace(batch, x=x))


class Changed:
    """Other trials in place of a step's."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def apply(self) -> Batch:
        """Return the changed trials."""
        return self.batch

    def revert(self) -> None:
        """Nothing is to be put back: the trials themselves were left as they were."""
