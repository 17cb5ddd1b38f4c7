"""Which tokens are masked in training: at random, in blocks, by channel, or the
hardest ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.training import Batch, StepContext, TrainState

MASKS = ("random", "block", "channel", "hard")
# Centres of the blocks of a window, and how far a chord and a frame reach.
_BLOCKS, _CHORD, _FRAMES = 3, 0.5, 2.0
# Share of the windows in training of which more is masked than asked for.
_MORE = 0.25


def draw_mask(
    kind: str,
    x: Mapping[str, Tensor],
    ratio: float | Tensor,
    generator: torch.Generator,
    *,
    difficulty: Tensor | None = None,
    hard_share: float = 0.0,
) -> Tensor:
    """Return which tokens are masked.

    In every window the share is exact, to one token or channel, and at least one
    token is masked and one is left, where there are two.

    Parameters
    ----------
    kind : "random" | "block" | "channel" | "hard"
        Tokens at random; tokens near in place and time to some at random; all
        frames of channels at random; or the hardest ones, the rest at random.
        Windows of a single channel get random tokens for "channel".
    x : mapping
        ``present``, ``places`` and ``index`` of `MaskedTokenNetwork.forward`.
    ratio : float | Tensor, shape (batch,)
        Share of the tokens that are there.
    generator : torch.Generator
        On their device.
    difficulty : Tensor, shape (batch, n_units, n_frames) | None
        What "hard" goes by.
    hard_share : float
        Of the masked tokens, that are the hardest.

    Returns
    -------
    masked : Tensor of bool, shape (batch, n_units, n_frames)
    """
    check_option("mask", kind, MASKS)
    if not isinstance(ratio, Tensor) and not 0 < ratio < 1:
        fail(f"mask_ratio={ratio!r}", fix="give a share between 0 and 1")
    present = x["present"]
    shape, device = present.shape, present.device
    key = torch.rand(shape, generator=generator, device=device)
    if kind == "block":
        key = _distance_to_seeds(x, key)
    elif kind == "hard" and difficulty is not None:
        here = difficulty.float().masked_fill(~present, -torch.inf)
        # Below all random keys: what is hardest comes first.
        hardest = _first(-here, present, ratio * hard_share, at_least=0)
        key = torch.where(hardest, -1.0, key)
    elif kind == "channel":
        there = present.any(dim=2)
        several = (there.sum(dim=1) > 1)[:, None, None]
        whole = _first(key[:, :, 0], there, ratio)[..., None] & present
        return torch.where(several, whole, _first(key, present, ratio))
    return _first(key, present, ratio)


def _first(
    key: Tensor, present: Tensor, ratio: float | Tensor, at_least: int = 1
) -> Tensor:
    """Return the share of present places that have the smallest keys."""
    flat = key.masked_fill(~present, torch.inf).flatten(1)
    rank = flat.argsort(dim=1).argsort(dim=1)
    count = present.flatten(1).sum(dim=1)
    n = (count * ratio).round().long()
    n = torch.minimum(n, (count - 1).clamp_min(1)).clamp_min(at_least)
    return (rank < n[:, None]).view(present.shape) & present


def _distance_to_seeds(x: Mapping[str, Tensor], key: Tensor) -> Tensor:
    """Return how far each token is from the nearest of some random ones."""
    present = x["present"]
    n_frames = present.shape[2]
    drawn = key.masked_fill(~present, torch.inf).flatten(1)
    seeds = drawn.topk(min(_BLOCKS, drawn.shape[1]), largest=False).indices
    # The first three features are the place itself, times the root of three.
    place = x["places"][..., :3] / 3**0.5
    number = x["index"].clamp_min(0)[..., None] / max(present.shape[1], 1)
    place = torch.cat([place, number.to(place.dtype)], dim=2) / _CHORD
    unit, frame = seeds // n_frames, seeds % n_frames
    centre = place.gather(1, unit[..., None].expand(-1, -1, place.shape[2]))
    apart = torch.cdist(place, centre).square()
    steps = torch.arange(n_frames, device=key.device)[:, None]
    later = ((steps - frame[:, None]) / _FRAMES).square()
    near = (apart[:, :, None] + later[:, None]).min(dim=3).values
    # Equally near ones are masked at random.
    return near + 1e-3 * key


class MaskTokens:
    """Mask the tokens of every batch: a perturbation of the input.

    Parameters
    ----------
    kind : "random" | "block" | "channel" | "hard"
    ratio : float
    n_epochs : int
        Of the run: with "hard" the share of tokens that are the hardest grows
        from nothing to `most_hard`.
    teacher : Teacher | None
        Who tells which are hard.
    most_hard : float
    more : float
        Share of the windows with a ratio drawn between `ratio` and 1: a network
        that never saw less than half of a window cannot draw all of it.

    References
    ----------
    Wang et al., "Hard patches mining for masked image modeling", CVPR, 2023.
    """

    where: Any = "input"
    extra_gradients = 0

    def __init__(
        self,
        kind: str,
        ratio: float,
        n_epochs: int,
        *,
        teacher: Teacher | None = None,
        most_hard: float = 0.5,
        more: float = _MORE,
    ) -> None:
        check_option("mask", kind, MASKS)
        if kind == "hard" and teacher is None:
            fail("mask='hard' has no teacher", fix="give Teacher(network)")
        self.kind, self.ratio, self.n_epochs = kind, ratio, n_epochs
        self.teacher, self.most_hard, self.more = teacher, most_hard, more

    def sample(self, context: StepContext) -> _Masked:
        """Draw the mask of a batch."""
        x = context.batch.x
        assert context.generator is not None
        difficulty = None if self.teacher is None else self.teacher.difficulty(x)
        grown = (context.epoch - 1) / max(self.n_epochs - 1, 1)
        present = x["present"]
        # No value is looked at: a step on a GPU would wait for it.
        drawn = torch.rand(
            2, len(present), generator=context.generator, device=present.device
        )
        larger = self.ratio + (1 - self.ratio) * drawn[1]
        masked = draw_mask(
            self.kind,
            x,
            torch.where(drawn[0] < self.more, larger, self.ratio),
            context.generator,
            difficulty=difficulty,
            hard_share=self.most_hard * grown,
        )
        return _Masked(replace(context.batch, x={**x, "masked": masked}))


class _Masked:
    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def apply(self) -> Batch:
        """Return the batch with its mask."""
        return self._batch

    def revert(self) -> None:
        """Do nothing: the batch is a new one."""


class Teacher:
    """A slow copy of a network that tells which tokens are hard; a callback.

    It sees all tokens, and predicts what the loss at each would be.

    Parameters
    ----------
    network : MaskedTokenNetwork
    decay : float
        Of the average of weights, a step.
    """

    def __init__(self, network: nn.Module, *, decay: float = 0.999) -> None:
        self.network: Any = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def difficulty(self, x: Mapping[str, Tensor]) -> Tensor:
        """Return a score of every token, shape (batch, n_units, n_frames)."""
        found: Tensor = self.network(x).difficulty
        return found

    def on_train_start(self, state: TrainState) -> None:
        """Go to the network's device."""
        self.network.to(state.device)

    @torch.no_grad()
    def on_step_end(self, state: TrainState) -> None:
        """Follow the network by one step."""
        # Young averages follow faster, or they would be of the initial weights.
        keep = min(self.decay, (state.step + 1) / (state.step + 10))
        mine, theirs = self.network.parameters(), state.model.parameters()
        for old, new in zip(mine, theirs, strict=True):
            old.lerp_(new, 1 - keep)

    def state_dict(self) -> dict[str, Any]:
        """Return the copy's weights."""
        return dict(self.network.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.network.load_state_dict(state)
