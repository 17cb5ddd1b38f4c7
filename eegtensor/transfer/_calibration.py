"""A new person by a few labelled trials and 20 to 40 numbers."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from eegtensor._check import check_count, check_lengths, check_number, fail, listing
from eegtensor.domains import Domain
from eegtensor.training import UNLABELLED, Batch, ParamSpace
from eegtensor.training.averagers import Trajectory
from eegtensor.training.network import Network
from eegtensor.training.subspace import Frame, trajectory_frame
from eegtensor.training.transforms import calibrate_in_subspace
from eegtensor.transfer._perdomain import _target_names
from eegtensor.transfer._retarget import encode


class CalibratedNetwork:
    """What a classifier around a network learns of a person's labelled trials.

    Attributes
    ----------
    directions_ : dict | None
        Of the weights that training moved along: ``"base"``, the trained weights,
        and ``"directions"``, orthonormal tangents there; both by parameter.
    coefficients_ : ndarray, shape (n_directions,) | None
        What the last `calibrate` found.
    """

    calibration: int | None
    epochs: int
    classes_: NDArray
    network_: Any
    adaptation_: dict[Domain, str]
    last_target_: Domain | None
    directions_: dict[str, dict[str, Tensor]] | None
    coefficients_: NDArray | None

    def calibrate(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        adapt: bool = True,
        ridge: float = 30.0,
    ) -> Self:
        """Fit the network to a few labelled trials of a person.

        The person's statistics are fitted first, as `adapt` does. Then the weights
        move, within the `calibration` directions in which training moved them most.
        They are the person's from then on: each call starts from the trained
        weights, and to keep several people, calibrate a copy for each. Statistics of
        other domains stay as they are.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
            Without subjects and sessions of one domain, "target".
        y : array-like, shape (n_trials,)
            At least one trial of every class, which all count alike. Trials with
            None or NaN serve the statistics alone.
        subjects, sessions : array-like of str, shape (n_trials,) | None
        adapt : bool
            False keeps the statistics, where `adapt` has fitted them to more trials.
        ridge : float
            For how many labelled trials the trained weights count: the loss is the
            mean over them plus ``ridge / n_labelled * |a / r|^2 / 2``, with
            coefficients a and the root mean square r of the weights per direction.
            The default is that of simulated people.

        Raises
        ------
        EEGTensorError
            If `fit` kept no directions, a class has no trial, or a label is new.

        References
        ----------
        T. Li et al., "Low dimensional trajectory hypothesis is true: DNNs can be
        trained in tiny subspaces", IEEE TPAMI 2023 (P-BFGS); its use for a person
        is ours.
        """
        X = self._check_fitted_to(X)  # type: ignore[attr-defined]
        kept = self.directions_
        if kept is None:
            fail(
                "There are no directions to calibrate in",
                why="They are found from the weights along the training run, and "
                "calibration=None records none",
                fix="set calibration=20 (up to 40) and fit again; `adapt` needs none",
            )
        check_number("ridge", ridge, least=0.0)
        labels = _codes(y, len(X), self.classes_)
        names = _target_names(len(X), subjects, sessions)
        # A copy at the trained weights: an interrupt leaves all as it was.
        person: Any = copy.copy(self)
        person.network_ = copy.deepcopy(self.network_)
        space = ParamSpace(person.network_)
        base, directions = (
            {n: t.to(space.leaves[n].device) for n, t in kept[part].items()}
            for part in ("base", "directions")
        )
        space.assign(base)
        # Without statistics of domains there is no such method.
        if adapt and hasattr(person, "adapt"):
            person.adapt(X, subjects=subjects, sessions=sessions)
            space = ParamSpace(person.network_)
        known = labels != UNLABELLED
        share = np.bincount(labels[known], minlength=len(self.classes_))
        weight = known.sum() / (len(share) * share[labels[known]])
        x = person._inputs(X, np.flatnonzero(known))
        batch = Batch(
            x,
            torch.from_numpy(labels[known]),
            encode(person.network_, names).cpu()[torch.from_numpy(known)],
            weight=torch.from_numpy(weight).to(x.dtype),
        )
        found = calibrate_in_subspace(
            Network(person.network_),
            batch,
            Frame(space, base, directions),
            ridge=ridge / len(batch),
        )
        self.network_, self.adaptation_ = person.network_, person.adaptation_
        self.last_target_ = names[-1]
        self.coefficients_ = found.coefficients.cpu().numpy()
        return self

    def _recorder(self) -> Trajectory | None:
        """Return what records weights in `fit`, if directions are asked for."""
        self.directions_, self.coefficients_ = None, None
        if self.calibration is None:
            return None
        check_count("calibration", self.calibration)
        if self.calibration > self.epochs:
            fail(
                f"calibration={self.calibration} with epochs={self.epochs}",
                why="Each epoch gives at most one direction",
                fix="train for more epochs, or ask for fewer directions",
            )
        return Trajectory(initial=True, limit=max(self.epochs + 1, 2))

    def _keep_directions(self, recorder: Trajectory | None, network: nn.Module) -> None:
        """Find the directions of what was recorded, at the weights as they are."""
        if recorder is None:
            return
        space = ParamSpace(network)
        frame = trajectory_frame(
            space,
            recorder.states,
            n_components=self.calibration,
            base=space.snapshot(),
        )
        self.directions_ = {"base": frame.base, "directions": frame.directions}


def _codes(y: ArrayLike, n_trials: int, classes: NDArray) -> NDArray:
    """Return codes of labels among known classes, -1 where there is no label."""
    labels = np.asarray(y)
    check_lengths(n_trials, y=labels)
    missing = pd.isna(labels)
    given = labels[~missing]
    new = sorted({str(label) for label in given[~np.isin(given, classes)]})
    if new:
        fail(
            f"y has labels that fit did not see: {listing(new)}",
            fix=f"give those of the classes {listing([str(c) for c in classes])}",
        )
    codes = np.full(n_trials, UNLABELLED)
    codes[~missing] = np.searchsorted(classes, given)
    absent = [str(c) for c in classes[~np.isin(classes, given)]]
    if absent:
        fail(
            f"There is no trial of class {listing(absent)}",
            why="The weights would move until that class is never predicted",
            fix="give at least one trial of every class",
        )
    return codes
