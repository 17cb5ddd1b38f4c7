"""What tells classes apart: sources whose power differs, and their patterns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mne
import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.benchmark.maps import Sample
from eegtensor.geometry import congruence, frechet_mean, inv_sqrtm, sqrtm
from eegtensor.geometry.spectral import eigh


@dataclass(frozen=True)
class Pattern:
    """A source whose power differs between a class and another, or the rest.

    Attributes
    ----------
    values : ndarray, shape (n_channels_of_the_band,)
        Weight of the source at each channel; the largest magnitude is 1.
    channels : ndarray of int
        Their places among all channels.
    band : str
        Filter band, "" where channels name none.
    decibel : float
        Power in the class over power in the other, in the sampled trials.
    unseen : float
        The same, found on all people but one and measured on that one: mean
        over people; NaN with fewer than three people.
    n_agree, n_people : int
        People left out in whom the sign is the same.
    share : float
        Part in what a network's decision goes with; NaN for patterns of data.
    """

    values: NDArray
    channels: NDArray
    band: str
    decibel: float
    unseen: float
    n_agree: int
    n_people: int
    share: float = float("nan")


def class_patterns(
    sample: Sample, *, n_patterns: int = 4
) -> dict[tuple[str, str], list[Pattern]]:
    """Return the sources that tell classes apart, strongest first.

    Every domain is moved to the mean of all; the eigenvectors of the class
    means' ratio, which is where the geodesic between them leads, are spatial
    filters w of power ratio lambda [1]_, and C w are their patterns [2]_.

    Parameters
    ----------
    sample : Sample
    n_patterns : int
        Number for each contrast, over all bands.

    Returns
    -------
    dict of (class, other) to list of Pattern
        One contrast for two classes, else each class against "the others".

    References
    ----------
    .. [1] Blankertz et al., Optimizing spatial filters for robust EEG
       single-trial analysis, IEEE Signal Process. Mag. 25, 2008.
    .. [2] Haufe et al., On the interpretation of weight vectors of linear models
       in multivariate neuroimaging, NeuroImage 87, 2014.
    """
    pairs = contrasts_of(sample)
    found: dict[tuple[str, str], list[Pattern]] = {pair: [] for pair in pairs}
    for band in bands_of(sample):
        for pair in pairs:
            found[pair] += _contrast(band, pair, n_patterns)
    return {
        pair: sorted(patterns, key=lambda p: -abs(p.decibel))[:n_patterns]
        for pair, patterns in found.items()
    }


def contrasts_of(sample: Sample) -> list[tuple[str, str]]:
    """Return which class is compared with what: the second with the first of two.

    Raises
    ------
    EEGTensorError
        If there is one class.
    """
    classes = np.unique(sample.labels).tolist()
    if len(classes) < 2:
        fail("The trials have one class", fix="give trials of two classes or more")
    if len(classes) == 2:
        return [(classes[1], classes[0])]
    return [(c, "the others") for c in classes]


@dataclass(frozen=True)
class Band:
    """Class means of one filter band, every domain moved to the mean of all.

    Attributes
    ----------
    name : str
    basis : ndarray, shape (n_channels, n)
        Spatial components as columns, see `Sample`.
    channels : ndarray of int
        Those that the components concern.
    classes : list of str
    means : ndarray, shape (n_people, n_classes, n, n)
        NaN where a person has no trials of a class.
    """

    name: str
    basis: NDArray
    channels: NDArray
    classes: list[str]
    means: NDArray

    def sides(self, pair: tuple[str, str]) -> tuple[NDArray, NDArray, NDArray]:
        """Return people who have both sides of a contrast, and both of each.

        Returns
        -------
        people : ndarray of int, shape (n_known,)
        a, b : ndarray, shape (n_known, n, n)
        """
        a = self.means[:, self.classes.index(pair[0])]
        others = [i for i, c in enumerate(self.classes) if c != pair[0]]
        b = self.means[:, others].mean(axis=1)
        known = np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2))
        return np.flatnonzero(known), a[known], b[known]


def bands_of(sample: Sample) -> Iterator[Band]:
    """Yield the class means of every band; people are in sorted order."""
    people, classes = np.unique(sample.subjects), np.unique(sample.labels).tolist()
    for name in dict.fromkeys(sample.bands.tolist()):
        here = np.flatnonzero(sample.bands == name)
        means = _class_means(_moved_to_pooled(sample, here), sample, people, classes)
        basis = sample.basis[:, here]
        channels = np.flatnonzero(np.abs(basis).sum(axis=1) > 0)
        yield Band(name, basis, channels, classes, means)


def _moved_to_pooled(sample: Sample, here: NDArray) -> NDArray:
    """Return covariances of one band with every domain's mean at the pooled mean."""
    if len(here) == sample.C.shape[-1]:
        recentred, means = sample.recentred, sample.recenter.statistics_
    else:
        C = sample.C[:, here[:, np.newaxis], here]
        means = frechet_mean(C, segments=sample.codes, tol=1e-4)
        recentred = congruence(inv_sqrtm(means)[sample.codes], C)
    return congruence(sqrtm(frechet_mean(means, tol=1e-4)), recentred)


