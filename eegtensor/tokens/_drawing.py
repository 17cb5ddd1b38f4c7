"""Tokens drawn from a network: those masked, or those to come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.tokens._positions import Places
from eegtensor.tokens._signals import frame_length
from eegtensor.tokens._windows import as_sequences, ids_of, windows
from eegtensor.tokens.tokens import Tokens
from eegtensor.training import device_of

_WINDOWS = 64


def draw_tokens(
    network: Any,
    tokens: Tokens,
    places: Places,
    mask: ArrayLike | None,
    *,
    n_future: int,
    n_frames: int,
    temperature: float,
    n_steps: int,
    random_state: int,
) -> Tokens:
    """Return tokens of which some are drawn; see `MaskedTokenModel.sample`."""
    if (mask is None) == (n_future == 0):
        fail(
            f"mask is {'not ' if mask is None else ''}given and n_future={n_future}",
            fix="give one of them: which tokens to draw, or how many frames to come",
        )
    if n_future < 0 or not temperature > 0 or n_steps < 1:
        fail(
            f"n_future={n_future}, temperature={temperature}, n_steps={n_steps}",
            fix="give whole frames, a temperature above 0 and at least one step",
        )
    device = device_of(network)
    generator = torch.Generator(device).manual_seed(random_state)
    options: Any = {"temperature": temperature, "generator": generator}
    if mask is not None:
        chosen = np.asarray(mask)
        if chosen.dtype != bool or chosen.shape != np.asarray(tokens.ids).shape[:-1]:
            fail(
                f"mask has shape {chosen.shape} and dtype {chosen.dtype}",
                fix="give a bool for every unit and frame, as the first axes of ids",
            )
        ids = _masked(network, tokens, places, chosen, n_frames, n_steps, **options)
        return replace(tokens, ids=ids, bits=None)
    ids = ids_of(tokens)
    # A frame that the recording fills in part would be followed by a jump.
    length = frame_length(tokens.sfreq)
    if tokens.n_times != ids.shape[2] * length:
        fail(
            f"the last frame holds {tokens.n_times % length} of {length} samples",
            fix="cut the recording to whole frames before encoding it",
        )
    for _ in range(n_future):
        blank = np.full_like(ids[:, :, :1], -1)
        # The frame to come is the last of its window.
        recent = np.concatenate([ids[:, :, ids.shape[2] - n_frames + 1 :], blank], 2)
        if ids.shape[2] < n_frames:
            recent = np.concatenate([ids, blank], axis=2)
        part = replace(tokens, ids=recent, bits=None)
        new = np.zeros(recent.shape[:3], dtype=bool)
        new[:, :, -1] = True
        drawn = _masked(network, part, places, new, recent.shape[2], n_steps, **options)
        ids = np.concatenate([ids, drawn[:, :, -1:]], axis=2)
    single = np.asarray(tokens.ids).ndim == 3
    return replace(
        tokens, ids=ids[0] if single else ids, n_times=ids.shape[2] * length, bits=None
    )


def _masked(
    network: Any,
    tokens: Tokens,
    places: Places,
    mask: NDArray,
    n_frames: int,
    n_steps: int,
    **options: Any,
) -> NDArray:
    """Return ids of which the masked ones are drawn, in the shape given."""
    cut = windows(tokens, places, n_frames)
    x = as_sequences(cut)
    # The mask is cut as the ids are.
    as_ids = replace(
        tokens,
        ids=mask[..., None].astype(np.int32),
        alphabet=np.array([2]),
        bits=None,
    )
    masked = as_sequences(windows(as_ids, places, n_frames))["ids"][..., 0] == 1
    drawn = [
        _draw(
            {k: v[rows] for k, v in x.items()},
            masked[rows],
            network,
            n_steps,
            **options,
        )
        for rows in torch.arange(len(masked)).split(_WINDOWS)
    ]
    shape = cut["ids"].shape
    ids = torch.cat(drawn).view(shape).swapaxes(1, 2).flatten(2, 3).numpy()
    original = np.asarray(tokens.ids)
    ids = ids[:, :, : original.shape[-2]].astype(original.dtype)
    return ids.reshape(original.shape)


def _draw(
    x: dict[str, Tensor],
    masked: Tensor,
    network: Any,
    n_steps: int,
    *,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Return the ids of windows with the masked ones drawn, part after part."""
    device = device_of(network)
    x = {k: v.to(device) for k, v in x.items()}
    masked = masked.to(device)
    ids = x["ids"].clone()
    key = torch.rand(masked.shape, generator=generator, device=device)
    # Equal parts of each window's masked tokens, in random order.
    rank = key.masked_fill(~masked, torch.inf).flatten(1).argsort(1).argsort(1)
    share = (
        rank.view(masked.shape) / masked.flatten(1).sum(1).clamp_min(1)[:, None, None]
    )
    step_of = (share * n_steps).long()
    with torch.no_grad():
        for step in range(n_steps):
            now = masked & (step_of == step)
            if not bool(now.any()):
                continue
            unknown = masked & (step_of >= step)
            states = network({**x, "ids": ids, "masked": unknown}).states[now]
            drawn = network.draw(states, generator, temperature=temperature)
            ids[now] = drawn.to(ids.dtype)
    return ids.cpu()
