"""The rate-distortion curve of a kind of tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eegtensor._check import fail
from eegtensor.tokens.evaluate import evaluate_fills
from eegtensor.tokens.tokenizer import EEGTokenizer

if TYPE_CHECKING:
    import pandas as pd


def rate_distortion(
    kind: str,
    train: Any,
    test: Any,
    rates: Sequence[float] = (13, 26, 52, 104, 208, 416),
    *,
    fills: Sequence[float] = (0.0,),
    sfreq: float = 200.0,
    **options: Any,
) -> pd.DataFrame:
    """Fit a kind at several rates, and return what each loses on other recordings.

    Parameters
    ----------
    kind : str
        See `EEGTokenizer`.
    train, test : recording or list of recordings
        Arrays (n_channels, n_times), MNE's Raw, or paths.
    rates : sequence of float
        Bits a second and channel.
    fills : sequence of float
        See `EEGTokenizer.decode`; one row each.
    sfreq : float
        Hertz, of arrays.
    **options
        Of `EEGTokenizer`, such as ``spatial=True``.

    Returns
    -------
    table : pandas.DataFrame
        One row a rate and fill: the kind and options, the rate that was asked for
        and the one that was spent, errors over all and by band.
    """
    import pandas as pd

    if not len(rates) or not len(fills):
        fail("there are no rates or no fills", fix="give at least one of both")
    rows = []
    for rate in rates:
        made = EEGTokenizer(kind, bits_per_second=rate, **options)
        made.fit(train, sfreq=sfreq)
        for fill, found in zip(
            fills, evaluate_fills(made, test, fills, sfreq=sfreq), strict=True
        ):
            rows.append(
                {"kind": kind, **options, "asked": rate, "fill": fill} | found.row()
            )
    return pd.DataFrame(rows)
