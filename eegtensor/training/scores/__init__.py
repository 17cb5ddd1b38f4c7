"""Scores of trials: how hard they are, and which to keep."""

from eegtensor.training.scores.el2n import el2n, el2n_of_runs
from eegtensor.training.scores.grand import grand, last_layer_grand
from eegtensor.training.scores.inefficiency import data_inefficiency
from eegtensor.training.scores.selection import keep_trials, quantiles_within

__all__ = [
    "data_inefficiency",
    "el2n",
    "el2n_of_runs",
    "grand",
    "keep_trials",
    "last_layer_grand",
    "quantiles_within",
]
