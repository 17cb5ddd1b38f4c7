"""The router: what it must keep, what it must beat, how sure it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eegtensor import EEGTensorError
from eegtensor.tensor.completion import (
    METHODS,
    _prepare,
    complete,
    gaussian_fit,
    gaussian_mean,
)
from eegtensor.tensor.completion._kinds import GAP, RUN, SCATTERED, hide, kinds_of


def places(n: int) -> NDArray:
    """Points spread over the upper half of a sphere."""
    k = np.arange(n) + 0.5
    z, turn = 1 - k / n, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - z**2)
    return 0.09 * np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)


def scalp(rng: np.random.Generator, n: int, n_times: int, n_trials: int = 1) -> NDArray:
    """Smooth in space and time: sources under electrodes, 1-40 Hz of 128 Hz."""
    spread = np.exp(1.5 * (places(n) @ places(n).T / 0.09**2 - 1))
    noise = rng.standard_normal((n_trials, n, n_times))
    f = np.fft.rfftfreq(n_times)
    shape = (1 / (0.02 + f)) * (f > 0.008) * (f < 0.3)
    signals = np.fft.irfft(np.fft.rfft(noise) * shape, n=n_times)
    return 1e-5 * (spread @ signals)


def nrmse(x: NDArray, found: NDArray, seen: NDArray) -> float:
    return float(np.linalg.norm((found - x)[~seen]) / np.linalg.norm(x[~seen]))


def losses(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> NDArray:
    seen = np.ones(shape, bool)
    if kind in ("scattered", "mixture"):
        seen &= rng.random(shape) > 0.3
    if kind in ("run", "mixture"):
        for start in range(0, shape[-1] - 150, 150):
            seen[..., rng.integers(shape[-2], size=2), start : start + 140] = False
    if kind in ("gap", "mixture"):
        for start in range(40, shape[-1] - 60, 100):
            seen[..., start : start + 5] = False
    return seen


KINDS = ["scattered", "run", "gap", "mixture"]


@pytest.mark.parametrize("kind", KINDS)
def test_observed_cells_stay_and_lost_ones_are_restored(
    rng: np.random.Generator, kind: str
) -> None:
    x = scalp(rng, 10, 1500)[0]
    seen = losses(rng, x.shape, kind)
    given = np.where(seen, x, np.nan)
    found = complete(given)
    assert (found.X[seen] == x[seen]).all()
    assert (found.std[seen] == 0).all() and (found.std[~seen] > 0).all()
    assert np.isfinite(found.X).all()
    bar = {"scattered": 0.3, "run": 0.6, "gap": 0.75, "mixture": 0.75}[kind]
    assert nrmse(x, found.X, seen) < bar
    assert sum(row.cells for row in found.table) == (~seen).sum()
    by_mask = complete(np.where(seen, x, 1e9), seen)
    np.testing.assert_array_equal(by_mask.X, found.X)


@pytest.mark.parametrize("kind", ["scattered", "run", "gap"])
def test_interval_covers(rng: np.random.Generator, kind: str) -> None:
    x = scalp(rng, 10, 3000)[0]
    seen = losses(rng, x.shape, kind)
    found = complete(x, seen)
    inside = np.abs(found.X - x) <= 1.6448536 * found.std
    assert 0.83 <= inside[~seen].mean() <= 0.97


def test_runs_are_not_worse_than_the_gaussian(rng: np.random.Generator) -> None:
    x = scalp(rng, 12, 3000)[0]
    seen = losses(rng, x.shape, "run")
    reference = gaussian_mean(x, seen, gaussian_fit(x, seen).covariance).X
    assert nrmse(x, complete(x, seen).X, seen) <= 1.02 * nrmse(x, reference, seen)


def test_channel_without_data_takes_the_spline(rng: np.random.Generator) -> None:
    from mne.channels.interpolation import _make_interpolation_matrix

    where = places(16)
    x = scalp(rng, 16, 400)[0] + 1e-4
    seen = np.ones(x.shape, bool)
    seen[[4, 9]] = False
    found = complete(x, seen, positions=where)
    dead = np.array([4, 9])
    live = np.setdiff1d(np.arange(16), dead)
    expected = _make_interpolation_matrix(where[live], where[dead]) @ x[live]
    np.testing.assert_allclose(found.X[dead], expected, rtol=1e-8)
    assert found.table[-1].kind == "channel" and found.table[-1].cells == 800
    assert (found.std[dead] > 0).all()
    with pytest.raises(EEGTensorError, match="channels 4, 9 hold no data"):
        complete(x, seen)
    # The few samples that such a channel has stay, and are sure.
    seen[4, 100:105] = True
    few = complete(x, seen, positions=where)
    assert (few.X[4, 100:105] == x[4, 100:105]).all()
    assert (few.std > 0)[dead].sum() == 795 and few.table[-1].cells == 795


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_interval_of_channels_without_data_covers(
    rng: np.random.Generator, unit: float
) -> None:
    where, covers = places(16), []
    x = unit * scalp(rng, 16, 400)[0]
    for dead in rng.permutation(16).reshape(8, 2):
        seen = np.ones(x.shape, bool)
        seen[dead] = False
        found = complete(x, seen, positions=where)
        inside = np.abs(found.X - x) <= 1.6448536 * found.std
        covers.append(inside[dead].mean())
    assert 0.83 <= np.mean(covers) <= 0.97


def test_trials_have_ends(rng: np.random.Generator) -> None:
    x = scalp(rng, 6, 160, n_trials=12)
    seen = rng.random(x.shape) > 0.3
    found = complete(x, seen)
    assert found.X.shape == x.shape
    assert nrmse(x, found.X, seen) < 0.4
    one = complete(x[0], seen[0])
    assert one.X.shape == x[0].shape


@pytest.mark.parametrize("unit", [1e6, 1e-3])
def test_units_do_not_matter(rng: np.random.Generator, unit: float) -> None:
    x = scalp(rng, 6, 800)[0]
    seen = losses(rng, x.shape, "mixture")
    one, two = complete(x, seen), complete(unit * x, seen)
    scale = np.abs(x).max()
    np.testing.assert_allclose(two.X / unit, one.X, atol=1e-3 * scale)
    np.testing.assert_allclose(two.std / unit, one.std, atol=1e-3 * scale)


def test_offset_of_a_channel_comes_back(rng: np.random.Generator) -> None:
    x = scalp(rng, 6, 800)[0]
    seen = losses(rng, x.shape, "scattered")
    offset = np.linspace(-1e-3, 1e-3, 6)[:, None]
    one, two = complete(x, seen), complete(x + offset, seen)
    np.testing.assert_allclose(two.X - offset, one.X, atol=1e-3 * np.abs(x).max())


def test_order_of_channels_does_not_matter(rng: np.random.Generator) -> None:
    x = scalp(rng, 8, 1500)[0]
    seen = losses(rng, x.shape, "scattered")
    order = rng.permutation(8)
    one, two = complete(x, seen).X, complete(x[order], seen[order]).X
    # The draws differ, and with them, a little, what is learned.
    assert nrmse(one[order], two, seen[order]) < 0.1


def test_same_seed_same_result(rng: np.random.Generator) -> None:
    x = scalp(rng, 6, 600)[0]
    seen = losses(rng, x.shape, "mixture")
    one, two = complete(x, seen, random_state=3), complete(x, seen, random_state=3)
    np.testing.assert_array_equal(one.X, two.X)
    np.testing.assert_array_equal(one.std, two.std)


def test_float32_and_tensors(rng: np.random.Generator, device: str) -> None:
    x = scalp(rng, 6, 600)[0].astype(np.float32)
    seen = losses(rng, x.shape, "scattered")
    found = complete(x, seen)
    assert found.X.dtype == np.float32 and (found.X[seen] == x[seen]).all()
    tensors = complete(torch.from_numpy(x).to(device), torch.from_numpy(seen))
    assert tensors.X.device.type == device
    np.testing.assert_array_equal(tensors.X.cpu().numpy(), found.X)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_method_alone(rng: np.random.Generator, method: str) -> None:
    x = scalp(rng, 10, 800)[0]
    seen = losses(rng, x.shape, "run")
    found = complete(x, seen, positions=places(10), method=method)
    assert all(row.method.startswith((method, "zero")) for row in found.table)
    assert nrmse(x, found.X, seen) < 1.0


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_flat_channel_spoils_nothing(rng: np.random.Generator, value: float) -> None:
    x = scalp(rng, 6, 800)[0]
    seen = losses(rng, x.shape, "scattered")
    flat = np.vstack([x, np.full((1, 800), value)])
    found = complete(flat, np.vstack([seen, seen[:1]]))
    alone = complete(x, seen)
    np.testing.assert_array_equal(found.X[:6], alone.X)
    assert (found.X[6] == value).all() and (found.std[6] == 0).all()
    assert found.table[:-1] == alone.table
    assert found.table[-1][:2] == ("flat", (~seen[0]).sum())
    everything = complete(flat[6:], seen[:1])
    assert (everything.X == value).all()


def test_trials_of_one_sample(rng: np.random.Generator) -> None:
    x = scalp(rng, 6, 200)[0].T[..., None]
    seen = rng.random(x.shape) > 0.1
    found = complete(x, seen)
    assert (found.X[seen] == x[seen]).all() and nrmse(x, found.X, seen) < 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["auto", "gaussian"])
def test_gain_of_a_channel_does_not_matter(
    rng: np.random.Generator, kind: str, method: str
) -> None:
    x = scalp(rng, 6, 800)[0]
    seen = losses(rng, x.shape, kind)
    one = complete(x, seen, positions=places(6), method=method)
    size = x.std(axis=1, keepdims=True)
    for gain in ([1, 1, 1e3, 1, 1, 1], [1, 1e3, 1e-3, 7, 1e-6, 50.0]):
        g = np.array(gain)[:, None]
        two = complete(g * x, seen, positions=places(6), method=method)
        assert (np.abs(two.X / g - one.X) <= 1e-6 * size).all()
        assert (np.abs(two.std / g - one.std) <= 1e-6 * size).all()
        for a, b in zip(one.table, two.table, strict=True):
            assert a[:3] == b[:3] and abs(a.expected_error - b.expected_error) < 1e-9


@pytest.mark.parametrize("shape", [(1, 8, 9000), (30, 8, 300)])
def test_parts_of_a_long_recording_join(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    x = scalp(rng, shape[1], shape[2], shape[0])
    seen = losses(rng, x.shape, "run")
    monkeypatch.setattr(_prepare, "LEARN_CELLS", 20_000)
    whole = complete(x, seen)
    monkeypatch.setattr(_prepare, "PART_CELLS", 22_000)
    found = complete(x, seen)
    assert (found.X[seen] == x[seen]).all() and found.table == whole.table
    assert nrmse(x, found.X, seen) <= 1.01 * nrmse(x, whole.X, seen)
    assert nrmse(whole.X, found.X, seen) < 0.05
    ratio = found.std[~seen] / whole.std[~seen]
    assert 0.9 < np.median(ratio) < 1.1 and (ratio > 0.3).all()


def test_an_excerpt_is_cut_where_its_kinds_are(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eegtensor.tensor.completion import _prepare

    monkeypatch.setattr(_prepare, "LEARN_CELLS", 4000)
    monkeypatch.setattr(_prepare, "PIECE", 250)
    X = rng.standard_normal((2, 4, 2000))
    X[rng.random(X.shape) < 0.3] = np.nan
    prepared = _prepare.prepare(torch.from_numpy(X), None, None)
    part = _prepare.excerpt(prepared, kinds_of(~np.isnan(X)))
    assert part.kinds.shape == (4, 4, 250)
    np.testing.assert_array_equal(part.problem.seen.numpy(), part.kinds == 0)
    np.testing.assert_array_equal(part.problem.values.numpy() != 0, part.kinds == 0)


def test_what_lost_cells_held_is_not_read(rng: np.random.Generator) -> None:
    x = scalp(rng, 4, 300)[0]
    x[2] = 0.1 + 0.2
    seen = rng.random(x.shape) > 0.1
    want = complete(np.where(seen, x, np.nan))
    # A channel of one value gets this very value, not a mean of it.
    assert (want.X[2] == x[2]).all()
    found = complete(np.where(seen, x, np.inf), seen)
    np.testing.assert_array_equal(found.X, want.X)


def test_nothing_lost(rng: np.random.Generator) -> None:
    x = scalp(rng, 4, 100)[0]
    found = complete(x)
    assert (found.X == x).all() and (found.std == 0).all() and found.table == ()


def test_mistakes_are_named() -> None:
    x = np.zeros((4, 50))
    with pytest.raises(EEGTensorError, match="no channel holds data"):
        complete(np.full((4, 50), np.nan))
    with pytest.raises(EEGTensorError, match="8 observed samples or more"):
        complete(np.where(np.arange(7) > 0, np.ones((4, 7)), np.nan))
    with pytest.raises(EEGTensorError, match="mask has shape"):
        complete(x, np.ones((3, 50), bool))
    with pytest.raises(EEGTensorError, match="channels 2 hold infinity"):
        complete(np.where(np.arange(4)[:, None] == 2, np.inf, x))
    with pytest.raises(EEGTensorError, match="method='magic'"):
        complete(x, method="magic")
    with pytest.raises(EEGTensorError, match="positions has 3 rows"):
        complete(x, positions=places(3))
    with pytest.raises(EEGTensorError, match="give \\(n_channels, n_times\\)"):
        complete(np.zeros(5))


def test_kinds() -> None:
    seen = np.ones((1, 4, 400), bool)
    seen[0, 1, 50:100] = False
    seen[0, :, 200:208] = False
    seen[0, 2, 300] = False
    kinds = kinds_of(seen)[0]
    assert (kinds[1, 50:100] == RUN).all() and (kinds[:, 200:208] == GAP).all()
    assert kinds[2, 300] == SCATTERED and (kinds != 0).sum() == (~seen).sum()


def test_scattered_even_at_heavy_loss(rng: np.random.Generator) -> None:
    seen = rng.random((1, 20, 2000)) > 0.95
    kinds = kinds_of(seen)
    assert (kinds == SCATTERED).sum() > 0.99 * (~seen).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_cells_are_few_observed_and_of_the_kind(
    rng: np.random.Generator, kind: str
) -> None:
    seen = losses(rng, (1, 10, 3000), kind)
    kinds = kinds_of(seen)
    hidden = hide(seen, kinds, rng)
    assert set(np.unique(hidden)) >= {0, *np.unique(kinds[kinds > 0])}
    assert seen[hidden > 0].all()
    assert (hidden > 0).sum() <= 0.2 * seen.sum()


def test_hidden_gaps_are_as_far_from_others_as_they_are_long(
    rng: np.random.Generator,
) -> None:
    seen = np.ones((2, 3, 400), bool)
    for start in range(20, 380, 25):
        seen[:, :, start : start + 6] = False
    hidden = (hide(seen, kinds_of(seen), rng) == GAP).all(axis=1)
    lost = hidden | ~seen.all(axis=1)
    assert hidden.any()
    for row, trial in zip(hidden, lost, strict=True):
        for start in np.flatnonzero(np.diff(row.astype(int), prepend=0) == 1):
            assert row[start : start + 6].all()
            around = np.r_[start - 6 : start, start + 6 : start + 12]
            assert not trial[around].any()


def yardstick() -> ModuleType:
    path = Path(__file__).resolve().parents[4] / "shared" / "measure" / "completion.py"
    if not path.is_file():
        pytest.skip(f"the yardstick is not at {path}")
    spec = importlib.util.spec_from_file_location("yardstick", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FLOORS = {
    "random 30%": 0.09, "random 50%": 0.14, "random 70%": 0.21, "random 90%": 0.52,
    "random 95%": 0.85, "segment channels 10%": 0.205, "segment channels 20%": 0.216,
    "segment channels 30%": 0.255, "bursts 10%": 0.21, "bursts 30%": 0.23,
    "gap 50 ms": 0.50, "gap 100 ms": 0.72, "gap 250 ms": 0.86,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOORS)
def test_real_eeg(shared_data: Path, name: str) -> None:
    ruler = yardstick()
    x, positions, _ = ruler.load()
    make, argument, draws = ruler.SCENARIOS[name]
    errors, covers = [], []
    for seed in range(draws):
        mask = make(argument, seed)
        found = complete(x, mask, positions=positions)
        errors.append(ruler.nrmse(x, found.X, mask))
        covers.append((np.abs(found.X - x) <= 1.6448536 * found.std)[~mask].mean())
    assert np.mean(errors) <= FLOORS[name]
    assert 0.85 <= np.mean(covers) <= 0.95


@pytest.mark.slow
def test_real_channels_without_data(shared_data: Path) -> None:
    ruler = yardstick()
    x, positions, _ = ruler.load()
    for share in (0.1, 0.2, 0.3):
        covers = []
        for seed in range(10):
            mask = ruler.whole_channels(share, seed)
            found = complete(x, mask, positions=positions)
            own = ruler.nrmse(x, found.X, mask)
            spline = ruler.nrmse(x, ruler.spline(x, mask, positions), mask)
            assert own <= spline * (1 + 1e-9)
            inside = np.abs(found.X - x) <= 1.6448536 * found.std
            covers.append(inside[~mask].mean())
        assert 0.85 <= np.mean(covers) <= 0.95
