# %% [markdown]
# # Reading recordings of any format into one store
#
# Recordings of several people seldom look alike: other formats, other names for
# the same electrode, other words for the same event, and one file is broken.
# `read_trials` makes one set of trials of them and says what it did.
#
# First some recordings are simulated and written to a temporary folder. Writing
# EDF and BrainVision needs the packages edfio and pybv; reading them does not.

# %%
import logging
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np

import eegtensor as et
from eegtensor.io import RecordingError, recording_info

mne.set_log_level("WARNING")
folder = Path(tempfile.mkdtemp(prefix="eegtensor-02-"))
recordings = folder / "hands"

# %% [markdown]
# ## Four people, three formats
#
# Each trial is 4 s long and trials follow each other without a pause. The
# folders and names are those of BIDS: they say who was recorded, and when.

# %%
simulated = et.simulate_trials(
    n_subjects=4, n_sessions=2, n_trials=16, n_channels=28, duration=4.0, random_state=0
)


def sitting(subject: str, session: str) -> et.Trials:
    """Return the simulated trials of one session."""
    m = simulated.metadata
    return simulated[(m["subject"] == subject) & (m["session"] == session)]


def continuous(trials: et.Trials) -> mne.io.RawArray:
    """Return trials laid end to end, each marked by an annotation."""
    X = np.concatenate(list(trials.X), axis=1)
    raw = mne.io.RawArray(X, trials.info.copy())
    seconds = trials.X.shape[2] / trials.sfreq
    onsets = seconds * np.arange(len(trials))
    return raw.set_annotations(mne.Annotations(onsets, seconds, trials.y))


def write(raw: mne.io.RawArray, subject: str, session: str, suffix: str) -> Path:
    """Write a recording under a BIDS name."""
    where = recordings / f"sub-{subject}" / f"ses-{session}" / "eeg"
    where.mkdir(parents=True)
    path = where / f"sub-{subject}_ses-{session}_task-hands_eeg{suffix}"
    if suffix == ".fif":
        raw.save(path)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered data in 'double'")
            mne.export.export_raw(path, raw)
    return path


# %% [markdown]
# Person 01 was recorded as FIF, with nothing unusual. Person 02 as EDF: names of
# before 1991 (T3 for T7), capitals, the reference in the name, and the last
# channel first. Person 03 as BrainVision, whose reader puts "Comment/" before
# the events. Person 04 has electrodes of their own: O1 and O2 were not recorded.

# %%
OLD_NAMES = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}


def as_clinic(name: str) -> str:
    """Return a channel's name as an old clinical system writes it."""
    return f"EEG {OLD_NAMES.get(name, name).upper()}-Ref"


paths = []
for session in ("0", "1"):
    paths.append(write(continuous(sitting("01", session)), "01", session, ".fif"))
    raw = continuous(sitting("02", session))
    raw.reorder_channels(raw.ch_names[::-1]).rename_channels(as_clinic)
    paths.append(write(raw, "02", session, ".edf"))
    paths.append(write(continuous(sitting("03", session)), "03", session, ".vhdr"))
    raw = continuous(sitting("04", session)).drop_channels(["O1", "O2"])
    paths.append(write(raw, "04", session, ".fif"))
print(*(path.relative_to(folder) for path in sorted(paths)), sep="\n")

# %% [markdown]
# ## What does one file hold?
#
# `recording_info` opens a file and measures it. In a shell the same is
# `eegtensor info FILE`.

# %%
for path in paths[:4]:
    info = recording_info(path)
    print(
        f"{info.format:12} subject {info.subject}, session {info.session}, "
        f"{len(info.ch_names)} channels ({info.ch_names[0]}, ...), {info.sfreq:g} Hz, "
        f"{info.duration:g} s, events {info.events}, faults {info.faults or 'none'}"
    )
    assert not info.faults

# %% [markdown]
# ## One set of trials
#
# `events` gives each class the words it has in any file. The window is half
# open, in seconds from the event: 2 s at 128 Hz are 256 samples, not 257. The
# band is filtered on the continuous signal, before it is cut. `read_trials`
# says through Python's logging what it did to the channels.

