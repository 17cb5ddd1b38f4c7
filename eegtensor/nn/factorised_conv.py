"""Convolutions whose kernel is a tensor network."""

from __future__ import annotations

from eegtensor.nn._factorised_conv import FactorizedConv


class FactorizedConv1d(FactorizedConv):
    """A convolution over time with a factorised kernel; for `torch.nn.Conv1d`.

    Modes of the network are those of the input channels, the taps (one mode), and
    those of the output channels. Input's cores mix channels, the taps' core filters
    between ranks, output's cores mix again; cores are multiplied together first
    where that is cheaper for the batch.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int
    kind, rank, in_shape, out_shape, t
        See `FactorizedLinear`. The taps never share an identity.
    stride, padding, dilation, bias
        As of `torch.nn.Conv1d`; padding is with zeros.
    groups : int
        1.
    generator : torch.Generator | None
        Of the initial cores.
    device, dtype : of the cores.

    Attributes
    ----------
    weight : Tensor, shape (out_channels, in_channels, kernel_size)
        Rebuilt each time it is asked for.
    cores : nn.ParameterList
    bias : nn.Parameter, shape (out_channels,) | None

    Raises
    ------
    EEGTensorError
        If shapes do not multiply to the channels, or an option is not possible.
    """

    n_dims = 1


class FactorizedConv2d(FactorizedConv):
    """A convolution over two axes with a factorised kernel; for `torch.nn.Conv2d`.

    As `FactorizedConv1d`; the kernel's two axes are one mode.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int | (int, int)
    kind, rank, in_shape, out_shape, t
        See `FactorizedLinear`. The taps never share an identity.
    stride, padding, dilation, bias
        As of `torch.nn.Conv2d`; padding is with zeros.
    groups : int
        1.
    generator : torch.Generator | None
        Of the initial cores.
    device, dtype : of the cores.

    Attributes
    ----------
    weight : Tensor, shape (out_channels, in_channels, *kernel_size)
        Rebuilt each time it is asked for.
    cores : nn.ParameterList
    bias : nn.Parameter, shape (out_channels,) | None

    Raises
    ------
    EEGTensorError
        If shapes do not multiply to the channels, or an option is not possible.
    """

    n_dims = 2
