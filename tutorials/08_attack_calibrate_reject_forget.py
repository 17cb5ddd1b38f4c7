# %% [markdown]
# # Attack, calibrate, reject, forget
#
# A score on new people says how often a decoder is right. It does not say what a
# little noise of the wrong kind would do, whether the decoder knows when it is
# wrong, what it makes of a trial that is no EEG, or how a participant who withdraws
# gets out of it. This page asks each of these, and ends with a card that answers
# all of them for one pipeline.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score

import eegtensor as et
from eegtensor.benchmark import trust_card
from eegtensor.benchmark.metrics import expected_calibration_error
from eegtensor.lifelong import AnalyticHead, forget
from eegtensor.trust.attacks import PGD, robustness_curve, transfer_report
from eegtensor.trust.calibration import CalibratedDecoder
from eegtensor.trust.rejecting import RejectingClassifier

folder = Path(tempfile.mkdtemp(prefix="eegtensor-08-"))
trials = et.simulate_trials(n_subjects=6, n_trials=40, snr=2.0, random_state=1)
new = trials.metadata["subject"].to_numpy() == "06"
source, target = trials[~new], trials[new]
known = {"subjects": source.subjects, "sessions": source.sessions}
theirs = {"subjects": target.subjects, "sessions": target.sessions}
X, y = np.asarray(target.X), target.y

decoder = et.make_pipeline("tangent-space", align="riemann")
decoder.fit(source.X, source.y, **known).adapt(X, **theirs)
print(f"new person: {balanced_accuracy_score(y, decoder.predict(X, **theirs)):.3f}")

# %% [markdown]
# ## Attack
#
# An attack may move every sample by a fraction of its channel's standard deviation.
# The same fraction is reported in three units: the largest sample, the length of the
# whole perturbation, and the ratio of signal to perturbation in dB, by which attacks
# are to be compared. The statistics of the person are fixed: an attack does not move
# the alignment. Noise of the same size does next to nothing; the direction does it.

# %%
curve = robustness_curve(decoder, X, y, eps=(0.01, 0.02, 0.05), **theirs)
print(curve.round(3).to_string(index=False))
rng = np.random.default_rng(0)
spread = X.std(axis=(0, 2), keepdims=True)
noise = X + 0.05 * spread * np.sign(rng.standard_normal(X.shape))
as_noise = float((decoder.predict(noise, **theirs) == y).mean())
print(f"noise as large as the largest attack: {as_noise:.3f}")
clean, *_, worst = curve["accuracy"]
assert worst < 0.3 < clean and abs(as_noise - clean) < 0.1

# What fools one decoder fools another that it was not made for, though less.
other = et.make_pipeline("mdm", align="riemann")
other.fit(source.X, source.y, **known).adapt(X, **theirs)
report = transfer_report(
    {"tangent-space": decoder, "mdm": other}, X, y, attack=PGD(eps=0.05), **theirs
)
print(report.round(3))
assert report.loc["tangent-space", "mdm"] < report.loc["none", "mdm"]

# %% [markdown]
# ## Calibrate
#
# A decoder is sure of the people it was fitted to, and takes that along to new ones.
# A temperature, fitted on source people that were held out in turn, changes no
# prediction, only how sure the decoder says it is.

# %%
calibrated = CalibratedDecoder(
    et.make_pipeline("tangent-space", align="riemann", C=10.0), method="temperature"
)
calibrated.fit(np.asarray(source.X), source.y, **known).adapt(X, **theirs)
codes = np.searchsorted(calibrated.classes_, y)
before = expected_calibration_error(
    codes, calibrated.estimator_.predict_proba(X, **theirs)
)
after = expected_calibration_error(codes, calibrated.predict_proba(X, **theirs))
print(f"calibration error {before:.3f}, by a temperature {after:.3f}")
assert after < before
same = calibrated.estimator_.predict(X, **theirs) == calibrated.predict(X, **theirs)
assert same.all()

# %% [markdown]
# ## Reject
#
# An electrode that pops is no class. A score of familiarity looks at what enters the
# last step; its threshold comes from source people held out, so that a share of clean
# trials of new people is rejected, here 5 %.

# %%
careful = RejectingClassifier(clone(decoder), reject=0.05)
careful.fit(np.asarray(source.X), source.y, **known).adapt(X, **theirs)
popped = X.copy()
start = rng.integers(X.shape[2] // 2, size=len(X))
for trial, at in enumerate(start):
    popped[trial, trial % X.shape[1], at:] += 20 * spread[0, trial % X.shape[1], 0]
lost = {
    "clean": 1 - careful.accepts(X, **theirs).mean(),
    "popped": 1 - careful.accepts(popped, **theirs).mean(),
}
print(f"rejected: {lost['clean']:.0%} of clean trials, {lost['popped']:.0%} of popped")
print("predict says:", *sorted(set(careful.predict(popped, **theirs).tolist())))
assert lost["clean"] < 0.2 and lost["popped"] > 0.8

# %% [markdown]
# ## Forget
#
# Someone withdraws. A head that is made of sums forgets exactly: the same numbers as
# training without that person, if the steps before it treat each domain by itself.
# Networks forget approximately (`forget` goes on with their training), and their
# statistics of the person are dropped as well; what nothing else can do is fitted
# anew. The audit says what is left, and whether anybody could tell from the decoder
# that the person was ever in it.

# %%
even = np.arange(len(source)) % 4 > 0
train, kept_back = source[even], source[~even]
# Covariances, recentring, tangent space; a scaler would have seen everybody.
steps = et.make_pipeline("tangent-space", align="riemann").steps[:3]
exact = et.Pipeline([*steps, ("head", AnalyticHead())])
options = {"subjects": train.subjects, "sessions": train.sessions}
exact.fit(train.X, train.y, **options)
stay = train.metadata["subject"].to_numpy() != "02"
without = clone(exact).fit(
    train.X[stay],
    train.y[stay],
    subjects=train.subjects[stay],
    sessions=train.sessions[stay],
)
gone = forget(
    exact,
    str(train.subjects[~stay][0]),
    np.asarray(train.X),
    train.y,
    **options,
    holdout=(
        np.asarray(kept_back.X),
        kept_back.y,
        kept_back.subjects,
        kept_back.sessions,
    ),
    transfer=(X, y, target.subjects, target.sessions),
    retrained=without,
)
print(gone.audit)
difference = np.abs(gone.estimator[-1].coef_ - without[-1].coef_).max()
assert "sums" in str(gone.audit)
print(f"largest difference from training without: {difference:.1e}")
assert gone.audit.exact and difference < 1e-9
gone.audit.save(folder / "audit.json")

# %% [markdown]
# ## A card for one pipeline
#
# All of it at once, for people left out in turn, as a section of the benchmark's
# report. On the command line: `eegtensor benchmark ... --trust tangent-space`.

# %%
card = trust_card(
    trials, "tangent-space", people=2, n_steps=10, n_certified=8, n_copies=200
)
card.save(folder / "trust.json")
results = et.benchmark(trials, ["tangent-space"], adapt="full")
print("report:", results.report(folder / "report.html", trust=card))
assert not card.missing

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(curve["eps"], curve["accuracy"], "o-", label="attack (PGD)")
axes.plot([0, 0.05], [clean, as_noise], "s--", color="0.5", label="noise")
axes.set(xlabel="size (standard deviations of a channel)", ylabel="accuracy")
axes.set_title("The direction counts, not the size")
axes.legend()
figure.savefig(folder / "attack.png", dpi=120)
print(folder)
