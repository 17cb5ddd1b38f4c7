"""FNGD: natural gradients as weighted sums of the gradients of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.training.adapters import Adapter, adapter_of
from eegtensor.training.transforms._trialgradients import gram, trial_weights

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
    the first epoch w is found, later each trial keeps its own. Layers are linear
    maps, convolutions and modules with a parameter on a manifold (Gram matrix of
    Riemannian gradients); biases, norms and all else have the plain gradient.

    Parameters
    ----------
    damping : float
        Relative to the mean eigenvalue of the Fisher matrix of the batch.
    share : "index" | "none"
        "none" solves for w in every step: exact, about 2 plain steps.
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
        if not damping > 0 or (refresh_every is not None and refresh_every < 1):
            fail(
                f"damping={damping}, refresh_every={refresh_every}",
                fix="give a positive damping, and at least 1 epoch",
            )
        self.damping, self.refresh_every = damping, refresh_every
        self.share = check_option("share", share, ("index", "none"))
        self._weights: dict[str, Tensor] = {}
        self._passes: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._handles: list[Any] = []
        self._layers: dict[str, tuple[nn.Module, str, Adapter]] = {}
        self._busy = False
        self._solves = True
        self._n_trials = 0

    def fit(self, trajectory: Sequence[State], space: ParamSpace) -> FNGD:
        """Return itself: nothing is learned from weights along a run."""
        return self

    def on_train_start(self, state: TrainState) -> None:
        """Watch the layers of the network."""
        self._release()
        if state.epoch == 0:
            self._weights = {}
        self._n_trials = state.n_trials
        for prefix, module in state.model.named_modules():
            name = _weight_of(module)
            if name is None:
                continue
            full = f"{prefix}.{name}" if prefix else name
            self._layers[full] = module, name, adapter_of(getattr(module, name))
            hook = self._watch(full)
            self._handles.append(module.register_forward_hook(hook))

    def on_epoch_start(self, state: TrainState) -> None:
        """See whether weights are found in this epoch."""
        behind, every = state.epoch - 1, self.refresh_every
        self._solves = behind == 0 or (every is not None and behind % every == 0)

    def on_train_end(self, state: TrainState) -> None:
        """Leave the network as it was."""
        self._release()

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._layers, self._passes = [], {}, {}

    def _watch(self, name: str) -> Any:
        def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            x = args[0] if len(args) == 1 else None
            if self._busy or not isinstance(output, Tensor) or x is None:
                return
            if not output.requires_grad or len(x) != len(output):
                return
            x = x.detach()

            def keep(gradient: Tensor) -> None:
                found = self._passes.setdefault(name, [])
                found.append((x, gradient.detach()))

            output.register_hook(keep)

        return see

    @torch.no_grad()
    def __call__(self, gradients: Gradients, context: StepContext) -> Gradients:
        """Return gradients whose trials are weighted."""
        found, n = dict(gradients), len(context.batch)
        for name, (module, leaf, adapter) in self._layers.items():
            rows = _last(self._passes.get(name, []), n)
            if rows is None or name not in gradients:
                continue
            w = self._find(name, module, leaf, adapter, rows, context)
            # What is added is of w - 1: passes not seen here keep a weight of one.
            change = self._weighted(module, leaf, rows, w - 1.0)
            found[name] = gradients[name] + change
        self._passes = {}
        return found

    def _find(
        self,
        name: str,
        module: nn.Module,
        leaf: str,
        adapter: Adapter,
        rows: tuple[Tensor, Tensor],
        context: StepContext,
    ) -> Tensor:
        index = context.batch.index if self.share == "index" else None
        if index is not None:
            if name not in self._weights:
                self._weights[name] = torch.ones(self._n_trials, device=index.device)
            self._weights[name] = self._weights[name].to(index.device)
            if not self._solves:
                return self._weights[name][index]
        w = trial_weights(gram(module, leaf, adapter, *rows), self.damping)
        if index is not None:
            self._weights[name][index] = w.to(self._weights[name])
        return w

    def _weighted(
        self, module: nn.Module, leaf: str, rows: tuple[Tensor, Tensor], w: Tensor
    ) -> Tensor:
        (x, d), p = rows, getattr(module, leaf)
        if isinstance(module, nn.Linear):
            d = d * w.to(d).reshape(-1, *[1] * (d.ndim - 1))
            return d.flatten(0, -2).mT @ x.flatten(0, -2)
        self._busy = True
        try:
            with torch.enable_grad():
                out = module(x)
            scaled = d * w.to(d).reshape(-1, *[1] * (d.ndim - 1))
            (change,) = torch.autograd.grad(out, p, scaled)
        finally:
            self._busy = False
        return change.as_subclass(Tensor)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of trials by layer."""
        return {"weights": dict(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._weights = dict(state["weights"])


def _weight_of(module: nn.Module) -> str | None:
    """Return the parameter of a layer that is a linear map of trials, if it is one."""
    own = {n: p for n, p in module.named_parameters(recurse=False) if p.requires_grad}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    if isinstance(module, kinds):
        return "weight" if "weight" in own else None
    if any(True for _ in module.buffers()) or any(True for _ in module.children()):
        return None
    curved = [n for n, p in own.items() if adapter_of(p).name != "euclidean"]
    return curved[0] if len(curved) == 1 else None


def _last(
    passes: Sequence[tuple[Tensor, Tensor]], n: int
) -> tuple[Tensor, Tensor] | None:
    """Return the passes last seen that make up n trials."""
    taken: list[tuple[Tensor, Tensor]] = []
    count = 0
    for x, d in reversed(passes):
        taken.append((x, d))
        count += len(x)
        if count >= n:
            break
    if count != n:
        return None
    taken.reverse()
    return torch.cat([x for x, _ in taken]), torch.cat([d for _, d in taken])
