"""Novelty in what a trial would change of the weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.extmath import randomized_svd

from eegtensor._check import check_count, check_option, fail
from eegtensor.trust.scorers._gradients import head_gradients, network_gradients
from eegtensor.trust.scorers.base import Scorer
from eegtensor.trust.scorers.evidence import Evidence, as_evidence

LAYERS = ("all", "head")
SUBSPACES = ("principal", "class-mean")
PROBE_SCORES = ("energy", "msp", "knn")


class LowDimGradients(Scorer):
    """Gradients of a trial's energy by the weights, in few dimensions.

    u(x) = d logsumexp(f(x)) / dw is whitened by coordinate, projected to the leading
    directions of training (or to the mean gradient of every class), and classified
    by a linear probe; its logits, or the projections, are scored.

    Parameters
    ----------
    layers : "all" | "head"
        Weights looked at. "all" needs ``evidence(..., gradients=True)`` of a network;
        the gradients by the head's follow from logits and features alone.
    subspace : "principal" | "class-mean"
    n_directions : int | None
        Of the principal subspace; None: 5 a class, 40 at most.
    score : "energy" | "msp" | "knn"
        Of the probe's logits; "knn" of the projections.
    random_state : int | None
        Of the power iteration.

    Notes
    -----
    One backward pass a trial for "all". The probe is a standardised logistic
    regression, in place of ten epochs of batch norm and linear layer.

    References
    ----------
    Y. Wu et al., "Low-dimensional gradient helps out-of-distribution detection",
    IEEE TPAMI 2024.
    """

    def __init__(
        self,
        layers: str = "head",
        subspace: str = "principal",
        n_directions: int | None = None,
        score: str = "energy",
        random_state: int | None = 0,
    ) -> None:
        self.layers = layers
        self.subspace = subspace
        self.n_directions = n_directions
        self.score = score
        self.random_state = random_state

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Parts of the evidence that are looked at."""
        return ("gradients",) if self.layers == "all" else ("logits", "features")

    def _fit(self, found: Evidence, y: NDArray | None) -> None:
        from eegtensor.trust.scorers.named import make_scorer

        check_option("layers", self.layers, LAYERS)
        check_option("subspace", self.subspace, SUBSPACES)
        check_option("score", self.score, PROBE_SCORES)
        if y is None or len(np.unique(y)) < 2:
            fail(
                "LowDimGradients got no classes",
                why="A probe learns to tell them from gradients",
                fix="call fit(evidence, y) with two classes or more",
            )
        U = self._gradients(found)
        self.mean_ = U.mean(axis=0)
        spread = U.std(axis=0)
        # Coordinates that hardly move have no scale of their own.
        moving = spread > 1e-8 * max(float(spread.max()), np.finfo(float).tiny)
        self.scale_ = np.where(moving, 1.0 / np.where(moving, spread, 1.0), 0.0)
        white = (U - self.mean_) * self.scale_
        self.directions_ = self._directions(white, y)
        rows = white @ self.directions_
        self.probe_ = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        self.probe_.fit(rows, y)
        self.scorer_ = make_scorer(self.score).fit(self._probed(rows), y)

    def _directions(self, white: NDArray, y: NDArray) -> NDArray:
        classes = np.unique(y)
        if self.subspace == "class-mean":
            means = np.stack([white[y == c].mean(axis=0) for c in classes], axis=1)
            lengths = np.linalg.norm(means, axis=0)
            return means / np.where(lengths > 0, lengths, 1.0)
        wanted = self.n_directions
        if wanted is None:
            wanted = min(40, 5 * len(classes))
        k = min(check_count("n_directions", wanted), *white.shape)
        found = randomized_svd(white, k, n_iter=10, random_state=self.random_state)
        return np.asarray(found[2].T)

    def _gradients(self, found: Evidence) -> NDArray:
        if self.layers == "head":
            return head_gradients(found.need("logits"), found.need("features"))
        if found.network is None or found.batch is None:
            fail(
                "There is no network among the evidence",
                fix="get it by evidence(decoder, X, gradients=True), or choose "
                "layers='head'",
            )
        return network_gradients(found.network, found.batch)

    def project(self, evidence: Evidence) -> NDArray:
        """Return the whitened gradients' coordinates, (n_trials, n_directions)."""
        U = self._gradients(as_evidence(evidence, self.needs))
        return ((U - self.mean_) * self.scale_) @ self.directions_

    def _probed(self, rows: NDArray) -> Evidence:
        z = self.probe_.decision_function(rows)
        z = np.stack([-0.5 * z, 0.5 * z], axis=1) if z.ndim == 1 else z
        return Evidence(logits=z, features=rows)

    def _score(self, found: Evidence) -> NDArray:
        return self.scorer_.score_samples(self._probed(self.project(found)))
