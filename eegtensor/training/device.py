"""Which device to train on, and what belongs to one there."""

from __future__ import annotations

import torch

from eegtensor._check import fail


def as_device(device: str | torch.device | None = "auto") -> torch.device:
    """Return the device named; ``"auto"`` is the GPU where there is one, else the CPU.

    Raises
    ------
    EEGTensorError
        If the name is no device, or the device is not in this machine.
    """
    if device is None or device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        fail(
            f"device={device!r} is not known",
            fix="choose 'auto', 'cpu', 'cuda' or 'cuda:<number>'",
            cause=error,
        )
    if found.type == "cuda" and found.index is None and torch.cuda.is_available():
        # Tensors name their GPU: 'cuda' alone equals no tensor's device.
        found = torch.device("cuda", torch.cuda.current_device())
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        fail(
            f"device={str(found)!r} is not in this machine, "
            f"torch sees {torch.cuda.device_count()} GPUs",
            fix="choose 'cpu' or 'auto', or install a CUDA build of torch",
        )
    return found


def device_of(model: torch.nn.Module) -> torch.device:
    """Return the device of a module's first parameter or buffer, else the CPU."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
