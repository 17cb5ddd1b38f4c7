# %% [markdown]
# # Tensor features and lost data
#
# A trial is a table of channels and times, and after a time-frequency transform
# a block of channels, frequencies and times. Tensor decompositions describe many
# such blocks by few components, each with a place, a spectrum and a time course.
# This page finds components, asks how many there are and whether they come back
# in other trials, hands them to a decoder for new people, and then uses the same
# structure, that channels and moments know about each other, to restore what a
# recording has lost.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

import eegtensor as et
from eegtensor.features import (
    HODA,
    Completer,
    NonnegativeCPFeatures,
    TimeFrequencyTensor,
    TuckerFeatures,
    plot_factors,
    select_rank,
)
from eegtensor.tensor.match import split_half_match
from eegtensor.transfer import DomainStandardScaler

folder = Path(tempfile.mkdtemp(prefix="eegtensor-06-"))
trials = et.simulate_trials(n_subjects=4, n_channels=16, snr=2.0, random_state=0)
sfreq = trials.info["sfreq"]
print(trials)

# %% [markdown]
# ## Power as a tensor
#
# Power of every channel at 12 frequencies in 8 bins of time. Power adds up and
# does not cancel, so its parts should not either: a non-negative decomposition.
# Each channel and frequency is divided by its mean, or the lowest frequencies
# would be all there is to see.

# %%
front = TimeFrequencyTensor(sfreq, fmin=5, fmax=35, n_freqs=12, n_bins=8, log=False)
power = front.fit_transform(trials.X)
power /= power.mean(axis=(0, 3), keepdims=True)
print(f"power: {power.shape} (trials, channels, frequencies, bins)")
assert power.shape == (len(trials), 16, 12, 8) and (power > 0).all()

parts = NonnegativeCPFeatures(4).fit(power)
halves = split_half_match(power, 4, n_splits=2, random_state=0)
print(f"match of components between halves of the trials: {halves.score:.2f}")
assert halves.score > 0.5 and not parts.congruence_ > 0.95
figure = plot_factors(
    parts, info=trials.info, freqs=front.freqs_, times=front.times_ + trials.tmin
)
figure.savefig(folder / "components.png", dpi=100)

# %% [markdown]
# ## How many?
#
# A table of what speaks for each number: how well held-out cells are told, how
# far the model is from more than a sum of components, whether halves agree.

# %%
found = select_rank(
    power[:80],
    (1, 2, 3, 4),
    model="nonnegative-cp",
    method="split-half",
    n_folds=2,
    n_splits=2,
    ard=False,
)
print(found.table[["fit", "held_out", "split_half"]].round(3))
print(f"chosen by halves that agree: {found.rank}")
assert found.table["fit"].is_monotonic_increasing
assert found.table.loc[found.rank, "split_half"] > 0.9

# %% [markdown]
# ## Features of new people
#
# A fitted decomposition weighs its patterns in trials it has never seen, one by
# one. Here log power, projected without labels (Tucker) and with them (HODA),
# and standardised in every session, which needs no label either; the last person
# is held out.

# %%
logs = np.log(power)
new = (trials.metadata["subject"] == "04").to_numpy()
domains = [
    {"subjects": trials.subjects[side], "sessions": trials.sessions[side]}
    for side in (~new, new)
]
for extractor in (TuckerFeatures((6, 4, 3)), HODA((6, 4, 3), n_selected=12)):
    train = extractor.fit_transform(logs[~new], trials.y[~new])
    test = extractor.transform(logs[new])
    scaler = DomainStandardScaler().fit(train, **domains[0])
    decoder = LogisticRegression(C=0.1, max_iter=1000)
    decoder.fit(scaler.transform(train, **domains[0]), trials.y[~new])
    scaler.adapt(test, **domains[1])
    said = decoder.predict(scaler.transform(test, **domains[1]))
    score = balanced_accuracy_score(trials.y[new], said)
    name = type(extractor).__name__
    print(f"{name}: {test.shape[1]} features, new person {score:.2f}")
    assert score > 0.85
assert np.allclose(extractor.transform(logs[new][:1]), test[:1])

# %% [markdown]
# ## What a recording has lost
#
# Fifteen trials of one person in a row stand for a recording. One channel is dead,
# one is lost for two seconds, single samples are missing everywhere, and for a
# twentieth of a second all channels are gone. `Completer` looks at what is missing
# and takes what restores it best; a 90 % interval says how sure it is.

# %%
truth = np.concatenate(list(trials.X[:15]), axis=1)
raw = mne.io.RawArray(truth.copy(), trials.info.copy(), verbose="error")
rng = np.random.default_rng(0)
raw._data[rng.random(truth.shape) < 0.02] = np.nan
raw._data[5, 300:556] = np.nan
raw.info["bads"] = [raw.ch_names[2]]
raw.set_annotations(mne.Annotations([1.0], [0.05], ["BAD_gap"]))

completer = Completer()
whole = completer.fit_transform(raw)
print(completer.table_.to_string(index=False, float_format="%.2f"))
lost = completer.restored_
gap = whole.get_data() - truth
dead = np.zeros_like(lost)
dead[2] = True
for name, where in (("dead channel", lost & dead), ("all else", lost & ~dead)):
    error = np.linalg.norm(gap[where]) / np.linalg.norm(truth[where])
    inside = (np.abs(gap) <= 1.645 * completer.uncertainty_)[where].mean()
    print(f"{name}: error {error:.2f}, {100 * inside:.0f} % inside the interval")
    assert error < 1 and inside > 0.85
assert whole.info["bads"] == [] and len(whole.annotations) == 0
assert (whole.get_data()[~lost] == truth[~lost]).all()

# %%
times = np.arange(200, 620) / sfreq
figure, axis = plt.subplots(figsize=(9, 3), layout="constrained")
span = slice(200, 620)
axis.plot(times, 1e6 * truth[5, span], color="#999999", lw=1, label="what was there")
restored = np.where(lost[5, span], 1e6 * whole.get_data()[5, span], np.nan)
half = 1.645e6 * completer.uncertainty_[5, span]
axis.plot(times, restored, color="#c8553d", lw=1.2, label="restored")
axis.fill_between(times, restored - half, restored + half, color="#c8553d", alpha=0.25)
axis.set(xlabel="seconds", ylabel="microvolts", title=raw.ch_names[5])
axis.legend(frameon=False)
figure.savefig(folder / "restored.png", dpi=100)
print(f"pictures in {folder}")

# %% [markdown]
# The same for a file, with a picture and a table of every stretch:
#
#     eegtensor restore recording.edf --out clean.fif --bads T7
