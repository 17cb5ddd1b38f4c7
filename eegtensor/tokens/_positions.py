"""From the names of channels to what a network is told of their places."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_option, fail
from eegtensor.nn.positions import N_FEATURES, electrode_features

UNITS = ("channels", "components")
# Names of older systems, and what is written around names in many files.
_PREFIXES, _REFERENCES = ("EEG ",), ("-REF", "-LE", "-AVG", "-A1A2", "-CAR", "-M1M2")


class Places(NamedTuple):
    """Where the units of a recording are.

    Attributes
    ----------
    features : ndarray of float32, shape (n_units, 23)
        See `electrode_features`; zeros of units without a place.
    number : ndarray of int64, shape (n_units,)
        The number of a unit without a place, else -1.
    """

    features: NDArray
    number: NDArray


def places_of(
    ch_names: Sequence[str],
    n_units: int,
    *,
    units: str = "channels",
    coordinates: Mapping[str, ArrayLike] | None = None,
) -> Places:
    """Return the places of channels, by their names.

    Parameters
    ----------
    ch_names : sequence of str
        Empty where unknown.
    n_units : int
    units : "channels" | "components"
        Components have no place.
    coordinates : mapping of str to array, shape (3,) | None
        Metres in MNE's head frame, for names beyond the 10-05 system or instead
        of its places.
    """
    check_option("units", units, UNITS)
    found = np.full((n_units, 3), np.nan)
    if units == "channels" and ch_names:
        if len(ch_names) != n_units:
            fail(
                f"{len(ch_names)} channel names for {n_units} units",
                fix="give units='components' where a spatial tokenizer coded them",
            )
        given = {} if coordinates is None else coordinates
        standard, centre = _standard()
        for i, name in enumerate(ch_names):
            if name in given:
                found[i] = np.asarray(given[name], dtype=np.float64) - centre
            else:
                found[i] = standard.get(_plain(name), found[i])
    features = electrode_features(found).astype(np.float32)
    known = np.isfinite(found).all(axis=1)
    assert features.shape == (n_units, N_FEATURES)
    return Places(features, np.where(known, -1, np.arange(n_units)))


def as_coordinates(
    coordinates: Mapping[str, Any] | None,
) -> dict[str, list[float]] | None:
    """Return coordinates as plain numbers, checked.

    Raises
    ------
    EEGTensorError
        If a place is not three finite numbers.
    """
    if coordinates is None:
        return None
    plain = {}
    for name, place in coordinates.items():
        values = np.asarray(place, dtype=np.float64)
        if values.shape != (3,) or not np.isfinite(values).all():
            fail(
                f"coordinates[{name!r}] is {place!r}",
                fix="give x, y and z in metres, of MNE's head frame",
            )
        plain[str(name)] = values.tolist()
    return plain


def _plain(name: str) -> str:
    text = name.strip().upper().rstrip(".")
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    for reference in _REFERENCES:
        text = text.removesuffix(reference)
    return text


@functools.cache
def _standard() -> tuple[dict[str, NDArray], NDArray]:
    """Return places of the 10-05 system from the centre of its sphere, and that."""
    # MNE is asked for where there are names alone.
    from eegtensor.io.montage import standard_positions

    positions = standard_positions()
    points = np.stack(list(positions.values()))
    # |p|^2 = 2 p.c + (r^2 - |c|^2) on a sphere: linear in its centre c.
    rows = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    centre = np.linalg.lstsq(rows, (points**2).sum(axis=1), rcond=None)[0][:3]
    return {n.upper(): p - centre for n, p in positions.items()}, centre
