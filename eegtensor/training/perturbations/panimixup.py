"""MixUp of patches with their nearest ones in other trials."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.perturbations.neighbours import PatchNeighbours
from eegtensor.training.perturbations.scales import channel_scale

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext
    from eegtensor.training.registry import Setup


class PaniMixUp:
    """MixUp of patches with their nearest neighbours, in place of whole trials.

    Each patch p becomes ``p + sum_k eta_k (p_k - p)`` with eta a Dirichlet share
    of a Beta(alpha, alpha) number, and the label the mean over patches of the
    same mixture of labels: shares of classes, for objectives that take them, as
    cross entropy does. Trials of unknown class stay as they are.

    Parameters
    ----------
    n_classes : int
    alpha : float
        Small: mostly one of the two.
    mask : float
        Share of the patches that stay as they are.
    patch, n_neighbours, candidates
        As in `Pani`.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    K. Sun, B. Yu, Z. Lin and Z. Zhu, "Patch-level neighborhood interpolation: a
    general and effective graph-based regularization strategy", ACML 2023.
    """

    where: Literal["input"] = "input"
    extra_gradients = 0
    needs = ("raw trials",)

    def __init__(
        self,
        n_classes: int = 2,
        alpha: float = 0.5,
        mask: float = 0.3,
        patch: int = 32,
        n_neighbours: int = 10,
        candidates: float = 0.5,
    ) -> None:
        self.n_classes = check_count("n_classes", n_classes)
        self.alpha = check_number("alpha", alpha, above=0.0)
        self.mask = check_number("mask", mask, least=0.0)
        self.patch = check_count("patch", patch)
        self.n_neighbours = check_count("n_neighbours", n_neighbours)
        self.candidates = check_number("candidates", candidates, above=0.0)
        if mask >= 1 or candidates > 1:
            fail(
                f"mask={mask}, candidates={candidates}",
                fix="give a mask below 1, and a share of candidates up to 1",
            )

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> PaniMixUp:
        """Return one for the classes of a run."""
        return cls(**{"n_classes": setup.n_classes, **options})

    def sample(self, context: StepContext) -> Mixed:
        """Return the trials of the batch mixed with one another."""
        batch = context.batch
        y = labels_of(batch, "Pani MixUp")
        if y.is_floating_point() or not isinstance(batch.x, Tensor):
            fail(
                "Pani MixUp mixes signals of known classes",
                fix="give one tensor of trials, and class codes",
            )
        known = y != UNLABELLED
        x = batch.x
        scale = channel_scale(x)
        near = PatchNeighbours(
            (x / torch.where(scale == 0, 1.0, scale)).detach(),
            batch.domain,
            patch=self.patch,
            n_neighbours=self.n_neighbours,
            candidates=self.candidates,
            allowed=known,
        )
        eta = self.coefficients(near, context.generator) * known[:, None, None]
        moved = x + (near.displacement(eta) * scale).to(x.dtype)
        return Mixed(replace(batch, x=moved, y=self.labels(near, eta, y)))

    def coefficients(
        self, near: PatchNeighbours, generator: torch.Generator | None
    ) -> Tensor:
        """Return eta, of the shape of `near`; at least 0, a patch's sum at most 1."""
        n, n_patches, k = near.shape
        where: Any = {"dtype": torch.float64, "device": near.trial.device}

        def gamma(shape: tuple[int, ...], of: float) -> Tensor:
            sample: Tensor = torch._standard_gamma(
                torch.full(shape, of, **where),
                generator=generator,
            )
            return sample.clamp_min(1e-30)

        a, b = gamma((2, n, n_patches), self.alpha)
        share = gamma((n, n_patches, k), 1.0) * near.found
        eta = share * (a / (a + b) / share.sum(2).clamp_min(1e-30))[..., None]
        kept = torch.rand(n, n_patches, generator=generator, **where)
        return eta * (kept >= self.mask)[..., None]

    def labels(self, near: PatchNeighbours, eta: Tensor, y: Tensor) -> Tensor:
        """Return shares of classes, shape (n_trials, n_classes); unknown ones are 0."""
        table = one_hot(y.clamp_min(0), self.n_classes).to(eta.dtype)
        table = table * (y != UNLABELLED)[:, None]
        eta = torch.where(near.found, eta, 0.0)
        others = (eta[..., None] * table[near.trial]).sum(2).mean(1)
        own = 1.0 - eta.sum(2).mean(1)
        return (own[:, None] * table + others).float()


class Mixed:
    """Trials in place of those of a batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def apply(self) -> Batch:
        """Return them."""
        return self.batch

    def revert(self) -> None:
        """Do nothing: the batch was never changed."""
