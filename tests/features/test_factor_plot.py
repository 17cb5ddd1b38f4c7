"""Drawn factors: what is on the page, and what cannot be drawn."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from eegtensor import EEGTensorError
from eegtensor.features import CPFeatures, TuckerFeatures, plot_factors


@pytest.fixture(scope="module")
def fitted() -> CPFeatures:
    X = np.random.default_rng(0).standard_normal((30, 4, 6, 8))
    return CPFeatures(3).fit(X)


def info() -> mne.Info:
    made = mne.create_info(["Fz", "Cz", "Pz", "Oz"], 100.0, "eeg")
    made.set_montage("standard_1020")
    return made


def test_a_row_for_each_component(fitted) -> None:
    freqs, times = np.arange(4, 10), np.arange(8) / 10
    figure = plot_factors(
        fitted, info=info(), freqs=freqs, times=times, replicability=[0.9, 0.5, 0.1]
    )
    figure.canvas.draw()
    assert len(figure.axes) == 9
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert any("match 0.90" in word for word in words)
    shares = [float(w.split()[1]) for w in words if "%" in w]
    assert sum(shares) == pytest.approx(100, abs=2)
    spectrum = figure.axes[1].lines[0]
    np.testing.assert_array_equal(spectrum.get_xdata(), freqs)
    np.testing.assert_array_equal(spectrum.get_ydata(), fitted.factors_[1][:, 0])


def test_without_positions_bars(fitted) -> None:
    figure = plot_factors(fitted, n_components=2)
    assert len(figure.axes) == 6
    assert len(figure.axes[0].patches) == 4


def test_what_cannot_be_drawn_says_so(fitted) -> None:
    X = np.random.default_rng(0).standard_normal((10, 4, 6))
    with pytest.raises(EEGTensorError, match="do not belong together"):
        plot_factors(TuckerFeatures((2, 3)).fit(X))
    with pytest.raises(EEGTensorError, match="name each axis"):
        plot_factors(fitted, axes=("channel", "time"))
    with pytest.raises(EEGTensorError, match="axes='place'"):
        plot_factors(fitted, axes=("place", "frequency", "time"))
    with pytest.raises(EEGTensorError, match="one value for each entry"):
        plot_factors(fitted, freqs=[1.0, 2.0])
    small = mne.create_info(["Fz", "Cz"], 100.0, "eeg")
    small.set_montage("standard_1020")
    with pytest.raises(EEGTensorError, match="4 channels, info has 2"):
        plot_factors(fitted, info=small)


@pytest.mark.parametrize(
    ("names", "mapped"),
    [
        (["O1", "Oz", "O2", "PO3", "POz", "PO4"], False),
        (["Fz", "FCz", "Cz", "CPz", "Pz", "POz"], False),
        (["Fp1", "Fp2", "C3", "C4", "O1", "O2"], True),
        (["C3", "C4", "FC1", "FC2", "P3", "P4"], True),
    ],
)
def test_no_map_is_made_up_from_electrodes_of_one_place(names, mapped) -> None:
    X = np.random.default_rng(0).standard_normal((30, 6, 5))
    made = mne.create_info(names, 100.0, "eeg")
    made.set_montage("standard_1020")
    figure = plot_factors(CPFeatures(2).fit(X), info=made)
    where = figure.axes[::2]
    assert all(bool(axis.images) == mapped for axis in where)
    assert all(bool(axis.patches) != mapped for axis in where)
    said = [t.get_text() for t in where[-1].get_xticklabels()]
    assert mapped or said == names
