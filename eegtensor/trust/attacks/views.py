"""A fitted decoder as attacks see it: trials in, logits out, statistics fixed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from eegtensor._check import fail, listing
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.network import Network
from eegtensor.training.perturbations.places import frozen
from eegtensor.trust.attacks.asking import ask, names_at, scores


class View:
    """Some trials of a decoder; called with them it returns logits.

    Attributes
    ----------
    classes : ndarray, shape (n_classes,) | None
        Labels in the order of logits; None where logits are all that there is.
    dtype, device
        Of the trials that it takes.
    rows : Tensor of int64, shape (n_trials,)
        Which of all trials it is of: their domains are known by it.
    """

    classes: NDArray | None = None
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")
    rows: Tensor
    names: dict[str, Any]
    n_trials: int

    def beside(self, other: Any) -> View:
        """Return a view of another decoder of the same classes and trials."""
        view = view_of(other, self.n_trials, **self.names, gradient=False)
        # A module has no names: its logits are taken to stand in the same order.
        if self.classes is not None and view.classes is not None:
            here, there = list(self.classes), list(view.classes)
            if here != there:
                fail(
                    f"Decoders know the classes {listing(here)} and {listing(there)}",
                    fix="give decoders of the same classes",
                )
        return view.pick(self.rows)

    def pick(self, rows: Tensor) -> View:
        """Return a view of some of the trials."""
        part = copy.copy(self)
        part.rows = self.rows[rows.cpu()]
        return part

    @contextmanager
    def still(self) -> Iterator[None]:
        """Inside, nothing that is called moves its statistics."""
        yield

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits, shape (n_trials, n_classes)."""
        return self.features_and_logits(x)[1]

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what enters the last step, (n_trials, n_features), and logits."""
        raise NotImplementedError

    def predict(self, X: NDArray) -> NDArray:
        """Return what the decoder itself says of all trials, shape (n_trials,)."""
        raise NotImplementedError


class ModuleView(View):
    """A torch module with trials as its input, such as a network of braindecode."""

    def __init__(self, module: nn.Module) -> None:
        self.network = Network(module, keeps_features=True)
        self.device = device_of(module)
        weight = next((p for p in module.parameters() if p.is_floating_point()), None)
        self.dtype = torch.float32 if weight is None else weight.dtype

    @contextmanager
    def still(self) -> Iterator[None]:
        """Inside, the module uses evaluation statistics and no dropout."""
        with frozen(self.network.model):
            yield

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits; without features, so without a head that must be found."""
        logits: Tensor = self.network.model(x.to(self.dtype))
        return logits

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the module's head, and logits."""
        logits = self.network(Batch(x.to(self.dtype)))
        assert self.network.features is not None
        return self.network.features, logits

    def predict(self, X: NDArray) -> NDArray:
        """Return codes of classes."""
        found = []
        with self.still(), torch.no_grad():
            for part in torch.from_numpy(X).split(256):
                logits = self(part.to(self.device, self.dtype))
                found.append(logits.argmax(1).cpu())
        return torch.cat(found).numpy()


class EstimatorView(View):
    """What every estimator has: `predict` with names of domains, and classes."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self.classes = getattr(estimator, "classes_", None)
        if self.classes is None:
            fail(
                f"{type(estimator).__name__} has no classes_",
                fix="fit it first; of regressors there is no attack",
            )

    def predict(self, X: NDArray) -> NDArray:
        """Return labels."""
        return np.asarray(ask(self.estimator, "predict", X, self.names))


class ScoreView(EstimatorView):
    """An estimator of which scores are seen, and no gradient."""

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the trials themselves, and scores."""
        names = names_at(self.names, self.rows.numpy())
        found = scores(self.estimator, x.detach().cpu().numpy(), names)
        return x.flatten(1), torch.from_numpy(found).to(x.device)


def view_of(
    decoder: Any,
    n_trials: int,
    *,
    subjects: ArrayLike | None = None,
    sessions: ArrayLike | None = None,
    gradient: bool = True,
) -> View:
    """Return a decoder as attacks see it.

    Parameters
    ----------
    decoder : estimator or torch.nn.Module
    n_trials : int
    subjects, sessions : array-like of str, shape (n_trials,) | None
        Domains of all trials.
    gradient : bool
        Whether logits must have one. Of steps behind the covariances that have
        none it is found by differences.

    Raises
    ------
    EEGTensorError
        If a gradient is needed, and a step on signals has none.
    """
    view: View
    if isinstance(decoder, nn.Module):
        view = ModuleView(decoder)
    elif not gradient:
        view = ScoreView(decoder)
    else:
        # It needs scikit-learn's and the package's own estimators, and MNE with them.
        from eegtensor.trust.attacks.chain import ChainView

        view = ChainView(decoder, n_trials, subjects, sessions)
    view.names = {"subjects": subjects, "sessions": sessions}
    view.n_trials, view.rows = n_trials, torch.arange(n_trials)
    return view
