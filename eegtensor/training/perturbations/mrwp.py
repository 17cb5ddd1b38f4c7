"""mRWP: RWP with noise that shrinks where gradients are large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eegtensor.training.batch import Batch
from eegtensor.training.perturbations._fisher import FisherDamping
from eegtensor.training.perturbations.moves import Move
from eegtensor.training.perturbations.rwp import RWP, NoisyMove
from eegtensor.training.space import ParamSpace, Tangent

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState


class _Unmixed(NoisyMove):
    """A noisy move that shows the gradient of its own pass to a damping."""

    def __init__(
        self,
        space: ParamSpace,
        tangent: Tangent,
        batch: Batch | None,
        damping: FisherDamping,
        mix: float,
    ) -> None:
        super().__init__(space, tangent, batch)
        self._damping, self._mix = damping, mix
        self._first = space.gradients()

    def revert(self) -> None:
        """Come back, and take in the gradient at the noisy weights."""
        moved = self._kept is not None
        super().revert()
        if moved:
            # The loop has mixed the two gradients by now: the first is taken out again.
            mixed, mix = self.space.gradients(), self._mix
            noisy = {
                name: (leaf - (1.0 - mix) * self._first[name]) / mix
                for name, leaf in mixed.items()
            }
            self._damping.add(self.space, noisy)


class MRWP(RWP):
    """Mixed random weight perturbation with adaptive noise (mARWP).

    As `RWP`, with its noise divided by ``sqrt(1 + eta F)``, where
    ``F <- beta F + g^2`` sums squared gradients at the noisy weights over the
    filter (over the whole leaf on manifolds). The authors' loop makes one step of
    two batches; this one makes a step of every batch, of which each is used twice.

    Parameters
    ----------
    sigma : float
        Size of the noise relative to the weights.
    mix : float
        Weight of the gradient at w + e, in (0, 1].
    eta : float
        Strength of the damping; with 0 this is RWP.
    beta : float
        Decay of the sum of squared gradients.
    batch : "previous" | "same"
        Trials of the pass at w + e.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    T. Li, Q. Tao, W. Yan, Z. Lei, Y. Wu, K. Fang, M. He and X. Huang, "Revisiting
    random weight perturbation for efficiently improving generalization", TMLR 2024.
    """

    def __init__(
        self,
        sigma: float = 0.015,
        mix: float = 0.5,
        eta: float = 0.1,
        beta: float = 0.99,
        batch: str = "previous",
    ) -> None:
        super().__init__(sigma, mix, batch)
        self._damping = FisherDamping(eta, beta)

    def on_train_start(self, state: TrainState) -> None:
        """Forget the gradients of an earlier run."""
        if state.epoch == 0:
            self._damping.sums = {}

    def sample(self, context: StepContext) -> Move:
        """Return damped noise for a pass on another batch."""
        other, space = self._other(context), context.space
        noise = self._noise(context, self._damping.divisors(space))
        return _Unmixed(space, noise, other, self._damping, self.mix)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of squared gradients."""
        return {"sums": dict(self._damping.sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._damping.sums = dict(state["sums"])
