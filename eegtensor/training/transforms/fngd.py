"""FNGD: natural gradients as weighted sums of the gradients of trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option
from eegtensor.training.transforms._trialgradients import (
    gram,
    is_linear,
    product_gram,
    trial_gradients,
    trial_weights,
    weighted_gradient,
)
from eegtensor.training.transforms._watched import Pass, Watcher

if TYPE_CHECKING:
    from eegtensor.training.protocols import (
        Gradients,
        State,
        StepContext,
        TrainState,
    )
    from eegtensor.training.space import ParamSpace


class FNGD:
    """Fast natural gradient descent, without the inverse of any Fisher matrix.

    With gradients g_i of B trials, Gram matrix K and F = sum g_i g_i' / B, the
    damped natural gradient of a layer is a weighted sum of the g_i:
    ``lam (F + lam I)^-1 mean(g) = sum_i w_i g_i / B`` with
    ``w = (I + K / (B lam))^-1 1``; its scale is such that a large damping gives
    the plain gradient. lam is `damping` times the mean eigenvalue of K / B. In
    the first epoch w is found, later each trial keeps its own. Each weight has its
    own w; Gram matrices are of Riemannian gradients. The weights are those of

    - linear layers and convolutions; biases have the plain gradient,
    - modules with one parameter on a manifold, such as `BiMap`,
    - modules that say ``trialwise = True``: what they make of a trial depends on no
      other. All their weights count, and weights lent to them as an argument. So
      is `LinearFront`, to which TSMNet lends its BiMap.

    Norms, and weights that a network uses outside of these, have the plain gradient.
    With the input x_i of a trial, output ``S_i = f(x_i; W)`` and d_i the gradient of
    the loss in S_i, ``g_i = (dS_i / dW)' d_i``. d_i is that of the backward pass: a
    norm over the batch (or domain) puts S_i in the losses of other trials, too, and
    d_i holds these terms. So the g_i add up to the plain gradient, but g_i is not
    the gradient of the loss of trial i, as it is in a network without such norms.

    Parameters
    ----------
    damping : float
        Relative to the mean eigenvalue of the Fisher matrix of the batch.
    share : "index" | "none"
        "none" solves for w in every step: exact, about 2 plain steps. Those of
        TSMNet stay 1.9 in later epochs, as its filters run again (front="lag": 1.3).
    refresh_every : int | None
        Epochs between two in which w is found anew; None is never.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    X. Ou et al., "Inverse-free fast natural gradient descent method for deep
    learning", arXiv:2403.03473. How weights are shared between epochs is ours.
    """

    def __init__(
        self,
        damping: float = 1.0,
        share: str = "index",
        refresh_every: int | None = None,
    ) -> None:
        self.damping = check_number("damping", damping, above=0.0)
        if refresh_every is not None:
            check_count("refresh_every", refresh_every)
        self.refresh_every = refresh_every
        self.share = check_option("share", share, ("index", "none"))
        self._weights: dict[str, Tensor] = {}
        self._watcher: Watcher | None = None
        self._solves = True
        self._n_trials = 0

    def fit(self, trajectory: Sequence[State], space: ParamSpace) -> FNGD:
        """Return itself: nothing is learned from weights along a run."""
        return self

    def on_train_start(self, state: TrainState) -> None:
        """Watch the maps of the network."""
        self.on_train_end(state)
        if state.epoch == 0:
            self._weights = {}
        self._n_trials = state.n_trials
        self._watcher = Watcher(state.model)

    def on_epoch_start(self, state: TrainState) -> None:
        """See whether weights are found in this epoch."""
        behind, every = state.epoch - 1, self.refresh_every
        self._solves = behind == 0 or (every is not None and behind % every == 0)

    def on_train_end(self, state: TrainState) -> None:
        """Leave the network as it was."""
        if self._watcher is not None:
            self._watcher.release()
        self._watcher = None

    @torch.no_grad()
    def __call__(self, gradients: Gradients, context: StepContext) -> Gradients:
        """Return gradients whose trials are weighted."""
        changed = dict(gradients)
        if self._watcher is None:
            return changed
        for module, found in self._watcher.of(len(context.batch)):
            for name, change in self._changes(module, found, context):
                if name in changed:
                    # Euclidean, as it came: the optimizer makes it a tangent.
                    changed[name] = changed[name] + change.to(changed[name])
        self._watcher.forget()
        return changed

    def _changes(
        self, module: nn.Module, found: Pass, context: StepContext
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield what is to be added to the gradients of a module's weights."""
        index = context.batch.index if self.share == "index" else None
        solves, products = self._solves or index is None, is_linear(module, found)
        rows: dict[str, Tensor] = {}
        if len(found.weights) > 1 or (solves and not products):
            rows = trial_gradients(module, found)
        for name in found.weights:
            K, p = None, context.space.leaves[name]
            if solves and products:
                K = product_gram(found)
            elif solves:
                K = gram(context.space.adapters[name], p, rows[name])
            # What is added is of w - 1: passes not seen here keep a weight of one.
            v = self._find(name, K, index) - 1.0
            if rows:
                yield name, torch.tensordot(v.to(rows[name]), rows[name], dims=1)
            else:
                yield name, weighted_gradient(module, found, v)

    def _find(self, name: str, K: Tensor | None, index: Tensor | None) -> Tensor:
        """Return w of the batch's trials: solved for where there is a K."""
        w = None if K is None else trial_weights(K, self.damping)
        if index is None:
            assert w is not None
            return w
        if name not in self._weights:
            self._weights[name] = torch.ones(self._n_trials, device=index.device)
        kept = self._weights[name] = self._weights[name].to(index.device)
        if w is not None:
            kept[index] = w.to(kept)
            return w
        return kept[index]

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of trials by layer."""
        return {"weights": dict(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._weights = dict(state["weights"])
