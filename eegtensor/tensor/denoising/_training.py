"""Training of one network on pairs of trials, stopped by trials held out."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.tensor.denoising._mixture import CERTAIN
from eegtensor.tensor.denoising._network import Filter
from eegtensor.tensor.denoising._pairs import halves, means, shifted

DILATIONS = (1, 2, 4)
BATCH = 16
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1


class Fit(NamedTuple):
    """A network, and by how much it predicted held-out trials better than zero."""

    network: Filter
    gain: float


def trust(fits: list[Fit], Z: Tensor) -> Tensor:
    """Return weights by gain, squared, so that a network that failed is out."""
    gains = Z.new_tensor([fit.gain for fit in fits]).square()
    return gains / gains.sum().clamp_min(torch.finfo(Z.dtype).tiny)


def train(
    Z: Tensor,
    codes: Tensor,
    lags: Tensor,
    test: NDArray,
    sizes: tuple[int, int],
    max_epochs: int,
    patience: int,
    rng: np.random.Generator,
) -> Fit:
    """Train until held-out trials are predicted worse."""
    network = Filter(Z.shape[1], *sizes, DILATIONS)
    network.start(torch.Generator().manual_seed(int(rng.integers(2**31))))
    network.to(Z.device)
    untrained = copy.deepcopy(network.state_dict())
    best, best_epoch, gain, error = untrained, 0, 0.0, 0.0
    aligned = shifted(Z, lags)
    own = torch.from_numpy(np.flatnonzero(~test)).to(Z.device)
    other = torch.from_numpy(np.flatnonzero(test)).to(Z.device)
    sums, counts = means(aligned[other], codes[other])
    there = codes[other]
    rest = (sums[there] - aligned[other]) / (counts[there] - 1.0)
    goal = shifted(rest, -lags[other])
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    own_codes = codes[own]
    for epoch in range(1, max_epochs + 1):
        half = torch.from_numpy(halves(own_codes.cpu().numpy(), rng)).to(Z.device)
        sums, counts = means(aligned[own], 2 * own_codes + half)
        # Conditions none of whose trials are trained on have empty rows.
        average = sums / counts.clamp_min(1.0)
        target = shifted(average[2 * own_codes + 1 - half], -lags[own])
        order = torch.from_numpy(rng.permutation(len(own))).to(Z.device)
        with torch.enable_grad():
            for batch in order.split(BATCH):
                loss = (network(Z[own[batch]]) - target[batch]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            better = goal.square() - (network(Z[other]) - goal).square()
        each = better.mean(dim=(1, 2)).double()
        if float(each.mean()) > gain:
            best, best_epoch = copy.deepcopy(network.state_dict()), epoch
            gain, error = float(each.mean()), float(each.std()) / len(each) ** 0.5
        if epoch - best_epoch >= patience:
            break
    certain = gain > CERTAIN * error
    network.load_state_dict(best if certain else untrained)
    return Fit(network.eval(), gain if certain else 0.0)
