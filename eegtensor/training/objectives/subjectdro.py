"""Cross entropy of the worst mixture of people that is still like people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from eegtensor._check import check_count, fail
from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.objectives._shared import OncePerStep
from eegtensor.training.objectives.worstmixture import worst_mixture

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup


class SubjectDRO:
    """Robust optimisation over mixtures of domains, one loss a trial.

    ``max_q sum_s q_s L_s`` over shares q of the domains whose mixture lies in a
    ball: the kernel mean embedding of each domain's features is a point, the ball
    is about their mean and holds a share 1 - nu of them. Training alternates with
    the search for the worst q, once an epoch, from running means of losses and
    embeddings. A reconstruction after the paper's idea; its learned set is a ball
    here.

    Parameters
    ----------
    n_domains : int
        Codes of domains are below it.
    nu : float
        1: the mean alone, all domains alike. 0: the worst domain alone.
    rate : float
        Share of the way from the last q to the worst one in an epoch.
    momentum : float
        Of running means: weight of the past.
    n_features : int
        Random Fourier features of the Gaussian kernel.

    Attributes
    ----------
    q : Tensor, shape (n_domains,)

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    "Robust out-of-distribution stochastic optimization", arXiv 2604.20147.
    """

    per_trial = True
    needs = ("features",)

    def __init__(
        self,
        n_domains: int,
        nu: float = 0.5,
        rate: float = 0.5,
        momentum: float = 0.7,
        n_features: int = 128,
    ) -> None:
        check_count("n_domains", n_domains)
        self.n_features = check_count("n_features", n_features)
        if not 0 <= nu <= 1 or not 0 < rate <= 1 or not 0 <= momentum < 1:
            fail(
                f"nu={nu}, rate={rate}, momentum={momentum}",
                fix="give shares between 0 and 1",
            )
        self.nu, self.rate, self.momentum = nu, rate, momentum
        self._once = OncePerStep()
        self._waves: tuple[Tensor, Tensor] | None = None
        self._reset(n_domains)

    def _reset(self, n_domains: int) -> None:
        self.q = torch.full((n_domains,), 1.0 / n_domains, dtype=torch.float64)
        self.losses = torch.zeros(n_domains, dtype=torch.float64)
        self.seen = torch.zeros(n_domains, dtype=torch.float64)
        self.embeddings = torch.zeros(n_domains, self.n_features, dtype=torch.float64)
        self.width = torch.zeros((), dtype=torch.float64)

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> SubjectDRO:
        """Return one for the domains of a run."""
        assert setup.data.domain is not None
        return cls(int(setup.data.domain.max()) + 1, **options)

    def on_train_start(self, state: TrainState) -> None:
        """Forget the losses of an earlier run."""
        self._once = OncePerStep()
        if state.epoch == 0:
            self._reset(len(self.q))

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,), as q weighs it."""
        y = labels_of(batch, "Subject DRO")
        losses = cross_entropy(outputs, y, reduction="none", ignore_index=UNLABELLED)
        if not model.training:
            return losses
        if batch.domain is None:
            fail(
                "Subject DRO got trials without domains",
                fix="pass subjects and sessions to fit",
            )
        self._to(outputs.device)
        known = (y != UNLABELLED) & (batch.domain >= 0)
        slots = torch.arange(len(self.q), device=outputs.device)
        member = ((slots[:, None] == batch.domain) & known).double()
        count = member.sum(1)
        share = member / count.clamp_min(1.0)[:, None]
        there = (count > 0).double()
        with torch.no_grad():
            self._once.begins(context)
            first = (member * self._once.take(batch, context)).sum(1) > 0
            self._learn(share, first.double(), losses, context.features)
        # So that the mean over trials is the mean over domains of S q_s L_s.
        factor = self.q * len(self.q) * there * len(y) / there.sum().clamp_min(1.0)
        return losses * (factor @ share).to(losses.dtype)

    def _learn(
        self, share: Tensor, there: Tensor, losses: Tensor, features: Tensor
    ) -> None:
        """Move the running means of the domains of a batch."""
        h = features.double()
        if len(h) > 1:
            # Distances to itself, which are zero, are not among these.
            first = torch.pdist(h).median()
            self.width = torch.where(self.width == 0, first, self.width)
        width = self.width.where(self.width > 0, 1.0)
        w, b = self._directions(h)
        wave = (h / width) @ w + b
        embedded = math.sqrt(2.0 / self.n_features) * wave.cos()
        new = (1.0 - self.momentum) * there
        step = torch.where(self.seen > 0, new, there)
        self.losses += step * (share @ losses.double() - self.losses)
        self.embeddings += step[:, None] * (share @ embedded - self.embeddings)
        self.seen = torch.maximum(self.seen, there)

    def _directions(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return frequencies and phases, the same always: steps are comparable."""
        known = self._waves
        if known is None or len(known[0]) != h.shape[1] or known[0].device != h.device:
            g = torch.Generator().manual_seed(0)
            w = torch.randn(h.shape[1], self.n_features, generator=g, dtype=h.dtype)
            b = 2 * math.pi * torch.rand(self.n_features, generator=g, dtype=h.dtype)
            # Kept: to copy them to a GPU in every step would make it wait.
            self._waves = known = w.to(h.device), b.to(h.device)
        return known

    def on_epoch_start(self, state: TrainState) -> None:
        """Move q towards the worst mixture."""
        seen = np.flatnonzero(self.seen.cpu().numpy())
        if len(seen) < 2:
            return
        E = self.embeddings.cpu().numpy()[seen]
        worst = np.zeros(len(self.q))
        worst[seen] = worst_mixture(self.losses.cpu().numpy()[seen], E @ E.T, self.nu)
        self.q = self.q + self.rate * (torch.from_numpy(worst).to(self.q) - self.q)

    def _to(self, device: torch.device) -> None:
        if self.q.device != device:
            for name, value in self.state_dict().items():
                setattr(self, name, value.to(device))

    def state_dict(self) -> dict[str, Tensor]:
        """Return q and the running means."""
        names = ("q", "losses", "seen", "embeddings", "width")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set q and the running means."""
        for name, value in state.items():
            setattr(self, name, value.clone())
