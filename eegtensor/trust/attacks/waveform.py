"""Universal perturbations of fitted decoders, and how far they reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_number, check_signals, fail
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.seeds import as_seed
from eegtensor.trust.attacks.asking import codes_of, fixed
from eegtensor.trust.attacks.budget import Budget, measure
from eegtensor.trust.attacks.universal import universal
from eegtensor.trust.attacks.views import view_of


@dataclass(frozen=True, eq=False)
class Waveform:
    """A perturbation that is the same for every trial.

    Attributes
    ----------
    v : ndarray, shape (n_channels, n_times)
        In the unit of the trials that it was found with.
    eps : float
    history : tuple of dict
        Of each epoch: the loss, and the fooling rate on the trials kept back.
    """

    v: NDArray[np.float64]
    eps: float
    history: tuple[dict[str, float], ...]

    def apply(self, X: ArrayLike) -> NDArray:
        """Return trials with the waveform added, in their dtype."""
        X = check_signals(X)
        if X.shape[1:] != self.v.shape:
            fail(
                f"X has {X.shape[1]} channels x {X.shape[2]} samples, the waveform "
                f"{self.v.shape[0]} x {self.v.shape[1]}",
                fix="use the channels, rate and window that it was found with",
            )
        moved: NDArray = (X + self.v).astype(X.dtype, copy=False)
        return moved

    def budget(self, X: ArrayLike) -> Budget:
        """Return how large it is in trials."""
        return measure(check_signals(X), self.apply(X), eps=self.eps, norm="linf")


@dataclass(frozen=True)
class Universal:
    """Finds one waveform that fools a decoder in most trials, without labels.

    The realistic attack on a BCI: an interference that knows neither the trial nor
    its class.

    Parameters
    ----------
    eps, loss, n_epochs, batch_size, lr, weight_decay, band, sfreq
        As of `universal`.
    target : label | None
        Class that all trials shall be taken for.
    validation_fraction : float
        Share of the trials on which the epoch is chosen.
    random_state : int | None
    """

    eps: float = 0.1
    loss: str = "features"
    target: Any = None
    n_epochs: int = 2
    batch_size: int = 32
    lr: float | None = None
    weight_decay: float = 1e-5
    band: tuple[float, float] | None = None
    sfreq: float | None = None
    validation_fraction: float = 0.2
    random_state: int | None = 0

    def find(
        self,
        decoder: Any,
        X: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Waveform:
        """Return the waveform for a fitted decoder, which stays as it is.

        Parameters
        ----------
        decoder : estimator or torch.nn.Module
        X : array-like, shape (n_trials, n_channels, n_times)
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If the decoder has no gradient, or no class of the name `target`.
        """
        X = check_signals(X)
        names: Any = {"subjects": subjects, "sessions": sessions}
        view = view_of(fixed(decoder, X, **names), len(X), **names)
        target = None
        if self.target is not None:
            target = int(codes_of(np.asarray([self.target]), view.classes, 1)[0])
        x = torch.from_numpy(X).to(view.device, view.dtype)
        generator = torch.Generator(view.device).manual_seed(as_seed(self.random_state))
        share = check_number("validation_fraction", self.validation_fraction, least=0.0)
        n_kept = round(share * len(X))
        if n_kept >= len(X):
            fail(f"validation_fraction={share} leaves no trial", fix="give less than 1")
        order = torch.randperm(len(X), generator=generator, device=x.device).cpu()
        scale = channel_scale(x)
        v, history = universal(
            view,
            x,
            eps=self.eps,
            loss=self.loss,
            target=target,
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            band=self.band,
            sfreq=self.sfreq,
            validation=order[:n_kept] if n_kept else None,
            scale=scale,
            generator=generator,
        )
        waveform = (v * scale)[0].double().cpu().numpy()
        return Waveform(waveform, self.eps, tuple(history))


def fooling_rate(before: ArrayLike, after: ArrayLike) -> float:
    """Return the share of predictions that changed."""
    return float(np.mean(np.asarray(before) != np.asarray(after)))


def dominance(predicted: ArrayLike) -> float:
    """Return the share of the most frequent class among predictions."""
    return float(np.unique(np.asarray(predicted), return_counts=True)[1].max()) / len(
        np.asarray(predicted)
    )
