"""Attacks on decoders: trials in, perturbed trials and what they cost out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eegtensor._check import (
    check_count,
    check_number,
    check_option,
    check_signals,
    fail,
)
from eegtensor.training.perturbations._ascent import NORMS
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.seeds import as_seed
from eegtensor.trust.attacks.asking import codes_of, fixed
from eegtensor.trust.attacks.budget import Budget, measure
from eegtensor.trust.attacks.goal import still
from eegtensor.trust.attacks.views import View, view_of


@dataclass(frozen=True, eq=False)
class Attacked:
    """Trials after an attack.

    Attributes
    ----------
    X : ndarray, shape (n_trials, n_channels, n_times)
        Perturbed, in the unit and dtype of the trials.
    y : ndarray, shape (n_trials,)
        Classes that trials should leave or, with `targeted`, should reach.
    predicted : ndarray, shape (n_trials,)
        What the decoder says of the perturbed trials.
    fooled : ndarray of bool, shape (n_trials,)
    budget : Budget
    queries : ndarray of int, shape (n_trials,) | None
        How often a trial was scored, where the attack sees scores alone.
    distance : ndarray, shape (n_trials,) | None
        Affine-invariant distance between the spatial covariances before and
        after, where the attack is on these.
    """

    X: NDArray
    y: NDArray
    predicted: NDArray
    fooled: NDArray[np.bool_]
    budget: Budget
    queries: NDArray[np.int64] | None = None
    distance: NDArray[np.float64] | None = None

    @property
    def accuracy(self) -> float:
        """Share of the trials that are decoded as `y` after the attack."""
        return float((self.predicted == self.y).mean())


@dataclass(frozen=True)
class Attack(ABC):
    """Base of attacks: plain parameters, and `perturb`.

    Parameters
    ----------
    eps : float
        Size that a perturbation may have.
    targeted : bool
        Whether classes that are given are to be reached, not to be left.
    batch_size : int
        Trials at a time.
    random_state : int | None
    """

    eps: float = 0.1
    targeted: bool = False
    batch_size: int = 256
    random_state: int | None = 0

    needs_gradient: ClassVar[bool] = True

    @abstractmethod
    def _run(
        self,
        view: View,
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return perturbed trials as "x", and what else is found of each."""

    @property
    def budget_norm(self) -> str:
        """What `eps` is measured by."""
        return str(getattr(self, "norm", "linf"))

    def perturb(
        self,
        decoder: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Attacked:
        """Attack trials as a fitted decoder sees them.

        The decoder and its statistics stay as they are. One that would adapt to the
        trials it is asked about (``unseen="adapt"``) is adapted to the clean trials
        first, in a copy: an attack must not move the alignment.

        Parameters
        ----------
        decoder : estimator or torch.nn.Module
            A module takes trials and returns logits.
        X : array-like, shape (n_trials, n_channels, n_times)
        y : array-like, shape (n_trials,) | None
            True classes or, with `targeted`, those to reach; of a module their
            codes. By default what the decoder says of the clean trials.
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If the attack needs a gradient that the decoder does not have, or classes
            are not those of the decoder.
        """
        check_number("eps", self.eps, least=0.0)
        check_count("batch_size", self.batch_size)
        X = check_signals(X)
        names = {"subjects": subjects, "sessions": sessions}
        decoder = fixed(decoder, X, **names)
        view = view_of(decoder, len(X), **names, gradient=self.needs_gradient)
        if y is None and self.targeted:
            fail(
                "A targeted attack got no y", fix="give the classes that it shall reach"
            )
        labels = view.predict(X) if y is None else np.asarray(y)
        codes = torch.from_numpy(codes_of(labels, view.classes, len(X)))
        x = torch.from_numpy(X).to(view.device, view.dtype)
        generator = torch.Generator(view.device).manual_seed(as_seed(self.random_state))
        # Over all trials: what a trial may lose does not depend on its batch.
        scale = channel_scale(x)
        found = []
        with still(view):
            for rows in torch.arange(len(X)).split(self.batch_size):
                of = view.pick(rows)
                y_ = codes[rows].to(view.device)
                found.append(self._run(of, x[rows.to(x.device)], y_, scale, generator))
        joined = {
            name: torch.cat([part[name] for part in found]).detach().cpu().numpy()
            for name in found[0]
        }
        moved = joined.pop("x").astype(X.dtype, copy=False)
        predicted = view.predict(moved)
        hit = predicted == labels
        return Attacked(
            moved,
            labels,
            predicted,
            hit if self.targeted else ~hit,
            measure(X, moved, eps=self.eps, norm=self.budget_norm),
            **joined,
        )


@dataclass(frozen=True)
class GradientAttack(Attack):
    """Base of attacks along the gradient with respect to signals.

    Parameters
    ----------
    eps : float
        Standard deviations of each channel over the trials given.
    norm : "linf" | "l2"
    loss : "cross-entropy" | "margin"
    targeted, batch_size, random_state
        As of `Attack`.
    """

    norm: str = "linf"
    loss: str = "cross-entropy"

    @abstractmethod
    def _move(self, model: Any, x: Tensor, y: Tensor, **given: Any) -> Tensor:
        """Return perturbed trials."""

    def _run(
        self,
        view: View,
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        check_option("norm", self.norm, NORMS)
        moved = self._move(
            view,
            x,
            y,
            eps=self.eps,
            norm=self.norm,
            loss=self.loss,
            targeted=self.targeted,
            scale=scale,
            generator=generator,
        )
        return {"x": moved}
