"""What is learned from masked tokens, and how it is measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor.models._codehead import CodeLosses
from eegtensor.models.maskedtokens import TokenStates
from eegtensor.training import Batch, StepContext


class MaskedScores(NamedTuple):
    """How well masked codes are told, and how well without any context.

    Attributes
    ----------
    cross_entropy : float
        Nats a code that was sent and masked.
    accuracy : float
        Share of those that were the likeliest.
    unigram_cross_entropy, unigram_accuracy : float
        The same of the shares that codes of a slot have in the training data.
    n_codes : int
        Codes that were masked.
    """

    cross_entropy: float
    accuracy: float
    unigram_cross_entropy: float
    unigram_accuracy: float
    n_codes: int


class MaskedPart(NamedTuple):
    """The masked tokens of a batch, window after window.

    Attributes
    ----------
    window, place : Tensor of int64, shape (n,)
        Which window, and which of its units times frames.
    losses : CodeLosses
    """

    window: Tensor
    place: Tensor
    losses: CodeLosses


def masked_part(model: Any, batch: Batch, outputs: TokenStates) -> MaskedPart:
    """Return how well the masked tokens of a batch are told."""
    masked, ids = batch.x["masked"].flatten(1), batch.x["ids"].flatten(1, 2)
    states = outputs.states.flatten(1, 2)
    if states.device.type == "cpu":
        window, place = masked.nonzero(as_tuple=True)
        return MaskedPart(
            window, place, model.losses(states[window, place], ids[window, place])
        )
    # No count is looked at: a step on a GPU would wait for it.
    n = masked.shape[1]
    flat = torch.arange(masked.numel(), device=masked.device)
    losses = model.losses(states.flatten(0, 1), ids.flatten(0, 1))
    keep = masked.flatten()
    losses = CodeLosses(*(torch.where(keep, part, 0) for part in losses))
    return MaskedPart(flat // n, flat % n, losses)


class MaskedCrossEntropy:
    """Nats of a window's masked tokens, by the codes that these send.

    Parameters
    ----------
    ranking : float
        Weight of the loss of the predicted difficulties: of all pairs of masked
        tokens of a window, the one with the larger loss should have the larger
        score (a logistic loss of their difference).

    References
    ----------
    Wang et al., "Hard patches mining for masked image modeling", CVPR, 2023.
    """

    per_trial = True

    def __init__(self, *, ranking: float = 0.0) -> None:
        self.ranking = ranking

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: TokenStates, context: StepContext
    ) -> Tensor:
        """Return one loss a window, shape (batch,)."""
        part = masked_part(model, batch, outputs)
        nats = part.losses.sent + part.losses.codes
        zero = nats.new_zeros(len(batch))
        total = zero.index_add(0, part.window, nats)
        codes = zero.index_add(0, part.window, part.losses.n_codes.to(zero.dtype))
        loss = total / codes.clamp_min(1)
        if self.ranking:
            # By code: tokens of many codes are long, not hard; and a cross entropy
            # does not grow with amplitude, so that artefacts are not the hardest.
            each = nats.detach() / part.losses.n_codes.clamp_min(1)
            truth = torch.full_like(outputs.difficulty.flatten(1), torch.nan)
            truth[part.window, part.place] = each
            truth = torch.where(batch.x["masked"].flatten(1), truth, torch.nan)
            loss = loss + self.ranking * ranking_loss(
                outputs.difficulty.flatten(1), truth
            )
        return loss


def ranking_loss(scores: Tensor, truth: Tensor) -> Tensor:
    """Return the logistic loss of the order of all pairs.

    Parameters
    ----------
    scores, truth : Tensor, shape (batch, n)
        NaN in truth where there is none.

    Returns
    -------
    loss : Tensor, shape (batch,)
    """
    larger = truth[:, :, None] > truth[:, None]
    apart = scores[:, :, None] - scores[:, None]
    loss = torch.where(larger, F.softplus(-apart), 0.0).sum(dim=(1, 2))
    return loss / larger.sum(dim=(1, 2)).clamp_min(1)
