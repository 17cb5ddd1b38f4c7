"""Volterra convolutions: sums of products of filtered signals, and their bound."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.nn._initial import fill_uniform, gaussian


class VolterraConv1d(nn.Module):
    """A convolution with products of 2, or of 2 and 3, delayed samples.

    y_o(t) = b_o + (h_o * x)(t) + sum_n sum_r m_nor prod_{j=1..n} (h_nrj * x)(t)

    for the orders n = 2, ..., `order`. The kernel of order n has low rank: R
    products of n filters instead of (in_channels kernel_size)^n numbers. Order 2
    holds powers and products of filtered channels, so with pooling it computes what
    covariances do; all filters run as one convolution.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int
    order : 2 | 3
    rank : int
        Products R of each order.
    stride, padding, dilation : int
        As of `torch.nn.Conv1d`.
    bias : bool
    generator : torch.Generator | None
        Of the initial filters.
    device, dtype : of the parameters.

    Attributes
    ----------
    linear : nn.Parameter, shape (out_channels, in_channels, kernel_size)
    filters : nn.Parameter, shape (n_filters, in_channels, kernel_size)
        R x 2 of order 2, then R x 3 of order 3.
    mixing : nn.Parameter, shape (out_channels, (order - 1) R)
    bias : nn.Parameter, shape (out_channels,) | None

    Raises
    ------
    EEGTensorError
        If order or a size is not possible.

    References
    ----------
    T. Li et al., "Understanding convolutional neural networks from theoretical
    perspective via Volterra convolution", JMLR, 2022.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        order: int = 2,
        rank: int = 4,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if order not in (2, 3):
            fail(f"order={order!r}", fix="choose 2 or 3; order 1 is torch.nn.Conv1d")
        if min(in_channels, out_channels, kernel_size, rank) < 1:
            fail(
                f"{in_channels} channels to {out_channels}, kernel_size={kernel_size}, "
                f"rank={rank}",
                fix="give numbers from 1 up",
            )
        dtype = dtype or torch.get_default_dtype()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.order, self.rank = kernel_size, order, rank
        self.stride, self.padding, self.dilation = stride, padding, dilation
        n_filters = rank * sum(range(2, order + 1))
        taps = (in_channels, kernel_size)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.linear = parameter(out_channels, *taps)
        self.filters = parameter(n_filters, *taps)
        self.mixing = parameter(out_channels, rank * (order - 1))
        if bias:
            self.bias = parameter(out_channels)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new parameters: a filter of a white signal of variance 1 has it too."""
        fan_in = self.in_channels * self.kernel_size
        fill_uniform(self.linear, self.bias, fan_in=fan_in, generator=generator)
        with torch.no_grad():
            drawn = gaussian(*self.filters.shape, generator=generator)
            self.filters.copy_(drawn * fan_in**-0.5)
        width = self.mixing.shape[1]
        fill_uniform(self.mixing, fan_in=width, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return y, shape (n, out_channels, n_times').

        Parameters
        ----------
        x : Tensor, shape (n, in_channels, n_times)
        """
        if x.ndim != 3 or x.shape[1] != self.in_channels:
            fail(
                f"x has shape {tuple(x.shape)}",
                fix=f"give inputs of shape (n, {self.in_channels}, n_times)",
            )
        weight = torch.cat([self.linear, self.filters])
        z = nn.functional.conv1d(
            x, weight, None, self.stride, self.padding, self.dilation
        )
        y, rest = z[:, : self.out_channels], z[:, self.out_channels :]
        products = []
        for n, first in self._orders():
            block = rest[:, first : first + n * self.rank]
            products.append(block.unflatten(1, (self.rank, n)).prod(dim=2))
        y = y + torch.matmul(self.mixing, torch.cat(products, dim=1))
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None]

    def _orders(self) -> list[tuple[int, int]]:
        """Return each order above 1 and its first filter."""
        return [(n, self.rank * sum(range(2, n))) for n in range(2, self.order + 1)]

    def _blocks(self) -> list[tuple[Tensor, Tensor]]:
        """Return mixing (out, R) and filters (R, n, in, taps) of each order."""
        blocks = []
        for n, first in self._orders():
            filters = self.filters[first : first + n * self.rank]
            mixing = self.mixing[:, (n - 2) * self.rank : (n - 1) * self.rank]
            blocks.append((mixing, filters.unflatten(0, (self.rank, n))))
        return blocks

    def kernels(self) -> tuple[Tensor, ...]:
        """Return the full kernels of order 1, 2[, 3], symmetric in their delays.

        Returns
        -------
        kernels : tuple of Tensor, shape (out_channels, *(in_channels, kernel_size) n)
            As `volterra_series` takes them; (in_channels kernel_size)^n numbers.
        """
        out: list[Tensor] = [self.linear]
        for mixing, filters in self._blocks():
            n = filters.shape[1]
            flat = filters.flatten(2)
            letters = string.ascii_lowercase[:n]
            terms = ",".join(f"R{c}" for c in letters)
            whole = torch.einsum(f"OR,{terms}->O{letters}", mixing, *flat.unbind(dim=1))
            axes = list(itertools.permutations(range(1, n + 1)))
            symmetric = torch.stack([whole.permute(0, *order) for order in axes])
            shape = (self.out_channels, *(self.in_channels, self.kernel_size) * n)
            out.append(symmetric.mean(dim=0).reshape(shape))
        return tuple(out)

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return (
            f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, "
            f"order={self.order}, rank={self.rank}"
        )


