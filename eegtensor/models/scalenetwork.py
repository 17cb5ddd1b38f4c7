"""The network of the learned tokenizer: how large a coefficient may be."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaleNetwork(nn.Module):
    """Scale of a quantised coefficient from what was coded before it.

    Parameters
    ----------
    n_features : int
        Of a context; the last is the logarithm of the training data's energy.
    n_hidden : int
    n_parts : int
        Gaussians of the mixture that all coefficients share up to their scale.

    Notes
    -----
    Starts as the training data's standard deviation with no look at the context.
    """

    def __init__(
        self, n_features: int, *, n_hidden: int = 16, n_parts: int = 3
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, n_hidden)
        self.middle = nn.Linear(n_hidden, n_hidden)
        self.out = nn.Linear(n_hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.log_weights = nn.Parameter(torch.zeros(n_parts))
        self.log_ratios = nn.Parameter(torch.linspace(-0.7, 0.7, n_parts))

    def forward(self, features: Tensor) -> Tensor:
        """Return log scales in steps, (...), of contexts (..., n_features)."""
        x = torch.relu(self.hidden(features))
        x = torch.relu(self.middle(x))
        return features[..., -1] / 2 + self.out(x)[..., 0]
