"""Universal perturbations: one waveform for every trial, found without labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.trust.attacks.goal import still
from eegtensor.trust.attacks.views import View

LOSSES = ("features", "dominant")
# The published step 0.02 in units of the published radius 10 / 255.
_LR = 0.02 / (10 / 255)
# Weight of the class that is aimed at, as published.
_TARGET = 0.1


def universal(
    view: View,
    x: Tensor,
    *,
    eps: float = 0.1,
    loss: str = "features",
    target: int | None = None,
    n_epochs: int = 2,
    batch_size: int = 32,
    lr: float | None = None,
    weight_decay: float = 1e-5,
    band: tuple[float, float] | None = None,
    sfreq: float | None = None,
    validation: Tensor | None = None,
    scale: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, list[dict[str, float]]]:
    """Return a displacement (1, n_channels, n_times) in standard deviations.

    ``loss="features"`` (FG-UAP): the cosine between the features of the head with
    and without it is made small. It starts at random, a tenth of eps: at 0 the cosine
    is at its maximum and has no gradient. ``loss="dominant"`` (reconstruction of the
    paper's abstract): ``||f(x + v) - f(v)|| / ||f(x + v)||`` of the logits f is made
    small, so that they follow the perturbation and not the trial.

    Parameters
    ----------
    view : View
        Of all trials of x (and of no other).
    x : Tensor, shape (n_trials, n_channels, n_times)
    eps : float
        l_inf, standard deviations of each channel.
    loss : "features" | "dominant"
    target : int | None
        Class that all trials shall be taken for.
    n_epochs, batch_size : int
    lr : float | None
        Of Adam, standard deviations; 0.51 eps by default, as published.
    weight_decay : float
    band : tuple (low, high) | None
        In Hz: nothing outside is left in the waveform.
    sfreq : float | None
    validation : Tensor of int64 | None
        Numbers of trials on which the epoch is chosen, and nothing else; without
        it on those that it is found with.
    scale : Tensor | None
    generator : torch.Generator | None

    References
    ----------
    Z. Ye, X. Cheng and X. Huang, "FG-UAP: feature-gathering universal adversarial
    perturbation", IJCNN 2023; "Dominant patterns" (entry A45 of the specifications).
    """
    check_option("loss", loss, LOSSES)
    check_count("n_epochs", n_epochs)
    check_number("eps", eps, above=0.0)
    scale = channel_scale(x) if scale is None else scale.to(x)
    keep = _filter(band, sfreq, x.shape[-1])
    rows = torch.arange(len(x))
    judged = rows if validation is None else validation
    used = rows if validation is None else rows[~torch.isin(rows, validation)]
    shape = (1, *x.shape[1:])
    draw = torch.rand(shape, dtype=x.dtype, device=x.device, generator=generator)
    v = _within(keep((2 * draw - 1) * eps / 10), eps, banded=band is not None)
    v = v.requires_grad_()
    step = _LR * eps if lr is None else check_number("lr", lr, above=0.0)
    adam = torch.optim.Adam([v], lr=step, weight_decay=weight_decay)
    history, best, top = [], v.detach().clone(), -1.0
    with still(view):
        clean = _features(view, x, rows)
        for _ in range(n_epochs):
            order = torch.randperm(len(used), generator=generator, device=x.device)
            losses = []
            for part in used[order.cpu()].split(batch_size):
                added, of = v * scale, view.pick(part)
                value = _loss(of, x[part], added, clean[0][part], loss, target)
                (v.grad,) = torch.autograd.grad(value, v)
                adam.step()
                with torch.no_grad():
                    v.copy_(_within(keep(v), eps, banded=band is not None))
                losses.append(float(value.detach()))
            after = _features(view, x + v.detach() * scale, judged)[1].argmax(1)
            before = clean[1][judged].argmax(1)
            hit = after != before if target is None else after == target
            rate = float(hit.double().mean())
            history.append({"loss": float(np.mean(losses)), "fooling_rate": rate})
            if rate >= top:
                best, top = v.detach().clone(), rate
    return best, history


def _features(view: View, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        parts = [view.pick(r).features_and_logits(x[r]) for r in rows.split(256)]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _loss(
    view: View,
    x: Tensor,
    added: Tensor,
    clean: Tensor,
    kind: str,
    target: int | None,
) -> Tensor:
    features, logits = view.features_and_logits(x + added)
    if kind == "features":
        value = torch.nn.functional.cosine_similarity(features, clean, dim=1).mean()
    else:
        alone = view(added.expand_as(x))
        value = ((logits - alone).norm(dim=1) / logits.norm(dim=1)).mean()
    if target is None:
        return value
    aim = torch.full((len(x),), target, device=logits.device)
    return value + _TARGET * torch.nn.functional.cross_entropy(logits, aim)


def _filter(
    band: tuple[float, float] | None, sfreq: float | None, n_times: int
) -> Callable[[Tensor], Tensor]:
    """Return what takes out of a waveform all that is not in a band."""
    if band is None:
        return lambda v: v
    low, high = band
    if sfreq is None or not 0 <= low < high <= sfreq / 2:
        fail(
            f"band={band} Hz at sfreq={sfreq}",
            fix="give sfreq, and a band between 0 and half of it",
        )
    frequency = torch.fft.rfftfreq(n_times, 1 / sfreq)
    inside = (frequency >= low) & (frequency <= high)
    if not bool(inside.any()):
        fail(
            f"No frequency of a trial of {n_times} samples is in band={band} Hz",
            fix="give a wider band",
        )

    def keep(v: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(v) * inside.to(v.device)
        kept: Tensor = torch.fft.irfft(spectrum, n_times)
        return kept

    return keep


def _within(v: Tensor, eps: float, *, banded: bool) -> Tensor:
    """Return v in the ball: cut, or made smaller, as what is cut leaves its band."""
    if not banded:
        return v.clamp(-eps, eps)
    top = v.abs().amax(dim=-1, keepdim=True)
    return v * (eps / top.clamp_min(eps))
