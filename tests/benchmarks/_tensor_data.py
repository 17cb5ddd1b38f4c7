"""Features of the shared sets for `accuracy_tensor`: tangent vectors and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _original_tsmnet import SETS
from scipy.linalg import eigh
from scipy.signal import butter, sosfiltfilt
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from eegtensor.features import (
    HODA,
    Covariances,
    TangentSpace,
    TimeFrequencyTensor,
    TuckerFeatures,
)
from eegtensor.transfer import DomainStandardScaler, Recenter, SignalAlignment

# EEGMAT's authors cleaned each recording by ICA, and a recording is a class: what one
# lacks, the other has. This set leaves that out.
COMMON = "eegmat_common"
# Groups that share a choice; each person is left out alone in the end.
GROUPS = {"ssvep_exo": 8, "bnci_iv_2b": 5, "eegmat": 6, COMMON: 6}
BANDS = ((4, 8), (8, 12), (12, 16), (16, 20), (20, 24), (24, 30), (30, 36))
EXTRACTORS = {"hoda": HODA, "tucker": TuckerFeatures}


class Tensor(NamedTuple):
    """One way to tensor features; cycles 0 are the front's default windows."""

    extractor: str
    whitened: bool
    cycles: float
    n_freqs: int
    n_bins: int
    ranks: tuple[int, int, int]


