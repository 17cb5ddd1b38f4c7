"""Attention over tuples of positions, one of each modality, in tensor-ring form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.nn._initial import fill_uniform, gaussian
from eegtensor.nn._precision import full_precision

FEATURES = ("exp", "square")


class MultiwayAttention(nn.Module):
    """Each position attends to all tuples of positions of the other modalities.

    The tuple (i_1, ..., i_M) has the weight A = tr(G_1[i_1] ... G_M[i_M]), where
    G_m[i] is an r x r matrix of non-negative entries computed from position i of
    modality m. Position i of modality m takes the mean, weighted by A, over the
    tuples that hold it, of the sum of the other positions' values. The tensor A is
    never built: sums over positions go inside the trace, and time and memory are
    linear in the number of modalities.

    Modalities are EEG, EOG, EMG, text, or groups of channels and bands.

    Parameters
    ----------
    dims : sequence of int, M >= 2
        Features d_m of each modality.
    rank : int
        Size r of the ring's matrices.
    n_heads : int
        Rings side by side, each with its own share of the values.
    d_value : int | None
        Size of the values, a multiple of n_heads; None: the largest of dims, and
        up to the next multiple.
    feature : "exp" | "square"
        What makes the matrices' entries non-negative, so that all A are: entry by
        entry. (G G' would not do: the trace of a product of three positive
        semi-definite matrices can be negative.)
    generator : torch.Generator | None
    device, dtype : of the parameters.

    Attributes
    ----------
    ring, value, out : nn.ParameterList
        Of each modality: (n_heads r^2, d_m), (d_value, d_m) and (d_m, d_value).

    Raises
    ------
    EEGTensorError
        If there is one modality alone, or sizes do not fit.

    References
    ----------
    J. Tang et al., "MMT: multi-way multi-modal transformer for multimodal
    learning", IJCAI, 2022.
    """

    def __init__(
        self,
        dims: Sequence[int],
        rank: int = 4,
        *,
        n_heads: int = 1,
        d_value: int | None = None,
        feature: str = "exp",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dims = tuple(int(d) for d in dims)
        if len(self.dims) < 2 or min(self.dims) < 1:
            fail(f"dims={self.dims}", fix="give the features of two modalities or more")
        if rank < 1 or n_heads < 1:
            fail(f"rank={rank}, n_heads={n_heads}", fix="give numbers from 1 up")
        if d_value is None:
            d_value = -(-max(self.dims) // n_heads) * n_heads
        if d_value < 1 or d_value % n_heads:
            fail(f"d_value={d_value}", fix=f"give a multiple of n_heads={n_heads}")
        self.feature = check_option("feature", feature, FEATURES)
        self.rank, self.n_heads, self.d_value = int(rank), int(n_heads), int(d_value)
        dtype = dtype or torch.get_default_dtype()

        def drawn(n_out: int, n_in: int) -> nn.Parameter:
            W = gaussian(n_out, n_in, generator=generator) * n_in**-0.5
            return nn.Parameter(W.to(dtype=dtype, device=device))

        self.ring = nn.ParameterList(drawn(n_heads * rank**2, d) for d in self.dims)
        self.value = nn.ParameterList(drawn(d_value, d) for d in self.dims)
        self.out = nn.ParameterList(drawn(d, d_value) for d in self.dims)

    def forward(
        self, *inputs: Tensor, masks: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, ...]:
        """Return what each position has gathered, of the shapes of the inputs.

        Parameters
        ----------
        *inputs : Tensor, shape (batch, L_m, d_m)
        masks : sequence of (Tensor of bool, shape (batch, L_m) | None) | None
            False for positions that are padding: nothing attends to them. Each
            trial needs one position of every modality.
        """
        self._check(inputs)
        with full_precision(inputs[0]):
            G, v = self._matrices(inputs, masks)
            gathered = [_ratio(*sums) for sums in multiway_sums(G, v)]
            return tuple(
                # (batch, heads, L, d) to (batch, L, heads d).
                (y.transpose(1, 2).flatten(2) @ W.mT).to(x.dtype)
                for x, y, W in zip(inputs, gathered, self.out, strict=True)
            )

    def _check(self, inputs: Sequence[Tensor]) -> None:
        shapes = [tuple(x.shape) for x in inputs]
        fits = len(shapes) == len(self.dims) and all(
            len(s) == 3 and s[2] == d for s, d in zip(shapes, self.dims, strict=True)
        )
        if not fits:
            fail(
                f"Inputs have shapes {shapes}",
                fix=f"give {len(self.dims)} modalities of shape (batch, L_m, d_m) with "
                f"d_m = {self.dims}",
            )

    def _matrices(
        self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None] | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return ring matrices (batch, heads, L, r, r) and values (.., L, d)."""
        rings, values = [], []
        for m, x in enumerate(inputs):
            x = x.to(self.ring[m].dtype)
            shape = (self.n_heads, self.rank, self.rank)
            G = (x @ self.ring[m].mT).unflatten(2, shape).transpose(1, 2)
            mask = None if masks is None else masks[m]
            if mask is not None:
                hidden = 0.0 if self.feature == "square" else -torch.inf
                G = G.masked_fill(~mask[:, None, :, None, None], hidden)
            if self.feature == "exp":
                # One factor for all positions: it cancels in the mean.
                G = (G - G.detach().amax(dim=(2, 3, 4), keepdim=True)).exp()
            else:
                G = G.square()
            rings.append(G)
            v = (x @ self.value[m].mT).unflatten(2, (self.n_heads, -1))
            values.append(v.transpose(1, 2))
        return rings, values

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return f"{self.dims}, rank={self.rank}, n_heads={self.n_heads}"


