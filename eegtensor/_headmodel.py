"""Head models of the simulator: where electrodes and sources lie, how they mix.

Kept apart from the signals of `eegtensor.simulate`: everything here is
geometry, from electrode names to a leadfield in volts per ampere-metre.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, Protocol

import mne
import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_option, fail

HEADS = ("sphere", "random")
# Centre and radius in metres of MNE's default spherical head (head coordinates).
_CENTRE = np.array([0.0, 0.0, 0.04])
_RADIUS = 0.09
# Cortex lies under 20 mm of scalp, skull and fluid.
_CORTEX = 0.07
_SCALE = 300.0  # volts per ampere-metre, as a cortical dipole under an electrode
# Old names and mastoids that repeat or leave the 10-10 grid.
_SKIPPED = frozenset({"T3", "T4", "T5", "T6", "A1", "A2", "M1", "M2"})
# Most useful first: a small montage still covers both motor areas and the head.
_FIRST = (
    "C3 C4 Cz Fz Pz Oz F3 F4 P3 P4 FC1 FC2 CP1 CP2 O1 O2 FC5 FC6 CP5 CP6 T7 T8 "
    "F7 F8 P7 P8 Fp1 Fp2 C1 C2 FCz CPz C5 C6 FC3 FC4 CP3 CP4 POz AFz F1 F2 P1 P2 "
    "AF3 AF4 PO3 PO4 F5 F6 P5 P6 FT7 FT8 TP7 TP8 AF7 AF8 PO7 PO8 Fpz TP9 TP10 Iz"
).split()


class Dipoles(NamedTuple):
    """Current dipoles: unit directions from the head's centre, depth, moment."""

    direction: NDArray  # (n_sources, 3)
    radius: NDArray  # (n_sources,), metres
    orientation: NDArray  # (n_sources, 3), unit vectors


class Head(Protocol):
    """What the simulator asks of a head model."""

    def leadfield(self, dipoles: Dipoles) -> NDArray:
        """Return volts per ampere-metre, shape (n_channels, n_sources)."""
        ...


def channel_names(n_channels: int) -> list[str]:
    """Return the names of a montage of 10-05 electrodes, front to back.

    Raises
    ------
    EEGTensorError
        If the standard montage has fewer electrodes.
    """
    names = [n for n in standard_montage().ch_names if n not in _SKIPPED]
    if n_channels > len(names):
        fail(
            f"n_channels={n_channels} is more than the {len(names)} electrodes of "
            "the 10-05 system",
            fix=f"ask for at most {len(names)} channels",
        )
    ranked = _FIRST + [name for name in names if name not in set(_FIRST)]
    chosen = set(ranked[:n_channels])
    return [name for name in names if name in chosen]


def make_info(ch_names: list[str], sfreq: float) -> mne.Info:
    """Return EEG channels with positions of the standard 10-05 montage."""
    info = mne.create_info(ch_names, sfreq, "eeg", verbose="ERROR")
    return info.set_montage(standard_montage(), verbose="ERROR")


def directions(names: list[str]) -> NDArray:
    """Return unit vectors from the head's centre to electrodes, shape (n, 3)."""
    info = make_info(names, 100.0)
    return _unit(np.array([ch["loc"][:3] for ch in info["chs"]]) - _CENTRE)


def place(names: list[str], rng: np.random.Generator, tilt: float = 0.5) -> Dipoles:
    """Put one dipole under each named electrode, pointing outwards give or take.

    Parameters
    ----------
    names : list of str
        10-05 electrode names.
    rng : Generator
    tilt : float
        Standard deviation of the tangential part of the orientation.
    """
    where = directions(names)
    radius = _CORTEX - 0.01 * rng.random(len(names))
    orientation = _unit(where + tilt * rng.standard_normal(where.shape))
    return Dipoles(where, radius, orientation)


def move(dipoles: Dipoles, degrees: float, rng: np.random.Generator) -> Dipoles:
    """Displace dipoles along the cortex and turn them, by `degrees` on average."""
    step = np.deg2rad(degrees)
    shape = dipoles.direction.shape
    displaced, turned = rng.standard_normal((2, *shape))
    # Folds of cortex turn more between people than gyri are displaced.
    return Dipoles(
        _unit(dipoles.direction + step * displaced),
        dipoles.radius,
        _unit(dipoles.orientation + 2 * step * turned),
    )


class SphereHead:
    """Three concentric shells (brain, skull, scalp), solved by MNE.

    Parameters
    ----------
    info : mne.Info
        EEG channels with positions.
    """

    def __init__(self, info: mne.Info) -> None:
        self.info = info

    def leadfield(self, dipoles: Dipoles) -> NDArray:
        """Return volts per ampere-metre, shape (n_channels, n_sources)."""
        positions = _CENTRE + dipoles.radius[:, np.newaxis] * dipoles.direction
        pos = {"rr": positions, "nn": dipoles.orientation}
        # Discrete positions: no mesh, no files of a real head to download.
        src = mne.setup_volume_source_space(pos=pos, verbose="ERROR")
        forward = mne.make_forward_solution(
            self.info,
            trans=None,
            src=src,
            bem=_sphere(),
            meg=False,
            eeg=True,
            verbose="ERROR",
        )
        # MNE gives three orthogonal moments a source, whatever nn says.
        free = forward["sol"]["data"].reshape(len(self.info["ch_names"]), -1, 3)
        return np.einsum("csk,sk->cs", free, dipoles.orientation)


class RandomHead:
    """A random mixing that is smooth in position: no volume conduction physics.

    Parameters
    ----------
    n_channels : int
    rng : Generator
    """

    def __init__(self, n_channels: int, rng: np.random.Generator) -> None:
        self.wave = 1.5 * rng.standard_normal((n_channels, 6))
        self.phase = rng.uniform(0, 2 * np.pi, n_channels)

    def leadfield(self, dipoles: Dipoles) -> NDArray:
        """Return volts per ampere-metre, shape (n_channels, n_sources)."""
        place = np.hstack([dipoles.direction, dipoles.orientation])
        mixing = np.cos(self.wave @ place.T + self.phase[:, np.newaxis])
        return 0.5 * _SCALE * mixing


def make_head(kind: str, info: mne.Info, rng: np.random.Generator) -> Head:
    """Return the head model named `kind`: "sphere" or "random"."""
    if check_option("head", kind, HEADS) == "sphere":
        return SphereHead(info)
    return RandomHead(len(info["ch_names"]), rng)


@functools.cache
def standard_montage() -> mne.channels.DigMontage:
    """Return the 10-05 montage under the name that this MNE gives it."""
    # MNE 1.13 renamed it and warns of the old name.
    new, old = "colin27_1005", "standard_1005"
    names = mne.channels.get_builtin_montages()
    return mne.channels.make_standard_montage(new if new in names else old)


@functools.cache
def _sphere() -> mne.bem.ConductorModel:
    return mne.make_sphere_model(
        r0=tuple(_CENTRE), head_radius=_RADIUS, verbose="ERROR"
    )


def _unit(vectors: NDArray) -> NDArray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
