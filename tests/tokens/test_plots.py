"""Pictures of tokens: what is drawn is what was measured."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor.tokens import (
    EEGTokenizer,
    Tokens,
    evaluate,
    plot_codes,
    plot_rate_distortion,
    plot_reconstruction,
    plot_usage,
)

SFREQ = 200.0


def drawn(figure: Figure) -> str:
    """Draw; return all words. Nothing may overlap so that the layout gives up."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    words = [
        t.get_text() for t in figure.findobj(match=lambda a: hasattr(a, "get_text"))
    ]
    return "\n".join(words)


@pytest.fixture(scope="module")
def signal() -> NDArray:
    return falling(0)


def falling(seed: int) -> NDArray:
    """Return a minute of three channels of a falling spectrum."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, 60 * 200))
    f = np.fft.rfftfreq(x.shape[1], 1 / SFREQ)
    return np.fft.irfft(np.fft.rfft(x) / np.maximum(f, 1) * (f < 44), x.shape[1])


@pytest.fixture(scope="module")
def made(signal: NDArray) -> EEGTokenizer:
    return EEGTokenizer(bits_per_second=40, n_states=4).fit(signal, sfreq=SFREQ)


def test_reconstruction(made: EEGTokenizer, signal: NDArray) -> None:
    x = 1e-5 * signal[:, : 200 * 20]
    figure = plot_reconstruction(made, x, sfreq=SFREQ, start=2, seconds=3, channels=2)
    words = drawn(figure)
    left, right = figure.axes
    assert len(left.lines) == 4 and left.get_xlabel() == "seconds"
    assert left.get_xlim() == pytest.approx((2, 5), abs=0.01)
    for word in ("recording", "from its tokens", "channel", "gamma", "30\u201345 Hz"):
        assert word in words
    error = [bar.get_width() for bar in right.patches]
    plain = evaluate(made, [x])
    # The ends, which ring, are left out of the picture.
    assert error == pytest.approx(list(plain.nmse.values()), rel=0.2)
    truth, rebuilt = (line.get_ydata() for line in left.lines[:2])
    share = np.sqrt(np.mean((truth - rebuilt) ** 2) / np.var(truth))
    assert 0 < share < 2 * plain.nrmse
    with pytest.raises(EEGTensorError, match="start=50"):
        plot_reconstruction(made, x, sfreq=SFREQ, start=50)


def test_rate_distortion() -> None:
    rates = [13, 52, 208]
    tables = [
        pd.DataFrame(
            {
                "kind": kind,
                "spatial": False,
                "asked": rates,
                "fill": fill,
                "bits_per_second": rates,
                "nrmse": [0.8, 0.5, 0.3],
                "power_db": [5.0, 4.0, 3.0],
                "nmse_delta": 0.1,
            }
        )
        for kind in ("band-rvq", "learned")
        for fill in (0.0, 0.7)
    ]
    figure = plot_rate_distortion(pd.concat(tables))
    words = drawn(figure)
    for word in ("band-rvq, fill 0.0", "learned, fill 0.7", "NRMSE", "dB", "208"):
        assert word in words
    assert "spatial" not in words
    left = figure.axes[0]
    assert len(left.lines) == 4
    assert left.lines[0].get_xdata().tolist() == rates
    assert len({line.get_color() for line in left.lines}) == 4
    assert len({line.get_marker() for line in left.lines}) == 4
    with pytest.raises(EEGTensorError, match="no columns"):
        plot_rate_distortion(tables[0][["kind", "nrmse"]])


def test_usage(made: EEGTokenizer, signal: NDArray) -> None:
    tokens = made.encode(signal)
    figure = plot_usage(tokens, made)
    words = drawn(figure)
    assert "state" in words and "2\u20134 Hz" in words and "perplexity" in words
    above, below = figure.axes
    ids = tokens.ids.reshape(-1, tokens.ids.shape[-1])
    sent = (ids >= 0).mean(axis=0)
    assert [b.get_height() for b in above.patches] == pytest.approx(
        100 * sent[sent > 0]
    )
    occur = [len(set(s[s >= 0])) for s in ids.T if (s >= 0).any()]
    assert below.lines[0].get_ydata().tolist() == occur
    assert (below.lines[1].get_ydata() <= np.array(occur) + 1e-9).all()
    assert "slots" in drawn(plot_usage(tokens))


def test_even_and_uneven_use() -> None:
    ids = np.zeros((1, 64, 2), dtype=np.int32)
    ids[0, :, 0] = np.arange(64) % 8
    tokens = Tokens(ids, np.ones(1), SFREQ, (), 64 * 200, np.array([8, 8]))
    below = plot_usage(tokens).axes[1]
    assert below.lines[1].get_ydata() == pytest.approx([8.0, 1.0])


def test_codes(made: EEGTokenizer) -> None:
    tokens = made.encode(np.stack([1e-6 * falling(k) for k in range(8)]))
    figure = plot_codes(made, tokens, n_codes=2)
    words = drawn(figure)
    assert "code " in words and "seconds" in words and "Hz" in words
    curves = [(a.get_title(), a.lines[1]) for a in figure.axes if len(a.lines) == 2]
    assert len(curves) >= 4
    row = next(a for a in figure.axes if a.get_ylabel() == "2\u20134 Hz")
    code = int(row.get_title().split()[1].rstrip(":"))
    said = tokens.ids[..., _first_slot(made, 1)]
    found, count = np.unique(said[said >= 0], return_counts=True)
    assert count[found == code] == count.max()
    # A code of this band has its energy there, whatever the unit.
    power = np.abs(np.fft.rfft(row.lines[1].get_ydata())) ** 2
    assert power[1:6].sum() > 0.9 * power.sum()
    assert 0.05 < np.abs(row.lines[1].get_ydata()).max() < 20


def _first_slot(made: EEGTokenizer, band: int) -> int:
    """Return the slot of a band's first level."""
    return 1 + band * made.codec_.bands.n_levels


def test_codes_of_too_few_seconds(made: EEGTokenizer, signal: NDArray) -> None:
    with pytest.raises(EEGTensorError, match="no code occurs"):
        plot_codes(made, made.encode(signal[:1, :400]))


def test_codes_of_components(signal: NDArray) -> None:
    made = EEGTokenizer(bits_per_second=12, spatial=True, n_states=0)
    made.fit(signal, sfreq=SFREQ)
    with pytest.raises(EEGTensorError, match="is spatial"):
        plot_codes(made, made.encode(signal))