# %%
logger = logging.getLogger("eegtensor")
logger.setLevel(logging.INFO)
spoken = logging.StreamHandler(sys.stdout)
spoken.setFormatter(logging.Formatter("  log: %(message)s"))
logger.addHandler(spoken)

events = {
    "left": ["left_hand", "Comment/left_hand"],
    "right": ["right_hand", "Comment/right_hand"],
}
trials = et.read_trials(recordings, events=events, tmin=0.5, tmax=2.5, band=(8, 30))
print(trials)
print(trials.metadata.iloc[[0, -1]].to_string())

assert len(trials) == 8 * 16 and len(trials.domain.names) == 8
assert trials.X.shape[1:] == (26, 256)
assert "T7" in trials.ch_names and "O1" not in trials.ch_names

# %% [markdown]
# O1 and O2 are gone, because one person does not have them. Is the rest in the
# right place? Without a filter the trials must be the simulated samples, up to
# the number format: FIF and BrainVision hold 32-bit floats, EDF 16-bit integers
# over the range of its recording.

# %%
logger.setLevel(logging.ERROR)
plain = et.read_trials(recordings, events=events, tmin=0.5, tmax=2.5)
start, stop = round(0.5 * 128), round(2.5 * 128)
for subject in ("01", "02", "03", "04"):
    here = (plain.metadata["subject"] == subject) & (plain.metadata["session"] == "1")
    truth = sitting(subject, "1").pick(plain.ch_names)
    error = np.abs(plain[here].X - truth.X[..., start:stop]).max()
    print(f"sub-{subject}: largest difference from what was written {error:.1e} V")
    assert error < 1e-8
    assert (np.char.add(plain[here].y, "_hand") == truth.y).all()

# %% [markdown]
# `channels="interpolate"` keeps O1 and O2 and restores them in person 04 by
# spherical splines. `bands=` filters several bands and stacks them on the
# channel axis. `sfreq=` resamples.

# %%
restored = et.read_trials(
    recordings, events=events, tmin=0.5, tmax=2.5, channels="interpolate"
)
assert restored.X.shape[1] == 28 and "O1" in restored.ch_names

bank = et.read_trials(
    recordings, events=events, tmin=0.5, tmax=2.5, bands=[(8, 13), (13, 30)], sfreq=100
)
print(bank)
print("channels:", *bank.ch_names[:2], "...", *bank.ch_names[-2:])
assert bank.X.shape == (128, 2 * 26, 200)

# %% [markdown]
# ## A broken file and a loose electrode
#
# The second recording of person 01 loses its end, as when a disk was full. In the
# first of person 04 the electrode Cz was never connected.

# %%
broken = recordings / "sub-01/ses-1/eeg/sub-01_ses-1_task-hands_eeg.fif"
broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
loose = recordings / "sub-04/ses-0/eeg/sub-04_ses-0_task-hands_eeg.fif"
raw = mne.io.read_raw_fif(loose, preload=True)
raw.apply_function(lambda x: 0 * x, picks=["Cz"]).save(loose, overwrite=True)

info = recording_info(loose)
print(*info.faults, *info.remedies, sep="\n")
assert any("Cz" in fault for fault in info.faults)

# %% [markdown]
# With `on_bad="raise"`, the default, all recordings are read and then *one*
# error names every fault and its remedy. The trials of the good recordings are
# kept in the error, so no work is lost.

# %%
settings = {"events": events, "tmin": 0.5, "tmax": 2.5, "band": (8, 30)}
try:
    et.read_trials(recordings, **settings)
    raise AssertionError("two faulty recordings were read without a word")
except RecordingError as error:
    print(error)
    faulty = {Path(fault.path).name for fault in error.faults}
    kept = error.trials
assert len(faulty) == 2 and len(kept) == 6 * 16

# %% [markdown]
# `on_bad="drop"` leaves out the recording that cannot be read, and the electrode
# (in everyone, as trials have one set of channels). With `channels="interpolate"`
# the electrode is restored instead. `on_bad="warn"` keeps whatever can be read,
# the dead electrode too. Both say in one warning what is wrong.

