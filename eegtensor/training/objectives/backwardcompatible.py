"""Embeddings that an archive of old ones can still be searched by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels
from eegtensor.training.objectives._teachers import Teacher, Teachers

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState


class BackwardCompatible(nn.Module):
    """BT2: a change of basis that keeps new embeddings comparable with old ones.

    Of a trial's new features b and its old ones a, both n numbers after orthogonal
    maps, ``u = [P_old a / |P_old a|, P_new b]`` is cut in two: the first
    ``n_old`` entries, turned once more, are the compatible part, which the old
    classifier must read and which lies along a; the others hold what is new.
    The loss of a trial is

        CE(new classifier of both parts) + influence CE(old classifier of the
        compatible part) + cosine (1 - cos(compatible part, a)).

    Parameters
    ----------
    old : Module | Tensor, shape (n_trials, n_old)
        The old network, whose features are what enters its head, or a table.
    old_classifier : Tensor, shape (n_classes, n_old)
        Weights of the old head, or prototypes of classes in the archive.
    n_new : int
        Features that enter the new network's head.
    extra : int
        Dimensions added; 0 leaves the old features out of the embedding.
    influence, cosine : float
        Ours: of simulated trials, with cosine=20 new queries found old entries better
        than old ones did whether the old network knew half of the classes or all of
        them; with 5 only where it knew half.
    random_state : int

    Notes
    -----
    The released code takes as many new features as old ones, and its slice ``:-e``
    is empty at e = 0; both are free here.

    References
    ----------
    Y. Zhou et al., "BT2: backward-compatible training with basis transformation",
    ICCV 2023, eq. 4 to 8.
    """

    per_trial = True
    training_only = True
    needs = ("features",)

    def __init__(
        self,
        old: Teacher,
        old_classifier: Tensor,
        n_new: int,
        *,
        extra: int = 32,
        influence: float = 1.0,
        cosine: float = 20.0,
        random_state: int = 0,
    ) -> None:
        super().__init__()
        check_count("extra", extra, least=0)
        self.influence = check_number("influence", influence, least=0.0)
        self.cosine = check_number("cosine", cosine, least=0.0)
        n_classes, self.n_old = old_classifier.shape
        if n_new + extra < self.n_old:
            fail(
                f"{n_new} new features and extra={extra} for {self.n_old} old ones",
                fix=f"set extra to {self.n_old - n_new} or more",
            )
        if extra > self.n_old:
            fail(
                f"extra={extra} of {self.n_old} old features",
                why="An orthogonal map has no more outputs than inputs",
                fix=f"set extra to {self.n_old} or less",
            )
        self.register_buffer("old_classifier", old_classifier.detach().clone())
        self.old = Teachers(old, features=True)
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(random_state)
            self.from_new = _orthogonal(n_new, n_new)
            self.from_old = _orthogonal(self.n_old, extra) if extra else None
            self.turn = _orthogonal(self.n_old, self.n_old)
            self.classifier = nn.Linear(n_new + extra, n_classes)

    def embed(self, new: Tensor, old: Tensor) -> Tensor:
        """Return embeddings of new and old features, (n_trials, n_new + extra).

        The first `n_old` entries are the compatible part. Their squares add up to
        those of the new features plus one, for `extra` > 0.
        """
        u = self.from_new(new)
        if self.from_old is not None:
            u = torch.cat([F.normalize(self.from_old(old), dim=1), u], 1)
        compatible = self.turn(u[:, : self.n_old])
        return torch.cat([compatible, u[:, self.n_old :]], 1)

    def archived(self, old: Tensor) -> Tensor:
        """Return old embeddings with zeros appended, to be searched by new ones."""
        rest = self.classifier.in_features - self.n_old
        return F.pad(F.normalize(old, dim=1), (0, rest))

    def on_train_start(self, state: TrainState) -> None:
        """Move the old network to where the run is."""
        self.old.to(state.device)

    def __call__(  # type: ignore[override]
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "BackwardCompatible")
        weight = self.classifier.weight
        old = self.old.logits(batch).to(weight.dtype)
        z = self.embed(context.features.to(weight.dtype), old)
        part = z[:, : self.n_old]
        reading = F.linear(part, self.get_buffer("old_classifier").to(weight.dtype))
        loss = F.cross_entropy(self.classifier(z), y, reduction="none")
        loss = loss + self.influence * F.cross_entropy(reading, y, reduction="none")
        return loss * known + self.cosine * (1.0 - F.cosine_similarity(part, old))


class _Polished(nn.Module):
    """A step of Newton and Schulz towards orthonormal rows, in float64.

    The exponential of a skew matrix that grew in training is orthogonal to 1e-5 in
    float32; a step squares that.
    """

    def forward(self, W: Tensor) -> Tensor:
        V = W.double()
        return (1.5 * V - 0.5 * (V @ V.mT) @ V).to(W.dtype)


def _orthogonal(n_in: int, n_out: int) -> nn.Module:
    """Return a linear map with orthonormal rows, n_out of them."""
    # Torch's choice where n_in != n_out, Householder reflections, keeps signs as the
    # integer part of weights: by the first decay of weights the map is zero.
    layer = parametrizations.orthogonal(
        nn.Linear(n_in, n_out, bias=False), orthogonal_map="matrix_exp"
    )
    parametrize.register_parametrization(layer, "weight", _Polished())
    return layer