def _class_means(
    C: NDArray, sample: Sample, people: NDArray, classes: list[str]
) -> NDArray:
    """Return means of shape (n_people, n_classes, n, n), NaN where there is none."""
    means = np.full((len(people), len(classes), *C.shape[1:]), np.nan)
    for i, person in enumerate(people):
        for k, name in enumerate(classes):
            here = (sample.subjects == person) & (sample.labels == name)
            if here.any():
                means[i, k] = C[here].mean(axis=0)
    return means


def _contrast(band: Band, pair: tuple[str, str], n_patterns: int) -> list[Pattern]:
    _, a, b = band.sides(pair)
    if not len(a):
        return []
    ratios, filters = _ratios(a.mean(axis=0), b.mean(axis=0))
    n_people = len(a)
    unseen = np.full((n_people, len(ratios)), np.nan)
    # With two people the filters would come from one.
    if n_people >= 3:
        for i in range(n_people):
            rest = np.arange(n_people) != i
            # Sources are paired by the rank of their ratio, not by their shape.
            w = _ratios(a[rest].mean(axis=0), b[rest].mean(axis=0))[1]
            unseen[i] = decibels(a[i], b[i], w)
    patterns = []
    for k in np.argsort(-np.abs(ratios), kind="stable")[:n_patterns]:
        # The covariance turns a filter into the pattern of its source [2]_.
        values = band.basis @ (b.mean(axis=0) @ filters[:, k])
        agree = np.sign(unseen[:, k]) == np.sign(ratios[k])
        patterns.append(
            Pattern(
                largest_is_one(values[band.channels]),
                band.channels,
                band.name,
                float(ratios[k]),
                float(unseen[:, k].mean()),
                int(agree.sum()),
                n_people if n_people >= 3 else 0,
            )
        )
    return patterns


def decibels(a: NDArray, b: NDArray, filters: NDArray) -> NDArray:
    """Return the power of spatial filters, as columns, in a over b."""
    power = [np.einsum("ij,ik,jk->k", C, filters, filters) for C in (a, b)]
    return 10 * np.log10(power[0] / power[1])


def largest_is_one(values: NDArray) -> NDArray:
    """Return weights over the largest one in magnitude."""
    return values / values[np.abs(values).argmax()]


def _ratios(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
    """Return power ratios a over b in decibels, ascending, and their filters."""
    whitener = inv_sqrtm(b)
    values, vectors = eigh(congruence(whitener, a))
    return 10 * np.log10(values), whitener @ vectors


def scalp_positions(info: mne.Info, channels: NDArray) -> NDArray | None:
    """Return whether channels can be drawn on a scalp: their (n, 3) metres.

    Parameters
    ----------
    info : Info
    channels : ndarray of int

    Returns
    -------
    ndarray | None
        None unless at least six channels, all of them EEG, lie at places of
        their own on something of the size of a head.
    """
    kinds = {mne.channel_type(info, int(c)) for c in channels}
    places = np.asarray([info["chs"][int(c)]["loc"][:3] for c in channels])
    if len(channels) < 6 or kinds != {"eeg"} or not np.isfinite(places).all():
        return None
    # Some files hold millimetres where metres belong.
    size = float(np.median(np.linalg.norm(places, axis=1)))
    places = places / 1000 if 30 < size < 300 else places
    apart = len(np.unique(np.round(places, 4), axis=0)) == len(places)
    plausible = 0.03 < np.median(np.linalg.norm(places, axis=1)) < 0.3
    return places if apart and plausible else None
