"""UNPG: a margin softmax that also sees the negative pairs of its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels, unit

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class UNPG:
    """CosFace with unified negative pairs, one loss a trial.

    Cross entropy of scale (cos(h, w_c) - margin [c = y]), w_c the class vectors of
    the network's head, and of scale cos(h_i, h_j) for all pairs of the batch of
    different classes as further negatives, the same for every trial. Pairs
    beyond the whiskers of their box plot are left out: outliers are wrong labels,
    or pairs that are far apart already.

    Trials without a label (y = -1) have loss 0 and are in no pair.

    Parameters
    ----------
    margin, scale : float
    whisker : float
        In interquartile ranges; negative leaves all pairs out: CosFace.

    Notes
    -----
    The head must be linear, or have fixed vectors (head="simplex" or "orthogonal"),
    whose decisions are by angle, too.

    References
    ----------
    J. Jung et al., "Unified negative pair generation toward well-discriminative
    feature space for face recognition", BMVC 2022. H. Wang et al., "CosFace", CVPR
    2018.
    """

    per_trial = True
    needs = ("features",)

    def __init__(
        self, margin: float = 0.35, scale: float = 30.0, whisker: float = 1.5
    ) -> None:
        self.margin = check_number("margin", margin, least=0.0)
        self.scale = check_number("scale", scale, above=0.0)
        self.whisker = check_number("whisker", whisker)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "UNPG")
        f = unit(context.features)
        cosine = f @ unit(class_vectors(context.network.head).to(f)).mT
        logits = cosine - self.margin * F.one_hot(y, cosine.shape[1]).to(cosine)
        if self.whisker >= 0:
            pairs = negative_pairs(f, y, known, self.whisker)
            logits = torch.cat([logits, pairs.expand(len(f), -1)], dim=1)
        loss = F.cross_entropy(self.scale * logits, y, reduction="none")
        return loss.where(known, 0.0)


def negative_pairs(f: Tensor, y: Tensor, known: Tensor, whisker: float) -> Tensor:
    """Return cosines of pairs of different classes; -inf in place of all others.

    Parameters
    ----------
    f : Tensor, shape (n_trials, n_features)
        Unit vectors.
    y : Tensor of int64, shape (n_trials,)
    known : Tensor of bool, shape (n_trials,)
    whisker : float

    Returns
    -------
    cosines : Tensor, shape (n_trials * (n_trials - 1) / 2,)
    """
    # All pairs, so that their number is known without asking the device.
    i, j = torch.triu_indices(len(f), len(f), 1, device=f.device)
    cosine = (f @ f.mT)[i, j]
    if not len(cosine):
        return cosine
    differ = (y[i] != y[j]) & known[i] & known[j]
    ordered = cosine.detach().where(differ, torch.inf).sort().values
    count = differ.sum()
    quartiles = ordered[torch.stack([count // 4, count * 3 // 4])]
    spread = whisker * (quartiles[1] - quartiles[0])
    inside = (cosine <= quartiles[1] + spread) & (cosine >= quartiles[0] - spread)
    return cosine.masked_fill(~(differ & inside), -torch.inf)


def class_vectors(head: nn.Module) -> Tensor:
    """Return the vector of each class in a head, shape (n_classes, n_features).

    Raises
    ------
    EEGTensorError
        If the head has no such vectors.
    """
    for name in ("weight", "vectors"):
        found = getattr(head, name, None)
        if isinstance(found, Tensor) and found.ndim == 2:
            return found
    fail(
        f"The head, a {type(head).__name__}, has no vector of each class",
        fix="use head='linear', 'simplex' or 'orthogonal'",
    )
