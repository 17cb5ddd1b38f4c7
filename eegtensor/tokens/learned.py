"""The learned kind: quantised spectra with a model of how likely every code is.

Cosine coefficients of every second are rounded to steps, one step for all: the
least error at a rate gives every coefficient the same error. What a code costs
follows from its context, by a small network that was trained to make costs small;
`pack_codes` writes exactly those bits. Codes mean the same without the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook.entropy import (
    CodeTables,
    code_tables,
    quantise,
    scale_index,
)
from eegtensor.codebook.ranges import RangeReader, write_ranges
from eegtensor.models.scalenetwork import ScaleNetwork
from eegtensor.tokens._bands import N_BINS
from eegtensor.tokens._coded import Coded
from eegtensor.tokens._context import (
    Memory,
    energies,
    frame_features,
    n_features,
    prior_feature,
)
from eegtensor.tokens._lanes import by_lane, by_unit, lanes_of, spectra_of
from eegtensor.tokens._noise import token_noise
from eegtensor.tokens._saving import check_whole
from eegtensor.tokens._signals import signals_from, spectra

# Below a half: values just above a half step are not worth what a one costs.
ROUNDING = 0.4
# Codes up to one of these, the first that the training data fit into.
LARGEST = (127, 255, 511, 1023)
# Steps that a recording may have, 64 an octave around that of the fit.
_GRID = 64
_FARTHEST = 6 * _GRID
_TRIES = 24
_NEAR_ENOUGH = 0.985
# Frames that are enough to tell what activity costs.
_STRETCH = 12
# Coefficients that tell how active a recording is.
_SAMPLE = 1 << 15
# Of a square, so that coefficients of half a step cost little.
_SPREAD = 2.0
# Codes whose contexts are held at one time.
_PIECE = 400_000


class Costs(NamedTuple):
    """What a context tells of codes.

    Attributes
    ----------
    rows : Tensor of int64, shape (n_lanes, n_frames, n_units, n_bins)
        Of the code tables.
    bits : Tensor, shape (n_lanes, n_units, n_frames)
    """

    rows: Tensor
    bits: Tensor


class LearnedCodec:
    """A fitted codec.

    Parameters
    ----------
    network : ScaleNetwork
    energy : Tensor, shape (n_units, n_bins)
        Mean square of the training data's coefficients.
    mixing : ndarray, shape (n_bands, n_units, n_channels) | None
        Components of each band, None where channels are coded.
    step : float
        That of the training data, where `bits_per_second` is spent.
    bits_per_second : float
        Of a channel.
    bits_per_activity : float
        Of the training data: bits by `activity`.
    largest : int
        Code; larger values are clipped.
    """

    def __init__(
        self,
        network: ScaleNetwork,
        energy: Tensor,
        mixing: NDArray | None,
        step: float,
        bits_per_second: float,
        bits_per_activity: float,
        largest: int = LARGEST[0],
    ) -> None:
        # float64: a decoder must find the same row of the tables.
        self.network = network.double().eval().requires_grad_(False)
        self.energy = energy.double()
        self.mixing = mixing
        self.step = step
        self.bits_per_second = bits_per_second
        self.bits_per_activity = bits_per_activity
        self.largest = largest
        self.tables: CodeTables = code_tables(
            network.log_weights, network.log_ratios, ROUNDING, largest
        )

    @property
    def alphabet(self) -> NDArray:
        """How many ids a slot can have, (n_bins,)."""
        return np.full(N_BINS, 2 * self.largest + 1)

    def encode(
        self,
        X: NDArray,
        sfreq: float,
        ch_names: Sequence[str] = (),
        *,
        step: float | None = None,
    ) -> Coded:
        """Return ids, their bits, and the step.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times)
            Scaled.
        sfreq : float
        step : float | None
            None for the least at which the recording costs no more than
            `bits_per_second`.

        """
        lanes = lanes_of(spectra(X, sfreq, N_BINS), self.mixing)
        if step is None:
            step, codes, bits = self._within_rate(lanes)
        else:
            codes = quantise(lanes / step, ROUNDING, self.largest)
            bits = self.costs(codes, step).bits
        ids = by_unit(ids_of(codes), len(X)).numpy().astype(np.int32)
        return Coded(ids, bits.reshape(ids.shape[:-1]).numpy(), step)

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
        """Return scaled signals, (n_trials, n_channels, n_times)."""
        step = self.step if step is None else step
        codes = self._codes(ids)
        rows = self.costs(codes, step).rows
        coefs = self.tables.means[rows, codes + self.largest]
        if fill:
            noise = token_noise(ids_of(codes))
            silent = torch.where(codes == 0, self.tables.spread[rows], 0.0)
            coefs = coefs + fill * noise * silent
        found = spectra_of(coefs * step, len(ids), self.mixing)
        return signals_from(found, sfreq, n_times)

    def costs(self, codes: Tensor, step: float) -> Costs:
        """Return table rows and bits of codes (n_lanes, n_frames, n_units, n_bins)."""
        relative = self.energy / step**2
        energy = energies(codes, relative)
        prior = prior_feature(relative)
        memory = Memory(energy[:, 0].shape, energy.device)
        n_frames = max(1, _PIECE // energy[:, 0].numel())
        rows = []
        for piece in energy.split(n_frames, dim=1):
            past = []
            for frame in piece.unbind(dim=1):
                past.append(torch.stack(memory.features(), dim=-1))
                memory.add(frame)
            now = torch.stack(
                [*frame_features(piece), prior.expand(piece.shape)], dim=-1
            )
            features = torch.cat([torch.stack(past, dim=1), now], dim=-1)
            rows.append(scale_index(self.network(features)))
        found = torch.cat(rows, dim=1)
        bits = self.tables.bits[found, codes + self.largest].sum(dim=-1)
        return Costs(found, bits.swapaxes(1, 2))

    def bits_of(self, ids: NDArray, step: float) -> NDArray:
        """Return what frames cost, (n_trials, n_units, n_frames)."""
        bits = self.costs(self._codes(ids), step).bits
        return np.asarray(bits.reshape(ids.shape[:-1]).numpy())

    def pack(self, ids: NDArray, step: float) -> bytes:
        """Return the bytes that ids cost."""
        codes = self._codes(ids)
        rows = self.costs(codes, step).rows
        at = codes + self.largest
        starts, ends = (self.tables.starts[rows, k] for k in (at, at + 1))
        return write_ranges(*(_steps(x) for x in (starts, ends - starts)))

    def unpack(self, data: bytes, shape: tuple[int, int, int], step: float) -> NDArray:
        """Return the ids, whose first three axes are known, that `pack` wrote."""
        n_trials, n_units, n_frames = shape
        together = n_units if self.mixing is not None else 1
        n_lanes = n_trials * n_units // together
        relative = self.energy / step**2
        prior = prior_feature(relative).expand(n_lanes, *relative.shape)
        memory = Memory((n_lanes, together, N_BINS), relative.device)
        reader = RangeReader(data, n_lanes * together)
        frames = []
        for _ in range(n_frames):
            past = torch.stack(memory.features(), dim=-1)
            codes = torch.zeros(n_lanes, together, N_BINS, dtype=torch.int64)
            energy = energies(codes, relative)
            for b in range(N_BINS):
                now = [f[..., b] for f in frame_features(energy[..., : b + 1])]
                known = [past[..., b, :], torch.stack([*now, prior[..., b]], dim=-1)]
                rows = scale_index(self.network(torch.cat(known, dim=-1)))
                found = _read_codes(reader, self.tables.starts[rows.flatten()])
                codes[..., b] = (found - self.largest).view(n_lanes, together)
                here = slice(b, b + 1)
                energy[..., here] = energies(codes[..., here], relative[:, here])
            memory.add(energy)
            frames.append(codes)
        ids = by_unit(ids_of(torch.stack(frames, dim=1)), n_trials)
        return ids.numpy().astype(np.int32)

    def state(self) -> dict[str, Any]:
        """Return all that `from_state` needs: tensors and plain values."""
        return {
            "network": dict(self.network.state_dict()),
            "energy": self.energy,
            "mixing": self.mixing,
            "step": self.step,
            "bits_per_second": self.bits_per_second,
            "bits_per_activity": self.bits_per_activity,
            "largest": self.largest,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return the codec of a state."""
        names = {"network", "energy", "mixing", "step", "bits_per_second"}
        names |= {"bits_per_activity", "largest"}
        fields = check_whole(state, names, "The learned codec")
        network = ScaleNetwork(n_features(len(fields["energy"])))
        weights = check_whole(
            fields.pop("network"), set(network.state_dict()), "The network"
        )
        network.load_state_dict(weights)
        return cls(network, **fields)

    def _codes(self, ids: NDArray) -> Tensor:
        """Return the codes of ids, (n_lanes, n_frames, n_units, n_bins)."""
        found = by_lane(ids, self.mixing)
        if not bool(((found >= 0) & (found <= 2 * self.largest)).all()):
            fail(
                f"ids lie between {int(found.min())} and {int(found.max())}, those of "
                f"this tokenizer between 0 and {2 * self.largest}",
                fix="decode with the tokenizer that encoded",
            )
        return torch.where(found % 2 == 1, (found + 1) // 2, -(found // 2))

    def _within_rate(self, lanes: Tensor) -> tuple[float, Tensor, Tensor]:
        """Return the least step of the grid whose bits are within the rate.

        Bits are nearly in proportion to `activity`, which is cheap: it says which
        step to look at, and the bits there how far it is out.
        """
        few = lanes[:, :: max(1, lanes.numel() // _SAMPLE)]
        asked = self.bits_per_second
        per_activity = self._bits_per_activity(lanes, few)
        # Exponents that cost too much, and that do not: the answer lies between.
        over, within = -_FARTHEST - 1, _FARTHEST + 1
        best: tuple[float, Tensor, Tensor] | None = None
        for _ in range(_TRIES):
            k = self._grid_step(few, asked / per_activity)
            if k >= within:
                k = within - 1
            elif k <= over:
                # Where nothing moves the activity, as in silence, far ahead.
                k = over + 1 if within <= _FARTHEST else over + _GRID // 2
            if not over < k < within:
                break
            step = self.step * 2 ** (k / _GRID)
            codes = quantise(lanes / step, ROUNDING, self.largest)
            bits = self.costs(codes, step).bits
            spent = float(bits.sum()) / lanes.shape[:3].numel()
            if spent > asked:
                over = k
            else:
                within, best = k, (step, codes, bits)
                if spent >= _NEAR_ENOUGH * asked:
                    break
            # Aimed a little low: over the rate is not allowed.
            per_activity = 1.003 * spent / max(activity(few, step), 1e-12)
        if best is None:
            fail(
                f"the recording costs more than {asked:g} bit/s/channel",
                why="Its energies are unlike those of the recordings of the fit",
                fix="fit on recordings like it, or ask for more bits",
            )
        return best

    def _bits_per_activity(self, lanes: Tensor, few: Tensor) -> float:
        """Return what activity costs in a stretch of long lanes; else in the fit."""
        n_frames = lanes.shape[1]
        if n_frames < 4 * _STRETCH:
            return self.bits_per_activity
        first = (n_frames - n_frames // 4) // 2
        stretch = lanes[:, first : first + n_frames // 4]
        k = self._grid_step(few, self.bits_per_second / self.bits_per_activity)
        step = self.step * 2 ** (k / _GRID)
        codes = quantise(stretch / step, ROUNDING, self.largest)
        spent = float(self.costs(codes, step).bits.mean())
        return spent / max(activity(stretch, step), 1e-12)

    def _grid_step(self, few: Tensor, most: float) -> int:
        """Return the least exponent of the grid that is no more active."""
        low, high = -_FARTHEST, _FARTHEST
        while low < high:
            middle = (low + high) // 2
            if activity(few, self.step * 2 ** (middle / _GRID)) <= most:
                high = middle
            else:
                low = middle + 1
        return low


def activity(lanes: Tensor, step: float) -> float:
    """Return bits a second that coefficients of known energy would cost."""
    size = (lanes / step).square().mul_(_SPREAD).log1p().mean()
    return float(size) * lanes.shape[-1] / (2 * math.log(2))


def ids_of(codes: Tensor) -> Tensor:
    """Return 0, 1, 2, 3, 4, ... for codes 0, 1, -1, 2, -2, ..."""
    return torch.where(codes > 0, 2 * codes - 1, -2 * codes)


def _read_codes(reader: RangeReader, starts: Tensor) -> Tensor:
    """Return the next code of every stream, (n_streams,), of its table's row."""
    low = torch.from_numpy(reader.peek())[:, None]
    found = torch.searchsorted(starts, low, right=True) - 1
    start = starts.gather(1, found)[:, 0]
    end = starts.gather(1, found + 1)[:, 0]
    reader.step(start.numpy(), (end - start).numpy())
    return found[:, 0]


def _steps(x: Tensor) -> NDArray:
    """Return (n_lanes, n_frames, n_units, n_bins) as (n_steps, n_streams)."""
    x = x.permute(1, 3, 0, 2)
    return x.reshape(x.shape[0] * x.shape[1], -1).numpy()
