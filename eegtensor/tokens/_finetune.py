"""Train a classifier on tokens, its statistics refitted on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eegtensor.models.tokenclassifier import TokenClassifierNetwork
from eegtensor.training import (
    Batch,
    CrossEntropy,
    History,
    Progress,
    ShuffleSampler,
    TrainState,
    make_optimizer,
    train,
)

# Trials of a domain that its statistics are refitted on in training, and epochs
# between refits.
_TRIALS, _EVERY = 16, 5


class RefitStatistics:
    """Refit the statistics of all domains every few epochs, without labels.

    Batch statistics would need several labelled trials of each domain in a batch.

    Parameters
    ----------
    data : Batch
        Trials and their domains.
    """

    def __init__(self, data: Batch) -> None:
        assert data.domain is not None
        domains = data.domain.unique().tolist()
        rows = [_spread((data.domain == d).nonzero()[:, 0]) for d in domains]
        self.data = data.pick(torch.cat(rows))

    def on_epoch_start(self, state: TrainState) -> None:
        """Refit where an epoch of a refit begins."""
        if state.epoch % _EVERY == 0:
            model: Any = state.model
            model.eval()
            model.fit_statistics(self.data.x, self.data.domain)


def _spread(rows: Tensor) -> Tensor:
    """Return some rows from first to last: trials may be in the order of classes."""
    n = min(len(rows), _TRIALS)
    return rows[torch.arange(n) * len(rows) // n]


def finetune(
    network: TokenClassifierNetwork,
    labelled: Batch,
    everything: Batch,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
    verbose: bool,
) -> History:
    """Train a network on labelled trials, and refit its statistics at the end.

    Parameters
    ----------
    network : TokenClassifierNetwork
    labelled : Batch
        Trials, labels and domains; classes weigh alike.
    everything : Batch
        Trials and domains of `labelled` and those without label.
    epochs, batch_size : int
    lr, weight_decay : float
    seed : int
    verbose : bool
    """
    assert labelled.y is not None
    assert everything.domain is not None
    share = torch.bincount(labelled.y).double() / len(labelled)
    weight = (1 / (len(share) * share.clamp_min(1e-12)))[labelled.y].float()
    callbacks: list[Any] = [RefitStatistics(everything)]
    if verbose:
        callbacks.append(Progress("TokenClassifier"))
    history = train(
        network,
        Batch(labelled.x, labelled.y, labelled.domain, weight=weight),
        objective=CrossEntropy(),
        optimizer=make_optimizer(network, "adamw", lr=lr, weight_decay=weight_decay),
        sampler=ShuffleSampler(len(labelled), batch_size=batch_size, random_state=seed),
        epochs=epochs,
        callbacks=callbacks,
        random_state=seed,
    )
    network.fit_statistics(everything.x, everything.domain)
    return history
