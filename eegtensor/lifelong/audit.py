"""What forgetting changed: four axes, membership inference, and a page to keep."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score

from eegtensor._check import fail
from eegtensor.lifelong.known import Known, adapted, call
from eegtensor.lifelong.membership import (
    Membership,
    class_places,
    confidences,
    membership_inference,
)
from eegtensor.training.files import written_whole

AXES = ("general", "new", "forgetting", "transfer")
_TITLES = {
    "general": "general ability (people kept, trials never trained on)",
    "new": "new task (learned last)",
    "forgetting": "forgetting (people gone, trials never trained on)",
    "transfer": "transfer (people never met, after adapting)",
}


@dataclass(frozen=True)
class Audit:
    """The report on a decoder that forgot people.

    Attributes
    ----------
    people : tuple of str
    method : str
    n_trials : int
        Forgotten.
    seconds : float
    exact : bool
        Whether the result is that of training without them.
    accuracy : dict
        Balanced accuracy by axis ("general", "new", "forgetting", "transfer") and by
        decoder ("before", "after", "retrained"); axes without trials are not there.
    membership : dict
        By decoder, of an attacker who takes it as it is ("as it stands") and who
        first adapts it to the person's unlabelled trials ("adapted").
    """

    people: tuple[str, ...]
    method: str
    n_trials: int
    seconds: float
    exact: bool
    accuracy: dict[str, dict[str, float]]
    membership: dict[str, dict[str, Membership]]

    def to_dict(self) -> dict[str, Any]:
        """Return the content in dicts, lists, strings and numbers."""
        content = asdict(self)
        content["people"] = list(self.people)
        content["membership"] = {
            way: {name: found._asdict() for name, found in rows.items()}
            for way, rows in self.membership.items()
        }
        return content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON."""
        text = json.dumps(self.to_dict(), indent=1, sort_keys=True) + "\n"
        with written_whole(Path(path)) as scratch:
            scratch.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Audit:
        """Return what `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Audit:
        """Return what `to_dict` returned."""
        membership = {
            way: {name: Membership(**found) for name, found in rows.items()}
            for way, rows in content["membership"].items()
        }
        own = {"people": tuple(content["people"]), "membership": membership}
        return cls(**content | own)

    def __str__(self) -> str:
        """Return a page of text."""
        who = ", ".join(self.people)
        lines = [
            f"Forgetting {who}: {self.n_trials} trials, {self.method} "
            f"({'exact' if self.exact else 'approximate'}), {self.seconds:.2f} s",
        ]
        for axis, row in self.accuracy.items():
            lines.append(f"  {_TITLES[axis]}")
            cells = [f"{name} {value:.3f}" for name, value in row.items()]
            lines.append("    balanced accuracy: " + ", ".join(cells))
        for way, rows in self.membership.items():
            lines.append(f"  membership inference, decoder {way}")
            cells = [
                f"{name} {m.auc:.3f} ({m.low:.2f}-{m.high:.2f})"
                for name, m in rows.items()
            ]
            lines.append("    AUC: " + ", ".join(cells))
        if not self.membership:
            why = "no trials of theirs that were not trained on, or no probabilities"
            lines.append(f"  membership inference: {why}")
        return "\n".join(lines)


def audit_forgetting(
    before: Any,
    after: Any,
    people: Sequence[str],
    members: Known,
    *,
    holdout: Known | tuple[Any, ...] | None = None,
    new: Known | tuple[Any, ...] | None = None,
    transfer: Known | tuple[Any, ...] | None = None,
    retrained: Any = None,
    method: str = "",
    seconds: float = 0.0,
    random_state: int = 0,
) -> Audit:
    """Compare a decoder before and after it forgot people.

    Parameters
    ----------
    before, after : classifier
    people : sequence of str
        Forgotten.
    members : Known
        Their trials that were trained on.
    holdout, new, transfer : Known | tuple (X, y[, subjects[, sessions]]) | None
        See `forget`.
    retrained : classifier | None
    method : str
    seconds : float
    random_state : int

    Raises
    ------
    EEGTensorError
        If the holdout does not say whose its trials are.
    """
    decoders = {"before": before, "after": after, "retrained": retrained}
    decoders = {name: d for name, d in decoders.items() if d is not None}
    sets: dict[str, Known] = {}
    others: Known | None = None
    if holdout is not None:
        held = Known(*holdout)
        if held.subjects is None:
            fail("holdout comes without subjects", fix="say whose trials these are")
        theirs = np.isin(np.asarray(held.subjects).astype(str), list(people))
        if not theirs.all():
            sets["general"] = held.pick(~theirs)
        others = held.pick(theirs) if theirs.any() else None
    if new is not None:
        sets["new"] = Known(*new)
    if others is not None:
        sets["forgetting"] = others
    if transfer is not None:
        sets["transfer"] = Known(*transfer)
    accuracy = {
        axis: {
            name: _score(
                adapted(d, sets[axis]) if axis == "transfer" else d, sets[axis]
            )
            for name, d in decoders.items()
        }
        for axis in AXES
        if axis in sets
    }
    membership: dict[str, dict[str, Membership]] = {}
    if others is not None and hasattr(after, "predict_proba"):
        ways: list[tuple[str, Callable[[Any], Any]]] = [("as it stands", lambda d: d)]
        if getattr(after, "can_adapt", hasattr(after, "adapt")):
            both = _both(members, others)
            ways.append(("adapted", lambda d: adapted(d, both)))
        for way, prepare in ways:
            membership[way] = {
                name: attack(prepare(d), members, others, random_state=random_state)
                for name, d in decoders.items()
            }
    return Audit(
        people=tuple(people),
        method=method,
        n_trials=len(members.X),
        seconds=seconds,
        exact=method in ("sums", "refit"),
        accuracy=accuracy,
        membership=membership,
    )


def attack(
    estimator: Any, members: Known, others: Known, *, random_state: int = 0
) -> Membership:
    """Return `membership_inference` of a fitted classifier.

    Parameters
    ----------
    estimator : classifier
        With `predict_proba` and `classes_`.
    members, others : Known
        Trials that were trained on, and trials of the same people that were not.
    random_state : int
    """
    found, classes = [], []
    for trials in (members, others):
        codes = class_places(estimator, trials.y)
        p = call(estimator, "predict_proba", trials)
        found.append(confidences(p, codes))
        classes.append(codes)
    return membership_inference(
        found[0],
        found[1],
        member_classes=classes[0],
        other_classes=classes[1],
        random_state=random_state,
    )


def _score(estimator: Any, trials: Known) -> float:
    guess = call(estimator, "predict", trials)
    return float(balanced_accuracy_score(np.asarray(trials.y), guess))


def _both(first: Known, second: Known) -> Known:
    joined: list[Any] = [
        None if a is None or b is None else np.concatenate([a, b])
        for a, b in zip(first, second, strict=True)
    ]
    return Known(*joined)
