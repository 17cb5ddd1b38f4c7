"""Gains and offsets of channels as they could be in other people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.training.perturbations.styles import Styled, style_of

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext
    from eegtensor.training.registry import Setup

STYLES = ("advstyle", "dsu", "mixstyle")


class AdvStyle:
    """Random styles of channels whose strength the training pushes up.

    A style is the mean mu and the standard deviation s of each channel over time,
    or the logarithm of each variance of an SPD matrix. In a step one of three
    things is drawn for the whole batch, each with probability 1/3: nothing, normal
    noise of strength a on styles ("adversarial"), or of the batch's own standard
    deviation of styles (DSU). a starts at that standard deviation, and where noise
    of it raises the loss it is raised: gradient ascent, up to `most` times where it
    started.

    Parameters
    ----------
    kind : "advstyle" | "dsu" | "mixstyle"
        "dsu": nothing or DSU noise, each with probability 1/2. "mixstyle": nothing,
        or styles mixed with those of other trials, Beta(0.1, 0.1).
    at : str
        "input", "spd", "auto" (as in `VAT`), or the name of a module of the network
        with outputs (n_trials, n_channels, ...), as "conv_time".
    strength : float
        Factor of the ascent (w of the paper): 0 leaves a as it started.
    lr : float
        Step of the ascent, relative to where a started.
    most : float
    compat : "released" | None
        "released" adds 1e-6 under every root, as the authors' code does: of layers
        whose values are near 1 it changes them by some 1e-5, of EEG in volts (1e-10
        squared) it is all that there is.

    Raises
    ------
    EEGTensorError
        If an option is unknown or out of range.

    References
    ----------
    Y. Zhang et al., "Adversarial style augmentation for domain generalization",
    arXiv 2301.12643; X. Li et al., "Uncertainty modeling for out-of-distribution
    generalization", ICLR 2022 (DSU); K. Zhou et al., "Domain generalization with
    MixStyle", ICLR 2021.
    """

    where: Literal["latent"] = "latent"
    extra_gradients = 0
    clean_statistics = True

    def __init__(
        self,
        kind: str = "advstyle",
        at: str = "auto",
        strength: float = 1.0,
        lr: float = 1e-3,
        most: float = 3.0,
        compat: str | None = None,
    ) -> None:
        if min(strength, lr) < 0 or not most >= 1:
            fail(
                f"strength={strength}, lr={lr}, most={most}",
                fix="give 0 or more, and most=1 or more",
            )
        self.kind = check_option("kind", kind, STYLES)
        check_option("compat", compat, (None, "released"))
        self.eps = 1e-6 if compat == "released" else 0.0
        self.at, self.strength, self.lr, self.most = at, strength, lr, most
        self.needs = ("raw trials",) if at == "input" else ()
        # Spread of mu and of s over trials at the start, and a relative to it.
        self.start: list[Tensor] = []
        self.ratio: list[Tensor] = []

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> AdvStyle:
        """Return one whose ascent has the run's learning rate."""
        return cls(**{"lr": setup.lr, **options})

    def sample(self, context: StepContext) -> Styled:
        """Draw what happens to the batch, and the module that it happens at."""
        return Styled(self, context)

    def restyle(self, x: Tensor, generator: Any, spd: bool) -> Tensor:
        """Return values with other styles.

        Parameters
        ----------
        x : Tensor, shape (n_trials, n_channels, n_times, ...) or (n_trials, n, n)
        generator : torch.Generator | None
        spd : bool
            Whether x holds SPD matrices.
        """
        # Which of the things happens.
        draw = torch.rand((), generator=generator, device=x.device)
        mu, s, plain = style_of(x, spd, self.eps)
        spread = [_spread(part.detach(), self.eps) for part in (mu, s)]
        if not self.start:
            self.start = spread
            self.ratio = [torch.ones_like(part).requires_grad_() for part in spread]
        if self.start[0].device != x.device:
            self.load_state_dict(
                {n: t.to(x.device) for n, t in self.state_dict().items()}
            )
        new = []
        for k, part in enumerate((mu, s)):
            if self.kind == "mixstyle":
                new.append(part + self._mixture(part, generator))
                continue
            noise = torch.randn(
                part.shape, dtype=part.dtype, device=part.device, generator=generator
            )
            size = _spread(part, self.eps)
            if self.kind == "advstyle":
                own = self.start[k] * self.ratio[k]
                size = torch.where(draw < 2 / 3, own, size)
            new.append(part + noise * size)
        # Chosen by values, not by branches: nothing waits for a GPU.
        return torch.where(draw < self._nothing, x, plain(*new))

    @property
    def _nothing(self) -> float:
        return 1 / 3 if self.kind == "advstyle" else 1 / 2

    def _mixture(self, part: Tensor, generator: Any) -> Tensor:
        """Return what leads from styles towards those of other trials."""
        other = torch.randperm(len(part), generator=generator, device=part.device)
        alpha = torch.full(
            (2, len(part), *[1] * (part.ndim - 1)), 0.1, dtype=torch.float64
        ).to(part.device)
        g = torch._standard_gamma(alpha, generator=generator).clamp_min(1e-30)
        return (g[1] / g.sum(0)).to(part.dtype) * (part[other] - part).detach()

    @torch.no_grad()
    def ascend(self) -> None:
        """Move a up the gradient that the pass has left, and forget it."""
        for ratio in self.ratio:
            if ratio.grad is not None:
                ratio += self.strength * self.lr * ratio.grad
                ratio.clamp_(0.0, self.most)
                ratio.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the strengths."""
        names = ("start 0", "start 1", "ratio 0", "ratio 1")
        parts = [part.detach().clone() for part in (*self.start, *self.ratio)]
        return dict(zip(names, parts, strict=False))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set the strengths."""
        if state:
            self.start = [state[f"start {k}"] for k in range(2)]
            self.ratio = [state[f"ratio {k}"].requires_grad_() for k in range(2)]


def _spread(part: Tensor, eps: float) -> Tensor:
    """Return the standard deviation of styles over trials, with a graph."""
    if len(part) < 2:
        return torch.zeros_like(part)
    variance = part.var(0, keepdim=True) + eps
    # The root has no slope where all trials are alike.
    there = variance > 0
    return torch.where(there, torch.where(there, variance, 1.0).sqrt(), 0.0)