# %%
got = {}
for on_bad, channels in (
    ("drop", "intersection"),
    ("drop", "interpolate"),
    ("warn", "intersection"),
):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read = et.read_trials(recordings, on_bad=on_bad, channels=channels, **settings)
    said = [w for w in caught if issubclass(w.category, et.EEGTensorWarning)]
    got[on_bad, channels] = read
    print(
        f"on_bad={on_bad!r}, channels={channels!r}: {len(read)} trials of "
        f"{read.X.shape[1]} channels, Cz {'in' if 'Cz' in read.ch_names else 'out'}"
    )
    assert len(said) == 1 and len(read) == 7 * 16
    assert broken.name in str(said[0].message) and "Cz" in str(said[0].message)
print(said[0].message)
assert "Cz" not in got["drop", "intersection"].ch_names
assert "Cz" in got["drop", "interpolate"].ch_names
dead = got["warn", "intersection"].pick(["Cz"]).X.std(axis=(1, 2)) == 0
assert dead.sum() == 16

# %% [markdown]
# ## Names that are not BIDS, and two files for one session
#
# A template says where subject and session stand. And where two files claim to
# be the same session, they are not read twice: the error names both, `include`
# chooses.

# %%
own = folder / "own names"
own.mkdir()
shutil.copy(paths[-1], own / "S07_day2.fif")
one = et.read_trials(own, names="S{subject}_day{session}.fif", tmin=0, tmax=1)
print(one.domain.names)
assert (one.metadata["subject"] == "07").all()
assert (one.metadata["session"] == "2").all()

mne.export.export_raw(
    own / "S07_day2.edf", mne.io.read_raw_fif(paths[-1], preload=True)
)
naming = {"names": "S{subject}_day{session}.*", "tmin": 0, "tmax": 1}
try:
    et.read_trials(own, **naming)
    raise AssertionError("one session was read twice")
except et.EEGTensorError as error:
    print(error)
    assert "S07_day2.edf" in str(error) and "S07_day2.fif" in str(error)
assert len(et.read_trials(own, include="*.fif", **naming)) == 16

# %% [markdown]
# ## The store
#
# `store=` writes each recording's trials as they are cut and keeps one recording
# in memory at a time. The result opens at once: its X is a memory map, of which
# only the trials that are asked for are read. The digest is a fingerprint of
# samples, labels, domains and channels; a benchmark's cache knows trials by it.
# In a shell the same is `eegtensor convert SRC STORE`.

# %%
good = {"include": ["*sub-02*", "*sub-03*"], **settings}
stored = et.read_trials(recordings, store=folder / "store", **good)
print(stored)
print("files:", *sorted(p.name for p in (folder / "store").rglob("*") if p.is_file()))
assert isinstance(stored.X, np.memmap) and not stored.X.flags.writeable

again = et.Trials.load(folder / "store")
in_memory = et.read_trials(recordings, **good)
print("digest", again.digest)
assert again.digest == stored.digest == in_memory.digest
some = again[[3, 17, 42]]
assert np.array_equal(some.X, in_memory.X[[3, 17, 42]])

# %% [markdown]
# Trials go to MNE and come back the same. A picture to end with: imagining a hand
# weakens the rhythm over the opposite side.

# %%
back = et.Trials.from_epochs(again.to_epochs())
assert np.array_equal(back.X.astype(np.float32), again.X)
assert (back.y == again.y).all()

figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
places = ["C3", "Cz", "C4"]
decibel = 10 * np.log10(again.pick(places).X.var(axis=2) / 1e-12)
means = {name: decibel[again.y == name].mean(axis=0) for name in again.classes}
for shift, (name, mean) in zip((-0.15, 0.15), means.items(), strict=True):
    axes.bar(np.arange(3) + shift, mean, width=0.3, label=name)
axes.set_xticks(range(3), places)
axes.set(ylabel="power 8-30 Hz (dB re 1 uV²)", title="two people, two sessions")
axes.legend()
assert means["left"][0] > means["right"][0] and means["left"][2] < means["right"][2]
figure.savefig(folder / "power.png")
print("the picture is in", folder / "power.png")
logger.removeHandler(spoken)
