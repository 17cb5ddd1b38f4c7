"""Power normalisation of tokens: running second moments, no mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option, fail


class _Published(torch.autograd.Function):
    """Division by a root of second moments, with the published gradient.

    It keeps nu, which follows the gradient's part along the output, in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        divisor: Tensor,
        batch: Tensor,
        nu: Tensor,
        weight: Tensor,
        alpha: float,
    ) -> Tensor:
        z = x / divisor
        ctx.save_for_backward(z, batch, weight)
        ctx.nu, ctx.alpha = nu, alpha
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        z, batch, weight = ctx.saved_tensors
        (g,) = gradients
        nu = ctx.nu.to(g.dtype)
        # Padding takes no part in nu, nor nu in padding.
        g = g - (1 - ctx.alpha) * nu * z * weight
        axes = tuple(range(g.ndim - 1))
        count = weight.sum().clamp_min(1.0)
        ctx.nu.add_(((g * z * weight).sum(dim=axes) / count).to(ctx.nu.dtype))
        return g / batch, None, None, None, None, None


class PowerNorm(nn.Module):
    """Normalisation of tokens by running second moments of their features.

    Each token is divided by its root mean square over groups of features; then
    each feature by the root of its running second moment phi: y = gamma x /
    sqrt(phi + eps) + beta. Neither takes a mean off. Unlike batch norm it does not
    follow a small batch; unlike layer norm it knows each feature's size.

    Parameters
    ----------
    n_features : int
    groups : int
        Of features, of which each token's root mean square is taken.
    warmup : int
        Training passes in which phi is the batch's own, while the running one
        averages all of them. Published: 10 000, for translation; EEG has fewer.
    alpha_forward : float
        Share of the running phi that a pass keeps, after the warm-up.
    alpha_backward : float
    backward : "published" | "exact"
        "published": g - (1 - alpha) nu z over the root of the *batch's* second
        moment, nu a running sum of mean(g z). It is no gradient of what the forward
        pass computes, which divides by the running moment, but keeps a batch of
        spikes from large steps. "exact": the gradient, phi taken as a constant
        after the warm-up.
    eps : float
    dtype, device

    Attributes
    ----------
    phi : Tensor, shape (n_features,)
    nu : Tensor, shape (n_features,)
    passes : Tensor of int64, shape ()

    Notes
    -----
    In the released code the running moment moves twice in each pass of the warm-up,
    as a mean and exponentially; padding counts in nu, and nu moves padding; and a
    floor of 1e-5 inside each token's root makes its unit matter.

    References
    ----------
    S. Shen et al., "PowerNorm: rethinking batch normalization in transformers",
    ICML 2020.
    """

    phi: Tensor
    nu: Tensor
    passes: Tensor

    def __init__(
        self,
        n_features: int,
        *,
        groups: int = 1,
        warmup: int = 500,
        alpha_forward: float = 0.9,
        alpha_backward: float = 0.9,
        backward: str = "published",
        eps: float = 1e-5,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_count("n_features", n_features)
        check_count("warmup", warmup, least=0)
        check_option("backward", backward, ("published", "exact"))
        for name, value in (("forward", alpha_forward), ("backward", alpha_backward)):
            if not 0 <= check_number(f"alpha_{name}", value) <= 1:
                fail(f"alpha_{name}={value!r}", fix="give a number from 0 to 1")
        if n_features % check_count("groups", groups):
            fail(f"groups={groups} of {n_features} features", fix="choose a divisor")
        self.n_features, self.groups, self.warmup = n_features, groups, warmup
        self.alpha_forward, self.alpha_backward = alpha_forward, alpha_backward
        self.backward_rule, self.eps = backward, check_number("eps", eps, least=0.0)
        new: Any = {"dtype": dtype, "device": device}
        self.weight = nn.Parameter(torch.ones(n_features, **new))
        self.bias = nn.Parameter(torch.zeros(n_features, **new))
        self.register_buffer("phi", torch.ones(n_features, **new))
        self.register_buffer("nu", torch.zeros(n_features, **new))
        self.register_buffer(
            "passes", torch.zeros((), dtype=torch.int64, device=device)
        )

    def extra_repr(self) -> str:
        """Return what the layer was built with."""
        return f"{self.n_features}, groups={self.groups}, warmup={self.warmup}"

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Return normalised tokens.

        Parameters
        ----------
        x : Tensor, shape (..., n_features)
        present : Tensor of bool, shape (...) | None
            Padding is normalised too, but counts in no statistic.

        Returns
        -------
        y : Tensor, shape (..., n_features)
        """
        if x.shape[-1] != self.n_features:
            fail(
                f"x has shape {tuple(x.shape)}",
                fix=f"give {self.n_features} features, last",
            )
        parts = x.unflatten(-1, (self.groups, -1))
        power = parts.square().mean(dim=-1, keepdim=True)
        # Tokens of zeros stay zeros, whatever the unit of the others is.
        tiny = torch.finfo(x.dtype).tiny
        x = (parts * power.clamp_min(tiny).rsqrt()).flatten(-2)
        if not self.training:
            z = x * (self.phi.to(x.dtype) + self.eps).rsqrt()
            return self.weight * z + self.bias
        if present is None:
            present = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        weight = present[..., None].to(x.dtype)
        axes = tuple(range(x.ndim - 1))
        batch = (x.square() * weight).sum(dim=axes) / weight.sum().clamp_min(1.0)
        warm = self.passes < self.warmup
        phi = torch.where(warm, batch, self.phi.to(x.dtype))
        if self.backward_rule == "exact":
            z = x * (phi + self.eps).rsqrt()
        else:
            z = _Published.apply(
                x,
                (phi.detach() + self.eps).sqrt(),
                (batch.detach() + self.eps).sqrt(),
                self.nu,
                weight,
                self.alpha_backward,
            )
        self._follow(batch.detach(), warm)
        return self.weight * z + self.bias

    @torch.no_grad()
    def _follow(self, batch: Tensor, warm: Tensor) -> None:
        """Move the running moment: the mean in the warm-up, then exponentially."""
        self.passes += 1
        keep = torch.where(warm, 1.0 - 1.0 / self.passes, self.alpha_forward)
        keep = keep.to(self.phi.dtype)
        self.phi.copy_(keep * self.phi + (1 - keep) * batch.to(self.phi.dtype))