def volterra_series(
    x: Tensor,
    kernels: Sequence[Tensor],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """Return the sum of Volterra convolutions with full kernels.

    y_o(t) = sum_n sum_{c, k} H_n[o, c_1, k_1, ..., c_n, k_n]
    prod_i x_{c_i}(t stride + k_i dilation - padding)

    Parameters
    ----------
    x : Tensor, shape (n, in_channels, n_times)
    kernels : sequence of Tensor, shape (out_channels, *(in_channels, taps) n)
        Of order 1, 2, ...
    stride, padding, dilation : int
        As of `torch.nn.Conv1d`; a kernel's taps are not reversed either.

    Returns
    -------
    y : Tensor, shape (n, out_channels, n_times')
    """
    taps = kernels[0].shape[-1]
    windows = _windows(x, taps, stride, padding, dilation)
    out = None
    for n, H in enumerate(kernels, start=1):
        flat = H.reshape(len(H), *(x.shape[1] * taps,) * n)
        y = torch.einsum("Bta,...a->Bt...", windows, flat)
        for _ in range(n - 1):
            y = torch.einsum("Bta,Bt...a->Bt...", windows, y)
        out = y if out is None else out + y
    assert out is not None
    return out.transpose(1, 2)


def _windows(x: Tensor, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return the samples each output sees, shape (n, n_times', channels taps)."""
    x = nn.functional.pad(x, (padding, padding))
    span = dilation * (taps - 1) + 1
    windows = x.unfold(2, span, stride)[..., ::dilation]
    return windows.permute(0, 2, 1, 3).flatten(2)


def fit_volterra(
    x: Tensor, y: Tensor, kernel_size: int, order: int = 2
) -> tuple[Tensor, ...]:
    """Return the kernels that predict y from x with least squares.

    Parameters
    ----------
    x : Tensor, shape (n, in_channels, n_times)
    y : Tensor, shape (n, out_channels, n_times - kernel_size + 1)
    kernel_size : int
    order : int
        Highest order. There are (in_channels kernel_size)^n / n! numbers of order n
        to find for each output; the samples should be many times more.

    Returns
    -------
    kernels : tuple of Tensor, shape (out_channels, *(in_channels, kernel_size) n)
        Of order 1, ..., `order`, symmetric in their delays, float64.

    Raises
    ------
    EEGTensorError
        If shapes do not fit, or there are fewer samples than numbers to find.
    """
    windows = _windows(x.double(), kernel_size, 1, 0, 1).flatten(0, 1)
    target = y.double().transpose(1, 2).flatten(0, 1)
    size = windows.shape[1]
    picks = [
        torch.tensor(list(itertools.combinations_with_replacement(range(size), n)))
        for n in range(1, order + 1)
    ]
    total = sum(len(pick) for pick in picks)
    if len(windows) != len(target) or len(windows) < total:
        fail(
            f"{len(windows)} windows of x, {len(target)} samples of y, {total} numbers "
            "to find",
            fix="give y of n_times - kernel_size + 1 samples, and more of them than "
            "numbers, or a lower order or kernel_size",
        )
    columns = [windows[:, pick.to(x.device)].prod(dim=2) for pick in picks]
    A = torch.cat(columns, dim=1)
    # Monomials of different order have different units.
    scale = A.square().mean(dim=0).sqrt().clamp_min(torch.finfo(A.dtype).tiny)
    solution = torch.linalg.lstsq(A / scale, target).solution / scale[:, None]
    kernels, first = [], 0
    for n, pick in enumerate(picks, start=1):
        H = target.new_zeros((y.shape[1], *(size,) * n))
        for places, value in zip(
            pick.tolist(), solution[first : first + len(pick)], strict=True
        ):
            orders = set(itertools.permutations(places))
            for where in orders:
                H[(slice(None), *where)] = value / len(orders)
        first += len(pick)
        kernels.append(H.reshape(-1, *(x.shape[1], kernel_size) * n))
    return tuple(kernels)


def input_norms(x: Tensor, order: int, p: float = 2.0) -> Tensor:
    """Return norms of every channel over time, for `perturbation_bound`.

    Parameters
    ----------
    x : Tensor, shape (n, in_channels, n_times)
    order : int
    p : float
        Of the norm of the output; infinity too.

    Returns
    -------
    norms : Tensor, shape (n, order, in_channels)
        Row k - 1 holds the norms of exponent k p.
    """
    return torch.stack(
        [torch.linalg.vector_norm(x, k * p, dim=-1) for k in range(1, order + 1)], dim=1
    )


def perturbation_bound(
    layer: VolterraConv1d | Sequence[Tensor], x_norms: Tensor, eps: Tensor
) -> Tensor:
    """Return the most that a perturbation e of the input x changes the output.

    A product of n factors has p-norm at most the product of their np-norms
    (Hoelder). Expand prod (x + e) - prod x into products with at least one e: with
    u = ||x||_np and v = ||e||_np of each channel,

    ||H * (x + e)^n - H * x^n||_p <= sum |H| (prod (u + v) - prod u),

    which for one channel is ||H||_1 ((u + v)^n - u^n). Orders add up.

    Parameters
    ----------
    layer : VolterraConv1d | sequence of Tensor
        A layer, whose bound costs no more than its filters (each product's norms
        multiply, so it is looser), or full kernels of order 1, 2, ... .
    x_norms, eps : Tensor, shape (..., order, in_channels)
        `input_norms` of x and of e, for the p wanted.

    Returns
    -------
    bound : Tensor, shape (..., out_channels)
        On the p-norm over time of the change of each output.

    References
    ----------
    T. Li et al., JMLR, 2022 (the inequality for one channel).
    """
    both = x_norms + eps
    if isinstance(layer, VolterraConv1d):
        order = layer.order
    else:
        order = len(layer)
    for name, norms in (("x_norms", x_norms), ("eps", eps)):
        if norms.ndim < 2 or norms.shape[-2] < order:
            fail(
                f"{name} has shape {tuple(norms.shape)} for order {order}",
                fix=f"give input_norms(x, {order}), of shape (n, {order}, in_channels)",
            )
    if not isinstance(layer, VolterraConv1d):
        parts = []
        for n, H in enumerate(layer, start=1):
            # Taps of one channel share its norm.
            sizes = H.abs().sum(dim=tuple(range(2, 2 * n + 1, 2)))
            parts.append(
                _grown(sizes, both[..., n - 1, :])
                - _grown(sizes, x_norms[..., n - 1, :])
            )
        return torch.stack(parts).sum(dim=0)
    bound = eps[..., 0, :] @ layer.linear.abs().sum(dim=2).mT
    for mixing, filters in layer._blocks():
        n = filters.shape[1]
        sizes = filters.abs().sum(dim=3)
        large = torch.einsum("...c,rjc->...rj", both[..., n - 1, :], sizes).prod(dim=-1)
        small = torch.einsum("...c,rjc->...rj", x_norms[..., n - 1, :], sizes)
        bound = bound + (large - small.prod(dim=-1)) @ mixing.abs().mT
    return bound


def _grown(sizes: Tensor, norms: Tensor) -> Tensor:
    """Return sum over channels of sizes (out, c_1, ..., c_n) times their norms."""
    lead = norms.shape[:-1]
    flat = norms.reshape(math.prod(lead), -1)
    y = torch.einsum("Ba,...a->B...", flat, sizes)
    for _ in range(sizes.ndim - 2):
        y = torch.einsum("Ba,B...a->B...", flat, y)
    return y.reshape(*lead, len(sizes))
