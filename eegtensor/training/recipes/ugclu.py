"""UG-CLU: learning new domains and unlearning others in one run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives.crossentropy import CrossEntropy
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.plugs import Plugs
from eegtensor.training.protocols import Step, StepContext, TrainState
from eegtensor.training.recipes.saliency import Masked, fisher, saliency_mask
from eegtensor.training.recipes.streams import Stream, trials_of
from eegtensor.training.statistics import StatisticsGuard

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup

Mask = dict[str, Tensor]


class UGCLU:
    """Learn some domains and unlearn others while the rest is replayed, a recipe.

    Every `every` steps there is a fast one: ascent on trials to forget, masked to
    weights that matter to them more than to all others, then descent on trials to
    learn, masked to weights that matter to either. Every step descends on the rest;
    the weights then move to ``(1 - beta) w_before + beta w`` of the cycle, on their
    manifolds. Nothing is masked in learning where nothing is to be forgotten.

    The paper's text was not at hand: the order of the steps and the masks are a
    reconstruction from its abstract and from `SFRon`, which this is without trials
    to learn.

    Parameters
    ----------
    forget, learn : tuple of int
        Codes of domains; trials of all others are replayed.
    n_steps : int
        Of the whole run; each epoch makes its share.
    alpha : float
        Factor of the ascent, which falls to 0 along half a cosine. 0 is no ascent.
    gamma : float
        Ratio of information from which on a weight is in the mask.
    lam : float
        Trials weigh loss^-lam, scaled to mean 1: those forgotten count less.
    every : int
    clip : float
        Largest norm of a gradient that ascends.
    beta : float
        In (0, 1]; 1 is off.
    n_information : int | None
        Most batches of each kind that the masks are found with; None: all trials.
    batch_size, domains_per_batch : int
    random_state : int

    Attributes
    ----------
    masks : dict of str to dict of Tensor
        Of "forget" and "learn".

    Raises
    ------
    EEGTensorError
        If an option is out of range, or a domain is to be learned and forgotten.

    References
    ----------
    arXiv 2505.15178 (the abstract).
    """

    def __init__(
        self,
        forget: tuple[int, ...] = (),
        learn: tuple[int, ...] = (),
        n_steps: int = 1500,
        alpha: float = 25.0,
        gamma: float = 1.0,
        lam: float = 0.5,
        every: int = 5,
        clip: float = 7.0,
        beta: float = 1.0,
        n_information: int | None = None,
        batch_size: int = 50,
        domains_per_batch: int = 5,
        random_state: int = 0,
    ) -> None:
        both = set(forget) & set(learn)
        if both:
            fail(f"Domains {sorted(both)} are to be learned and forgotten")
        self.forget, self.learn = tuple(forget), tuple(learn)
        self.n_steps = check_count("n_steps", n_steps)
        self.alpha = check_number("alpha", alpha, least=0.0)
        self.gamma = check_number("gamma", gamma, least=0.0)
        self.lam = check_number("lam", lam, least=0.0)
        self.every = check_count("every", every)
        self.clip = check_number("clip", clip, above=0.0)
        if not 0 < check_number("beta", beta) <= 1:
            fail(f"beta={beta}", fix="give a share in (0, 1]")
        self.beta = beta
        if n_information is not None:
            check_count("n_information", n_information)
        self.n_information = n_information
        self.batch_size, self.domains_per_batch = batch_size, domains_per_batch
        self.random_state = random_state
        self.masks: dict[str, Mask] = {}

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> UGCLU:
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
            self.masks = {}

    def steps(self, state: TrainState, data: Batch) -> Iterator[Step]:
        """Yield the steps of the epoch `state.epoch`."""
        assert state.network is not None
        streams = self._streams(data)
        if self.forget and self.alpha and not self.masks:
            self._find_masks(state, data, streams)
        n, e = self.n_steps, state.n_epochs
        space, before = state.network.space, None
        for t in range((state.epoch - 1) * n // e, state.epoch * n // e):
            if t % self.every == 0 or before is None:
                before = space.snapshot() if self.beta < 1 else {}
            if t % self.every == 0:
                yield from self._fast(t // self.every, t / n, state, data, streams)
            yield Step(_pick(data, streams["rest"].at(t)))
            if self.beta < 1 and (t + 1) % self.every == 0:
                shares = [1.0 - self.beta, self.beta]
                space.assign(space.mean([before, space.snapshot()], shares))

    def _fast(
        self,
        cycle: int,
        progress: float,
        state: TrainState,
        data: Batch,
        streams: Mapping[str, Stream],
    ) -> Iterator[Step]:
        alpha = self.alpha * (1.0 + math.cos(math.pi * progress)) / 2.0
        if "forget" in streams and self.alpha:
            loss = WeightedSum([(alpha, _Unforgotten(self.lam))])
            plugs = Plugs.sort((), Masked(self.masks["forget"], self.clip))
            batch = _pick(data, streams["forget"].at(cycle))
            # Trials to forget must not leave anything in running statistics.
            with StatisticsGuard(state.model, "transient"):
                yield Step(batch, loss, plugs, sign=-1.0)
        if "learn" in streams:
            mask = self.masks.get("learn")
            masked = None if mask is None else Plugs.sort((), Masked(mask))
            yield Step(_pick(data, streams["learn"].at(cycle)), plugs=masked)

    def _streams(self, data: Batch) -> dict[str, Stream]:
        who = type(self).__name__
        parts = {
            "forget": trials_of(data, self.forget, who=who),
            "learn": trials_of(data, self.learn, who=who),
            "rest": trials_of(data, self.forget + self.learn, others=True, who=who),
        }
        if not len(parts["rest"]):
            fail(f"{who} has no trials left to replay", fix="keep those of some domain")
        return {
            name: Stream(
                data,
                index,
                batch_size=self.batch_size,
                domains_per_batch=self.domains_per_batch,
                seed=self.random_state,
            )
            for name, index in parts.items()
            if len(index)
        }

    def _find_masks(
        self, state: TrainState, data: Batch, streams: Mapping[str, Stream]
    ) -> None:
        assert state.network is not None
        found = {
            name: fisher(state.network, data, stream.one_pass()[: self.n_information])
            for name, stream in streams.items()
        }
        forget, rest = found["forget"], found["rest"]
        learn = [found["learn"]] if "learn" in found else []
        self.masks = {"forget": saliency_mask([forget], [rest, *learn], self.gamma)}
        if learn:
            self.masks["learn"] = saliency_mask([forget, *learn], [rest], self.gamma)

    def state_dict(self) -> dict[str, Any]:
        """Return the masks."""
        return {"masks": {name: dict(mask) for name, mask in self.masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.masks = {name: dict(mask) for name, mask in state["masks"].items()}


class _Unforgotten(CrossEntropy):
    """Cross entropies, weighed by loss^-lam with mean weight 1."""

    def __init__(self, lam: float) -> None:
        self.lam = lam

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        loss = super().__call__(model, batch, outputs, context)
        with torch.no_grad():
            w = 1.0 / (loss.pow(self.lam) + 1e-15)
            w = w / w.mean()
        return w * loss


def _pick(data: Batch, index: Tensor) -> Batch:
    return data.pick(index.to(data.device))
