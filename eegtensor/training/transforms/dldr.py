"""DLDR: training goes on in the few directions in which it moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.averagers.trajectory import Trajectory
from eegtensor.training.space import ParamSpace
from eegtensor.training.subspace import Frame, trajectory_frame

if TYPE_CHECKING:
    from eegtensor.training.protocols import (
        Gradients,
        State,
        StepContext,
        TrainState,
    )


class DLDR:
    """Dynamic linear dimensionality reduction, P-SGD.

    The weights after each epoch of the first part of a run are recorded; their
    principal directions P span a subspace. The run then starts again from its
    first weights, with gradients P' P g. Optimizers that scale each weight (Adam),
    weight decay and the curvature of manifolds lead out of it: after each step
    the weights go to the nearest point of the subspace. For SGD without decay on
    Euclidean weights that changes nothing.

    Parameters
    ----------
    n_components : int
        Directions; 20 to 40 serve networks with millions of weights.
    collect : float
        Share of the epochs that are recorded.
    restart : bool
        Start again from the first weights; otherwise from the last.
    hold : bool
        Go back to the subspace after each step.

    Attributes
    ----------
    frame_ : Frame | None
        After `fit`.

    Raises
    ------
    EEGTensorError
        If an option is out of its range.

    References
    ----------
    T. Li, L. Tan, Z. Huang, Q. Tao, Y. Liu and X. Huang, "Low dimensional
    trajectory hypothesis is true: DNNs can be trained in tiny subspaces", IEEE
    TPAMI 2023.
    """

    def __init__(
        self,
        n_components: int = 40,
        collect: float = 0.5,
        restart: bool = True,
        hold: bool = True,
    ) -> None:
        check_count("n_components", n_components)
        if not check_number("collect", collect, above=0.0) < 1:
            fail(f"collect={collect}", fix="give a share of the run in (0, 1)")
        for name, value in (("restart", restart), ("hold", hold)):
            check_option(name, value, (True, False))
        self.n_components, self.collect = n_components, collect
        self.restart, self.hold = restart, hold
        self.frame_: Frame | None = None
        self._trajectory = Trajectory(initial=True)
        self._saved: dict[str, Any] | None = None
        self._given = False

    def fit(self, trajectory: Sequence[State], space: ParamSpace) -> DLDR:
        """Find the directions of recorded weights; gradients follow them from now on.

        Parameters
        ----------
        trajectory : sequence of mapping
            The first is where tangents are taken.
        space : ParamSpace
        """
        self._given = True
        return self._fit(trajectory, space, trajectory[0])

    def _fit(self, trajectory: Sequence[State], space: ParamSpace, base: State) -> DLDR:
        self.frame_ = trajectory_frame(
            space, trajectory, n_components=self.n_components, base=base
        )
        return self

    def on_train_start(self, state: TrainState) -> None:
        """Record the first weights, or take up what a checkpoint had."""
        assert state.network is not None
        space = state.network.space
        if self._saved is not None:
            # Files bring tensors of the CPU.
            base, rows = (
                {n: t.to(space.leaves[n].device) for n, t in self._saved[key].items()}
                for key in ("base", "directions")
            )
            self.frame_ = Frame(space, base, rows)
            self._saved = None
        elif self._given and self.frame_ is not None:
            self.frame_ = Frame(space, self.frame_.base, self.frame_.directions)
        elif state.epoch == 0:
            self.frame_ = None
        self._trajectory.on_train_start(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Record the weights; when enough are, find the directions."""
        if self.frame_ is not None:
            return
        self._trajectory.record(state.model)
        if state.epoch < self.collect * state.n_epochs:
            return
        assert state.network is not None
        space, states = state.network.space, self._trajectory.states
        # Of a long run not every epoch is recorded: the last may be missing.
        self._fit(states, space, states[0] if self.restart else space.snapshot())
        assert self.frame_ is not None
        space.assign(self.frame_.base)
        # Momenta of the run before point out of the subspace.
        state.optimizer.state.clear()
        self._trajectory.states = []

    def on_step_end(self, state: TrainState) -> None:
        """Go to the nearest weights of the subspace."""
        if self.frame_ is None or not self.hold:
            return
        frame = self.frame_
        with torch.no_grad():
            points = frame.points(frame.coefficients(frame.space.points()))
        frame.space.assign(points)

    def __call__(self, gradients: Gradients, context: StepContext) -> Gradients:
        """Return the part of gradients along the directions."""
        if self.frame_ is None:
            return gradients
        found = self.frame_.project(gradients)
        return {name: found[name] for name in gradients}

    def state_dict(self) -> dict[str, Any]:
        """Return what was recorded, and the directions found."""
        frame = self.frame_
        return {
            "trajectory": self._trajectory.state_dict(),
            "frame": None
            if frame is None
            else {"base": frame.base, "directions": frame.directions},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._trajectory.load_state_dict(state["trajectory"])
        self._saved = state["frame"]
