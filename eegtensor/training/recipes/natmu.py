"""NatMU: unlearning by blends of trials with others, no ascent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.training.batch import Batch, labels_of
from eegtensor.training.network import forward_all
from eegtensor.training.protocols import Step, TrainState
from eegtensor.training.recipes.blends import natural_blends
from eegtensor.training.recipes.streams import Stream, trials_of

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup


class NatMU:
    """Unlearn the trials of some domains by training on blends of them, a recipe.

    Each trial to forget is blended with trials to keep of up to four other classes,
    whose classes the blends get: part of what the network knows of it is led to other
    answers, nothing is pushed away. The blends, made once before the first epoch,
    join the trials to keep. A blend belongs to the domain of the trial to forget.

    Milder than `SFRon`: at usual learning rates much of a trial is remembered.

    Parameters
    ----------
    forget : tuple of int
        Codes of domains.
    delta : float
        Added to the masks: -0.05 for whole people, -0.19 where one trial in a hundred
        is to be forgotten. -1 is fine-tuning on trials to keep and copies of them.
    space : "signals" | "spd"
        What trials are: of signals parts are replaced, of SPD matrices points of
        the geodesic taken.
    batch_size, domains_per_batch : int
    random_state : int

    Attributes
    ----------
    blends : dict of Tensor
        x, y and, as places among the trials, forgotten and kept.

    References
    ----------
    Z. He et al., "Towards natural machine unlearning", arXiv 2405.15495.
    Their masks are of images: rows and columns are here times and channels.
    """

    def __init__(
        self,
        forget: tuple[int, ...] = (),
        delta: float = -0.05,
        space: str = "signals",
        batch_size: int = 50,
        domains_per_batch: int = 5,
        random_state: int = 0,
    ) -> None:
        if not len(forget):
            fail("NatMU has nothing to forget", fix="give codes of domains to forget")
        self.forget, self.delta = tuple(forget), delta
        self.space = check_option("space", space, ("signals", "spd"))
        self.batch_size, self.domains_per_batch = batch_size, domains_per_batch
        self.random_state = random_state
        self.blends: dict[str, Tensor] = {}

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> NatMU:
        """Return the recipe with the run's batches."""
        given = {
            "batch_size": setup.batch_size,
            "domains_per_batch": setup.domains_per_batch,
            "random_state": setup.seed,
        }
        return cls(**given | options)

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run."""
        if state.epoch == 0:
            self.blends = {}

    def steps(self, state: TrainState, data: Batch) -> Iterator[Step]:
        """Yield the steps of the epoch `state.epoch`."""
        if not isinstance(data.x, Tensor):
            fail(
                "NatMU got trials of several parts",
                fix="give signals or SPD matrices, one tensor",
            )
        here = trials_of(data, self.forget, who="NatMU")
        rest = trials_of(data, self.forget, others=True, who="NatMU")
        if not self.blends:
            self.blends = self._make(state, data, here, rest)
        trials = joined(data.pick(rest), self._batch(data))
        stream = Stream(
            trials,
            torch.arange(len(trials)),
            batch_size=self.batch_size,
            domains_per_batch=self.domains_per_batch,
            seed=self.random_state + state.epoch,
        )
        for index in stream.epoch():
            yield Step(trials.pick(index.to(trials.device)))

    def _make(
        self, state: TrainState, data: Batch, here: Tensor, rest: Tensor
    ) -> dict[str, Tensor]:
        y = labels_of(data, "NatMU")
        logits = forward_all(state.model, data.pick(here))
        found = natural_blends(
            data.x[here],
            y[here],
            logits,
            data.x[rest],
            y[rest],
            delta=self.delta,
            space=self.space,
            generator=torch.Generator().manual_seed(self.random_state),
        )
        return {
            "x": found.x,
            "y": found.y,
            "forgotten": here[found.forgotten.to(here.device)],
            "kept": rest[found.kept.to(rest.device)],
        }

    def _batch(self, data: Batch) -> Batch:
        b = {name: tensor.to(data.device) for name, tensor in self.blends.items()}
        assert data.domain is not None
        return Batch(b["x"], b["y"], data.domain[b["forgotten"]])

    def state_dict(self) -> dict[str, Any]:
        """Return the blends."""
        return {"blends": dict(self.blends)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.blends = dict(state["blends"])


def joined(first: Batch, second: Batch) -> Batch:
    """Return the trials of two batches of one tensor each, without places."""
    parts = {
        name: torch.cat([getattr(first, name), getattr(second, name)])
        for name in ("x", "y", "domain")
    }
    return replace(first, **parts, index=None, weight=None)
