"""A trained tokenizer network as a codec: signals to ids and back.

Patches are of one second at 200 samples whatever the rate: the first bins of a
second's cosine spectrum, back in time, see `eegtensor.tokens._signals.spectra`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.models._patch_tokenizer import PatchTokenizer
from eegtensor.models.labram import VQNSP
from eegtensor.models.neurorvq import NeuroRVQ
from eegtensor.tokens._bands import N_BINS
from eegtensor.tokens._coded import Coded
from eegtensor.tokens._noise import token_noise
from eegtensor.tokens._signals import RATE, signals_from, spectra

NETWORKS: dict[str, Any] = {"neurorvq": NeuroRVQ, "labram": VQNSP}
PATCH = int(RATE)
# Patches that are encoded together, always so many: a sum's order, hence the last
# bits of a result, may depend on the shape of a matrix.
_ROWS = 128
# Patches that are computed together at most, for the sake of memory.
_TOGETHER = 2048
# Patches of a sample where they see one another, as published.
SAMPLE = 256


class NeuralCodec:
    """A trained network with what makes its ids a recording.

    Parameters
    ----------
    network : str
        One of `NETWORKS`.
    options : dict
        Of the network.
    model : PatchTokenizer
        In evaluation mode.
    lost : Tensor, shape (n_bins,)
        Energy of each bin of a patch's cosine spectrum that the tokens do not tell,
        in the training data.
    """

    # Channels are coded as they are.
    mixing = None

    def __init__(
        self, network: str, options: dict[str, Any], model: PatchTokenizer, lost: Tensor
    ) -> None:
        self.network, self.options, self.model = network, options, model
        self.lost = lost

    @property
    def alphabet(self) -> NDArray:
        """Sizes of the slots, shape (n_slots,)."""
        return np.full(self.model.n_slots, self.model.size.n_codes)

    @property
    def bits_per_second(self) -> float:
        """Bits a second of a channel."""
        return float(np.log2(self.alphabet).sum())

    @property
    def _alone(self) -> bool:
        return {"norms", "alone"} <= set(self.model.fixes)

    @torch.no_grad()
    def encode(
        self,
        X: NDArray,
        sfreq: float,
        ch_names: Sequence[str] = (),
        *,
        step: float | None = None,
    ) -> Coded:
        """Return the ids of signals.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times)
            Divided by its scale.
        sfreq : float
        ch_names : sequence of str
            Empty where unknown.
        step : float | None
            Not used; for the sake of other kinds.

        Returns
        -------
        Coded
            With ids of shape (n_trials, n_channels, n_frames, n_slots).
        """
        return _coded(self._by_patch(self.model.encode, patches_of(X, sfreq), ch_names))

    @torch.no_grad()
    def use_all_codes(self, recordings: Sequence[tuple[Tensor, Sequence[str]]]) -> None:
        """Move codes that no patch uses to patches that are coded badly.

        Parameters
        ----------
        recordings : sequence of (Tensor, sequence of str)
            Patches (n_trials, n_channels, n_frames, 200), and names of channels.
        """
        model = self.model

        def latents(x: Tensor, where: Tensor) -> Tensor:
            found = model.latents(model.cut(x), model.places(where, x))
            return found.permute(1, 2, 3, 0, 4)

        parts = [self._by_patch(latents, x, names) for x, names in recordings]
        rows = torch.cat([part.flatten(0, 2) for part in parts])
        quantizers: Any = model.quantizers
        for quantizer, z in zip(quantizers, rows.unbind(1), strict=True):
            quantizer.use_all_codes(z)

    def _by_patch(
        self,
        call: Callable[[Tensor, Tensor], Tensor],
        patches: Tensor,
        ch_names: Sequence[str],
    ) -> Tensor:
        """Return what a call of samples and places makes of patches."""
        where = self._places(ch_names, patches)
        if not self._alone:
            return self._by_sample(lambda x: call(x.flatten(2), where), patches)
        shape = patches.shape[:3]
        rows = patches.reshape(-1, 1, PATCH)
        place = where[None, :, None].expand(shape).reshape(-1, 1)
        short = -len(rows) % _ROWS
        rows = torch.cat([rows, rows.new_zeros(short, 1, PATCH)])
        place = torch.cat([place, place.new_zeros(short, 1)])
        parts = [
            call(part, at)
            for part, at in zip(rows.split(_ROWS), place.split(_ROWS), strict=True)
        ]
        found = torch.cat(parts)[: len(rows) - short]
        return found.view(*shape, *found.shape[3:])

    @torch.no_grad()
    def decode(
        self,
        ids: NDArray,
        sfreq: float,
        ch_names: Sequence[str],
        n_times: int,
        *,
        fill: float = 0.0,
        step: float | None = None,
    ) -> NDArray:
        """Return signals (n_trials, n_channels, n_times), in units of the scale.

        Parameters
        ----------
        ids : ndarray of int, shape (n_trials, n_channels, n_frames, n_slots)
        sfreq : float
        ch_names : sequence of str
        n_times : int
        fill : float
            Share of the energy that the tokens lose, in every bin, that noise makes
            up for.
        step : float | None
            Not used.
        """
        sent = torch.from_numpy(np.asarray(ids, dtype=np.int64))
        n_slots, n_codes = self.model.n_slots, self.model.size.n_codes
        if (
            sent.ndim != 4
            or sent.shape[-1] != n_slots
            or not (-1 <= int(sent.min()) and int(sent.max()) < n_codes)
        ):
            fail(
                f"tokens have shape {tuple(sent.shape)}, the codec gives {n_slots} "
                f"slots of {n_codes} codes",
                fix="decode with the tokenizer that encoded",
            )
        where = self._places(ch_names, sent)
        patches = self._by_sample(
            lambda x: self.model.decode(x, where).unflatten(-1, (-1, PATCH)), sent
        )
        coefs = scipy.fft.dct(patches.double().numpy(), norm="ortho")[..., :N_BINS]
        if fill:
            coefs = coefs + fill * (token_noise(sent) * self.lost.sqrt()).numpy()
        return signals_from(coefs, sfreq, n_times)

    def state(self) -> dict[str, Any]:
        """Return everything, as plain values and tensors."""
        return {
            "network": self.network,
            "options": dict(self.options),
            "lost": self.lost,
            "weights": dict(self.model.state_dict()),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return the codec of `state`.

        Raises
        ------
        EEGTensorError
            If a tensor is missing, unknown or of another shape.
        """
        network = check_option("network", state["network"], tuple(NETWORKS))
        options = dict(state["options"])
        model = NETWORKS[network](PATCH, random_state=0, **options)
        own = {k: (tuple(v.shape), v.dtype) for k, v in model.state_dict().items()}
        given = {k: (tuple(v.shape), v.dtype) for k, v in state["weights"].items()}
        wrong = {k for k in own.keys() | given.keys() if own.get(k) != given.get(k)}
        if wrong:
            fail(
                f"{len(own) - len(wrong & own.keys())} of {len(own)} tensors fit the "
                f"network {network!r}; {sorted(wrong)[:3]} do not",
                why="A network that is loaded in part gives tokens that mean nothing",
                fix="save the tokenizer again, with the eegtensor that fitted it",
            )
        model.load_state_dict(state["weights"])
        return cls(network, options, model.eval(), state["lost"])

    def _places(self, ch_names: Sequence[str], x: Tensor) -> Tensor:
        return self.model.places(tuple(ch_names) or None, x)[0]

    def _by_sample(self, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return what a call makes of samples as long as those of the training.

        Parameters
        ----------
        call : callable
            Of (n_samples, n_channels, n_seconds, ...).
        x : Tensor, shape (n_trials, n_channels, n_frames, ...)
            The last sample of a trial may be shorter than the others.
        """
        n_trials, n_channels, n_frames = x.shape[:3]
        most = max(1, min(SAMPLE // n_channels, len(self.model.encoder.seconds)))
        n_seconds = 1 if "alone" in self.model.fixes else most
        whole = n_frames // n_seconds * n_seconds
        found = []
        for part, size in ((x[:, :, :whole], n_seconds), (x[:, :, whole:], None)):
            size = size or n_frames - whole
            if not part.shape[2]:
                continue
            samples = part.unflatten(2, (-1, size)).transpose(1, 2).flatten(0, 1)
            step = max(1, _TOGETHER // (n_channels * size))
            made = torch.cat([call(few) for few in samples.split(step)])
            found.append(
                made.unflatten(0, (n_trials, -1)).transpose(1, 2).flatten(2, 3)
            )
        return torch.cat(found, dim=2)


def patches_of(X: NDArray, sfreq: float) -> Tensor:
    """Return the patches of signals, float32 (..., n_frames, 200).

    Above 46 Hz they have nothing, so that they do not depend on the rate.
    """
    coefs = spectra(X, sfreq, N_BINS)
    full = np.zeros((*coefs.shape[:-1], PATCH))
    full[..., :N_BINS] = coefs
    return torch.from_numpy(scipy.fft.idct(full, norm="ortho").astype(np.float32))


def _coded(ids: Tensor) -> Coded:
    return Coded(ids.numpy().astype(np.int32))
