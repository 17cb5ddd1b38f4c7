"""Logistic regression as the head of a network of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch import Tensor

from eegtensor.models.tokenclassifier import TokenClassifierNetwork
from eegtensor.training import Batch, forward_all

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def start_head(
    network: TokenClassifierNetwork, data: Batch, labels: NDArray, *, C: float | None
) -> None:
    """Set the head by logistic regression on normalised averages.

    Parameters
    ----------
    network : TokenClassifierNetwork
        Whose statistics are fitted.
    data : Batch
        Trials and domains.
    labels : ndarray of int, shape (n_trials,)
    C : float | None
        None for what is best in a cross-validation.
    """
    features = forward_all(_Features(network), data).double().cpu().numpy()
    fitted = _regression(C, labels).fit(features, labels)
    fitted = getattr(fitted, "best_estimator_", fitted)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:
        # One row tells two classes apart: half of it for each.
        weight = np.concatenate([-weight, weight]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weight))
        network.head.bias.copy_(torch.from_numpy(bias))


class _Features(torch.nn.Module):
    """What the head of a network gets."""

    def __init__(self, network: TokenClassifierNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: dict[str, Tensor], domain: Tensor) -> Tensor:
        """Return normalised averages."""
        found: Tensor = self.network.features(x, domain)
        return found


def _regression(C: float | None, labels: NDArray) -> Any:
    plain = LogisticRegression(
        C=_STRENGTHS[2] if C is None else C, class_weight="balanced", max_iter=2000
    )
    n_splits = min(5, int(np.bincount(labels).min()))
    if C is not None or n_splits < 2:
        return plain
    # Probabilities tell strengths apart where few labels all come out right.
    return GridSearchCV(
        plain, {"C": list(_STRENGTHS)}, cv=n_splits, scoring="neg_log_loss"
    )
