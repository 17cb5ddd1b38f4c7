"""The learned kind: quantised spectra with a model of how likely every code is.

Cosine coefficients of every second are rounded to steps, one step for all: the
least error at a rate gives every coefficient the same error. What a code costs
follows from its context, by a small network that was trained to make costs small;
`pack_codes` writes exactly those bits. Codes mean the same without the network.
"""

from __future__ import annotations

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
from eegtensor.tokens._coded import Coded
from eegtensor.tokens._context import (
    Memory,
    contexts,
    energies,
    frame_features,
    n_features,
    prior_feature,
)
from eegtensor.tokens._lanes import by_lane, by_unit, lanes_of, spectra_of
from eegtensor.tokens._noise import token_noise
from eegtensor.tokens._saving import check_whole
from eegtensor.tokens._signals import signals_from, spectra
from eegtensor.tokens._steps import within_rate

# Below a half: values just above a half step are not worth what a one costs.
ROUNDING = 0.4
# Codes up to one of these, the first that the training data fit into.
LARGEST = (127, 255, 511, 1023, 2047, 4095)
# Codes whose contexts are held at one time.
_PIECE = 100_000


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
        Mean square of the training data's coefficients, of the bins that are coded.
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
    def n_bins(self) -> int:
        """Bins that are coded, from the lowest."""
        return self.energy.shape[1]

    @property
    def alphabet(self) -> NDArray:
        """How many ids a slot can have, (n_bins,)."""
        return np.full(self.n_bins, 2 * self.largest + 1)

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
        lanes = lanes_of(spectra(X, sfreq, self.n_bins), self.mixing)
        if step is None:
            step, codes, bits = within_rate(self, lanes)
        else:
            codes = self.codes(lanes, step)
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
            noise = token_noise(ids_of(codes), self.n_bins)
            silent = torch.where(codes == 0, self.tables.spread[rows], 0.0)
            coefs = coefs + fill * noise * silent
        found = spectra_of(coefs * step, len(ids), self.mixing)
        return signals_from(found, sfreq, n_times)

    def codes(self, lanes: Tensor, step: float) -> Tensor:
        """Return the codes of spectra at a step, of their shape."""
        return quantise(lanes / step, ROUNDING, self.largest)

    def costs(self, codes: Tensor, step: float) -> Costs:
        """Return table rows and bits of codes (n_lanes, n_frames, n_units, n_bins)."""
        relative = self.energy / step**2
        memory = Memory(codes[:, 0].shape, codes.device)
        n_frames = max(1, _PIECE // codes[:, 0].numel())
        rows = []
        for piece in codes.split(n_frames, dim=1):
            features = contexts(piece, relative, memory)
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
        memory = Memory((n_lanes, together, self.n_bins), relative.device)
        reader = RangeReader(data, n_lanes * together)
        frames = []
        for _ in range(n_frames):
            past = torch.stack(memory.features(), dim=-1)
            codes = torch.zeros(n_lanes, together, self.n_bins, dtype=torch.int64)
            energy = energies(codes, relative)
            for b in range(self.n_bins):
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
