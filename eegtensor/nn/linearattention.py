"""Attention in linear time whose weights have the entropy of a softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_option, fail

FEATURES = ("relu", "power")


def positive_features(x: Tensor, kind: str = "relu", power: int = 3) -> Tensor:
    """Return nonnegative features (..., 2 width): [relu(x), relu(-x)], or of power p.

    "power": p-th powers of those, brought back to the vector's length, which
    attention of more contrast needs.
    """
    both = torch.cat([torch.relu(x), torch.relu(-x)], dim=-1)
    if kind == "relu":
        return both
    tiny = torch.finfo(x.dtype).tiny
    # Over the largest first: powers of small numbers underflow.
    top = both.amax(dim=-1, keepdim=True).clamp_min(tiny)
    raised = (both / top) ** power
    length = raised.square().sum(dim=-1, keepdim=True).clamp_min(tiny).sqrt()
    return (
        raised / length * both.square().sum(dim=-1, keepdim=True).clamp_min(tiny).sqrt()
    )


def entropy_equal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    present: Tensor | None = None,
    *,
    features: str = "relu",
) -> Tensor:
    """Return attention in time linear in the tokens, of a softmax's entropy.

    Weights (theta_q + phi(q)'phi(k_j)) / sum_j(...): phi ranks the keys, and theta_q
    >= 0 mixes in the mean so far that the entropy deficit, for small deficits half
    the relative variance of the weights, is that of softmax attention, q'Cov(k)q /
    (2 width). Where relu features cannot be as peaked, theta_q is 0.

    Parameters
    ----------
    q : Tensor, shape (..., n_queries, width)
    k : Tensor, shape (..., n_keys, width)
    v : Tensor, shape (..., n_keys, width_v)
    present : Tensor of bool, shape (..., n_keys) | None
        Keys that are not there are not read.
    features : "relu" | "power"

    Returns
    -------
    out : Tensor, shape (..., n_queries, width_v)

    Notes
    -----
    Own construction on the published principle, not the paper's closed form.

    References
    ----------
    M. Zhang et al., "Efficient linear attention for multivariate time series
    modeling via entropy equality", arXiv 2511.03190, 2025.
    """
    check_option("features", features, FEATURES)
    shape = k.shape[:-1]
    if present is None:
        present = torch.ones(shape, dtype=torch.bool, device=k.device)
    w = present.to(k.dtype)[..., None]
    w = w / w.sum(dim=-2, keepdim=True).clamp_min(1.0)
    fq, fk = positive_features(q, features), positive_features(k, features)
    # Softmax: the variance of a query's logits over keys, from the keys' covariance.
    centred = k - (w * k).sum(dim=-2, keepdim=True)
    covariance = (w * centred).mT @ centred / k.shape[-1]
    deficit = 0.5 * ((q @ covariance) * q).sum(dim=-1, keepdim=True)
    # Features: mean and variance of phi(q)'phi(k).
    middle = (w * fk).sum(dim=-2, keepdim=True)
    spread = (w * (fk - middle)).mT @ (fk - middle)
    mean = (fq * middle).sum(dim=-1, keepdim=True)
    variance = ((fq @ spread) * fq).sum(dim=-1, keepdim=True).clamp_min(0.0)
    tiny = torch.finfo(q.dtype).tiny
    # 1 / (theta + mean), the smaller of both, so that nothing grows where D is 0.
    peaked = torch.where(mean > tiny, 1.0 / mean.clamp_min(tiny), 0.0)
    flat = (variance > tiny) & (deficit > tiny)
    entropy = torch.where(
        flat,
        (2 * torch.where(flat, deficit, 1.0)).sqrt()
        / torch.where(flat, variance, 1.0).sqrt(),
        0.0,
    )
    share = torch.minimum(peaked, entropy)
    average = (w * v).sum(dim=-2, keepdim=True)
    read = fq @ ((w * fk).mT @ v)
    return (1 - mean * share) * average + share * read


class EntropyEqualAttention(nn.Module):
    """Attention of many tokens: projections around `entropy_equal_attention`.

    Parameters
    ----------
    width, n_heads : int
    features : "relu" | "power"
    """

    def __init__(self, width: int, n_heads: int, *, features: str = "relu") -> None:
        super().__init__()
        if check_count("width", width) % check_count("n_heads", n_heads):
            fail(f"n_heads={n_heads} of width {width}", fix="choose a divisor")
        self.n_heads = n_heads
        self.features = check_option("features", features, FEATURES)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor, present: Tensor | None = None) -> Tensor:
        """Return what tokens learn of others, (batch, n_tokens, width).

        Parameters
        ----------
        h : Tensor, shape (batch, n_tokens, width)
        present : Tensor of bool, shape (batch, n_tokens) | None
        """
        parts = self.qkv(h).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if present is not None:
            present = present[:, None].expand(-1, self.n_heads, -1)
        found = entropy_equal_attention(q, k, v, present, features=self.features)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out
