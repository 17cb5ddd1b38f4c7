"""`TrustCard`: what was measured of one pipeline, as a record that is kept."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eegtensor._check import fail
from eegtensor.lifelong import Audit
from eegtensor.store import replace_text

_FRAMES = ("robustness", "calibration", "rejection", "certificate")


@dataclass
class TrustCard:
    """What can be relied on in one pipeline, for people it never met.

    Attributes
    ----------
    pipeline : str
    people : tuple of str
        Left out one by one; the decoder adapted to each without labels.
    robustness : DataFrame | None
        By eps: accuracy under PGD (mean over people), linf, l2, snr_db.
    calibration : DataFrame | None
        A row for each trial: person, confidence, correct, and "after", the confidence
        once a temperature was fitted to the other people's trials.
    ece : dict
        Expected calibration error "before" and "after".
    rejection : DataFrame | None
        A row for each trial: person, familiarity, confidence, correct.
    scorer : str
        Of familiarity.
    certificate : DataFrame | None
        A row for each certified trial: radius, linf, snr_db, correct.
    sigma : float
        Noise of the certificate, standard deviations of each channel.
    audit : Audit | None
        Of one person of the source who withdrew.
    seconds_retrained : float
        What training without that person took.
    missing : dict
        Why a part is not there.
    """

    pipeline: str
    people: tuple[str, ...]
    robustness: pd.DataFrame | None = None
    calibration: pd.DataFrame | None = None
    ece: dict[str, float] = field(default_factory=dict)
    rejection: pd.DataFrame | None = None
    scorer: str = ""
    certificate: pd.DataFrame | None = None
    sigma: float = 0.0
    audit: Audit | None = None
    seconds_retrained: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the content in dicts, lists, strings and numbers."""
        content = {
            name: value.to_dict("list") if isinstance(value, pd.DataFrame) else value
            for name, value in vars(self).items()
        }
        content["people"] = list(self.people)
        content["audit"] = None if self.audit is None else self.audit.to_dict()
        return content

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Infinity, the ratio of a trial to no perturbation, is no JSON: null.
        text = json.dumps(self.to_dict(), default=lambda value: value.item())
        content = json.loads(text, parse_constant=lambda _: None)
        replace_text(target, json.dumps(content, indent=1) + "\n")
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrustCard:
        """Return what `save` wrote.

        Raises
        ------
        EEGTensorError
            If it is missing or damaged.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            content["people"] = tuple(content["people"])
            for name in _FRAMES:
                if content[name] is not None:
                    frame = pd.DataFrame(content[name])
                    if "snr_db" in frame:
                        frame["snr_db"] = frame["snr_db"].astype(float).fillna(np.inf)
                    content[name] = frame
            if content["audit"] is not None:
                content["audit"] = Audit.from_dict(content["audit"])
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            fail(
                f"{path} holds no trust card: {error}",
                fix="name a file that TrustCard.save wrote",
                cause=error,
            )