def _ratio(top: Tensor, total: Tensor) -> Tensor:
    """Return means; zero where all weights are below what floats can divide by."""
    # Twice `where`: a gradient of infinity times zero would be NaN.
    felt = total > torch.finfo(total.dtype).tiny ** 0.75
    safe = torch.where(felt, total, 1.0)[..., None]
    return torch.where(felt[..., None], top / safe, 0.0)


def multiway_sums(
    G: Sequence[Tensor], v: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Return sums over all tuples that hold a position: of A times values, and of A.

    With S_n = sum_j G_n[j] and V_n = sum_j G_n[j] v_n[j], the sum of A is
    tr(G_m[i] S_{m+1} ... S_M S_1 ... S_{m-1}), and the sum with values replaces one
    S by its V in turn. Products from the left and from the right are each made
    once, so the cost is linear in M.

    Parameters
    ----------
    G : sequence of Tensor, shape (..., L_m, r, r)
    v : sequence of Tensor, shape (..., L_m, d)

    Returns
    -------
    list of (Tensor, shape (..., L_m, d), Tensor, shape (..., L_m))
        Up to one positive factor for both, the same for every position.
    """
    M = len(G)
    S, V = [], []
    for g, u in zip(G, v, strict=True):
        s = g.sum(dim=-3)
        # Long chains would leave the range of floats; the factor cancels.
        scale = s.detach().abs().amax(dim=(-1, -2), keepdim=True)
        g = g / scale[..., None].clamp_min(torch.finfo(s.dtype).tiny)
        S.append(g.sum(dim=-3))
        V.append(torch.einsum("...jab,...jd->...dab", g, u))
    eye = torch.eye(S[0].shape[-1], dtype=S[0].dtype, device=S[0].device)
    left = [(eye.expand_as(S[0]), torch.zeros_like(V[0]))]
    right = [(eye.expand_as(S[0]), torch.zeros_like(V[0]))]
    for n in range(M - 1):
        left.append(_times(left[-1], (S[n], V[n])))
        right.append(_times((S[M - 1 - n], V[M - 1 - n]), right[-1]))
    sums = []
    for m in range(M):
        # Around the ring: what follows m, then what comes before it.
        plain, valued = _times(right[M - 1 - m], left[m])
        total = torch.einsum("...iab,...ba->...i", G[m], plain)
        sums.append((torch.einsum("...iab,...dba->...id", G[m], valued), total))
    return sums


def _times(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the product of two chains, and the sum with one value in it."""
    plain = a[0] @ b[0]
    valued = a[1] @ b[0][..., None, :, :] + a[0][..., None, :, :] @ b[1]
    return plain, valued


class MultiwayBlock(nn.Module):
    """Multi-way attention and a feed-forward layer for each modality, residual.

    Parameters
    ----------
    dims, rank, n_heads, d_value, feature, generator, device, dtype
        See `MultiwayAttention`.
    expansion : int
        Hidden units of the feed-forward layers, in multiples of d_m.
    dropout : float

    Attributes
    ----------
    attention : MultiwayAttention
    """

    def __init__(
        self,
        dims: Sequence[int],
        rank: int = 4,
        *,
        n_heads: int = 1,
        d_value: int | None = None,
        feature: str = "exp",
        expansion: int = 2,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.attention = MultiwayAttention(
            dims,
            rank,
            n_heads=n_heads,
            d_value=d_value,
            feature=feature,
            generator=generator,
            device=device,
            dtype=dtype,
        )

        def forward_layer(d: int) -> nn.Sequential:
            return nn.Sequential(
                nn.LayerNorm(d, device=device, dtype=dtype),
                nn.Linear(d, expansion * d, device=device, dtype=dtype),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(expansion * d, d, device=device, dtype=dtype),
                nn.Dropout(dropout),
            )

        self.norms = nn.ModuleList(
            nn.LayerNorm(d, device=device, dtype=dtype) for d in self.attention.dims
        )
        self.feed = nn.ModuleList(forward_layer(d) for d in self.attention.dims)
        if generator is not None:
            for layer in self.feed.modules():
                if isinstance(layer, nn.Linear):
                    fill_uniform(
                        layer.weight,
                        layer.bias,
                        fan_in=layer.in_features,
                        generator=generator,
                    )

    def forward(
        self, *inputs: Tensor, masks: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, ...]:
        """Return new features of every modality, of the shapes of the inputs.

        Parameters
        ----------
        *inputs : Tensor, shape (batch, L_m, d_m)
        masks
            See `MultiwayAttention.forward`.
        """
        self.attention._check(inputs)
        normed = [norm(x) for norm, x in zip(self.norms, inputs, strict=True)]
        gathered = self.attention(*normed, masks=masks)
        mixed = [x + y for x, y in zip(inputs, gathered, strict=True)]
        return tuple(x + feed(x) for x, feed in zip(mixed, self.feed, strict=True))