_FRONTS = ((0.0, 12, 1), (0.0, 12, 4), (30.0, 12, 1), (30.0, 24, 1))
_RANKS = {"hoda": ((4, 3, 2), (6, 4, 3), (8, 6, 4)), "tucker": ((6, 4, 3), (8, 6, 4))}
TENSORS = [
    Tensor(e, True, *f, r) for e in EXTRACTORS for f in _FRONTS for r in _RANKS[e]
] + [Tensor(e, False, 0.0, 12, 4, (6, 4, 3)) for e in EXTRACTORS]
# Classes weigh alike: the score is balanced accuracy.
DECODERS: dict[str, Any] = {
    f"lr{C:g}": LogisticRegression(C=C, class_weight="balanced", max_iter=2000)
    for C in (0.001, 0.01, 0.1, 1.0)
} | {"lda": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")}


class Data:
    """One set: trials, what is computed of them without labels, groups of people."""

    def __init__(self, name: str, data: Path, cache: Path) -> None:
        self.name, self.cache = name, cache
        source = name.removesuffix("_common")
        self.band = SETS[source][0]["band"]
        cache.mkdir(parents=True, exist_ok=True)
        file = data / f"{source}.npz"
        if file.is_file():
            loaded = dict(np.load(file, allow_pickle=False))
            self.X, self.y = loaded["X"], loaded["y"]
            self.subjects, self.sessions = loaded["subject"], loaded["session"]
            self.sfreq = float(loaded["sfreq"])
            self.channels = loaded["ch_names"].tolist()
        else:
            from eegtensor import read_trials

            trials = read_trials(data / source, **SETS[source][0])
            self.X, self.y = np.asarray(trials.X), np.asarray(trials.y).astype(str)
            meta = trials.metadata
            self.subjects, self.sessions = (
                meta[key].to_numpy().astype(str) for key in ("subject", "session")
            )
            self.sfreq = float(trials.info["sfreq"])
            self.channels = list(trials.info["ch_names"])
        if name == COMMON:
            self.X = common_part(self.X, self.subjects, self.y)
        self.domains = {"subjects": self.subjects, "sessions": self.sessions}
        self.people = np.unique(self.subjects)
        self.groups = np.array_split(self.people, GROUPS[name])

    def kept(self, what: str, compute: Any) -> np.ndarray:
        """Return an array of all trials, from the cache where it is there.

        A domain's statistics come of its own unlabelled trials alone, so that what
        is computed for all domains at once is what a fold computes.
        """
        file = self.cache / f"{self.name}_{what}.npy"
        if not file.exists():
            np.save(file, compute().astype(np.float32))
        return np.asarray(np.load(file), dtype=np.float64)

    def tangents(self, bank: bool) -> np.ndarray:
        return self.kept("bank" if bank else "tangent", lambda: self._tangents(bank))

    def _tangents(self, bank: bool) -> np.ndarray:
        X = np.asarray(self.X, dtype=np.float64)
        signals: Any = [X]
        if bank:
            sos = [butter(4, b, "band", fs=self.sfreq, output="sos") for b in BANDS]
            signals = (sosfiltfilt(s, X, axis=-1) for s in sos)
        parts = []
        for signal in signals:
            C = Covariances("oas").fit_transform(signal)
            C = Recenter().fit_transform(C, **self.domains)
            parts.append(TangentSpace(reference="identity").fit_transform(C))
        return np.concatenate(parts, axis=1)

    def front(self, choice: Tensor) -> TimeFrequencyTensor:
        low, high = self.band
        sizes = choice.n_freqs, choice.n_bins
        cycles = choice.cycles or None
        return TimeFrequencyTensor(self.sfreq, low, high, *sizes, n_cycles=cycles)

    def power(self, choice: Tensor) -> np.ndarray:
        what = f"power_{choice.whitened:d}_{choice.cycles:g}_{choice.n_freqs}"
        return self.kept(f"{what}_{choice.n_bins}", lambda: self._power(choice))

    def _power(self, choice: Tensor) -> np.ndarray:
        X = np.asarray(self.X, dtype=np.float64)
        if choice.whitened:
            whiten = SignalAlignment("affine-invariant")
            X = whiten.fit_transform(X, **self.domains)
        power: np.ndarray = self.front(choice).fit_transform(X)
        return power

    def tensor_features(self, choice: Tensor, train: np.ndarray) -> np.ndarray:
        P = self.power(choice)
        ranks = tuple(min(r, d) for r, d in zip(choice.ranks, P.shape[1:], strict=True))
        extractor = EXTRACTORS[choice.extractor](ranks).fit(P[train], self.y[train])
        scale = DomainStandardScaler()
        scaled: np.ndarray = scale.fit_transform(extractor.transform(P), **self.domains)
        return scaled

    def features(self, name: str, train: np.ndarray) -> np.ndarray:
        """Return the features of all trials, by a name of `method`."""
        kind, _, rest = name.partition(" ")
        if kind in ("tangent", "bank"):
            T = self.tangents(kind == "bank")
            return StandardScaler().fit(T[train]).transform(T)
        F = self.tensor_features(parse(rest), train)
        if kind == "tensor":
            return F
        T = self.features("bank" if kind == "bank+tensor" else "tangent", train)
        # Two blocks of the same total variance.
        half = (T.shape[1] + F.shape[1]) / 2
        blocks = [T * np.sqrt(half / T.shape[1]), F * np.sqrt(half / F.shape[1])]
        return np.concatenate(blocks, axis=1)

    def scores(self, name: str, out: np.ndarray, decoder: str | None) -> dict[str, Any]:
        """Return scores of the people left out, for one decoder or all."""
        train = ~np.isin(self.subjects, out)
        F = self.features(name, train)
        result: dict[str, Any] = {}
        for key in [decoder] if decoder else DECODERS:
            model = DECODERS[key]
            if key == "lda":
                n_classes = len(np.unique(self.y))
                model.set_params(priors=np.full(n_classes, 1 / n_classes))
            model.fit(F[train], self.y[train])
            result[key] = {}
            for p in out:
                here = self.subjects == p
                said = model.predict(F[here])
                value = balanced_accuracy_score(self.y[here], said)
                result[key][str(p)] = round(float(value), 5)
        return result


def common_part(X: np.ndarray, people: np.ndarray, files: np.ndarray) -> np.ndarray:
    """Return signals without sources 30 times stronger in one file of a person.

    Sources are those that diagonalise the two files' covariances; a source taken
    away is taken from both. White noise at -30 dB fills what is then empty.
    """
    out = np.array(X, dtype=np.float64)
    random = np.random.default_rng(0)
    for person in np.unique(people):
        a, b = (
            np.mean([x @ x.T for x in out[(people == person) & (files == f)]], axis=0)
            for f in np.unique(files)
        )
        level = np.trace(a + b) / len(a)
        ridge = 1e-10 * level * np.eye(len(a))
        ratio, W = eigh(a + ridge, b + ridge)
        sources = np.abs(np.log(ratio)) > np.log(30)
        A = np.linalg.inv(W).T
        here = people == person
        out[here] -= A[:, sources] @ (W[:, sources].T @ out[here])
        spread = 10**-1.5 * np.sqrt(np.mean(out[here] ** 2))
        out[here] += spread * random.standard_normal(out[here].shape)
        print(f"  person {person}: {sources.sum()} sources left out")
    return out


def parse(text: str) -> Tensor:
    return next(t for t in TENSORS if label(t) == text)


def label(choice: Tensor) -> str:
    windows = f"{choice.cycles:g} cycles" if choice.cycles else "0.5 s windows"
    white = "whitened" if choice.whitened else "as they are"
    ranks = "x".join(map(str, choice.ranks))
    return (
        f"{choice.extractor}, signals {white}, {windows}, {choice.n_freqs} frequencies,"
        f" {choice.n_bins} bins, ranks {ranks}"
    )
