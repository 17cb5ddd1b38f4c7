# %% [markdown]
# # TSMNet, statistics by domain, and label shift
#
# A network that learns its filters from many people and needs nothing but
# unlabelled trials of a new one: its batch norm keeps one mean and one
# dispersion of covariance matrices for every (subject, session). This page
# looks at that layer, trains the network, moves it to a person it has never
# seen, in a block and trial by trial, asks what happens when the new person's
# classes are not balanced, and draws what the network looks at.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

import eegtensor as et
from eegtensor import geometry, nn
from eegtensor.models import sources
from eegtensor.transfer import TSMNetClassifier
from eegtensor.transfer.label_shift import (
    balance_classes,
    linear_decision,
    maximise_information,
)

folder = Path(tempfile.mkdtemp(prefix="eegtensor-05-"))
trials = et.simulate_trials(n_subjects=6, snr=1.5, random_state=1)
print(trials)

# %% [markdown]
# ## The layer that adapts
#
# Covariance matrices of every session scatter around a mean of their own. The
# norm moves each of these means to the identity and scales by the dispersion
# there; what follows is shared by all people. `fit_statistics` is the whole of
# source-free adaptation: no label, no gradient, no source data.

# %%
C = torch.from_numpy(geometry.covariances(trials.X))
codes, names = trials.domain
norm = nn.DomainSPDBatchNorm(C.shape[-1], domains=names, dtype=torch.float64)
domain = norm.encode(names[code] for code in codes)
norm.fit_statistics(C, domain)
norm.eval()
with torch.no_grad():
    Y = norm(C, domain)
far = geometry.distance(
    geometry.frechet_mean(C, segments=domain), torch.eye(C.shape[-1]).double()
)
near = geometry.distance(
    geometry.frechet_mean(Y, segments=domain), torch.eye(C.shape[-1]).double()
)
print(f"distance of session means to I: {far.min():.1f} before, {near.max():.0e} after")
assert near.max() < 1e-7

# %% [markdown]
# Volts or microvolts: thresholds are relative, statistics start at the data, and
# so the unit changes nothing.

# %%
twin = nn.DomainSPDBatchNorm(C.shape[-1], domains=names, dtype=torch.float64)
twin.fit_statistics(C * 1e12, domain)
with torch.no_grad():
    difference = (twin.eval()(C * 1e12, domain) - Y).abs().max().item()
print(f"V^2 or uV^2 differ by {difference:.0e}")
assert difference < 1e-8

# %% [markdown]
# ## The network, and a person it has never seen
#
# `TSMNetClassifier` is an ordinary scikit-learn classifier. Its defaults are the
# published ones (50 epochs); fewer do for this page. Without adaptation the new
# person is decoded with the sources' pooled statistics.

# %%
new = (trials.metadata["subject"] == "06").to_numpy()
source, target = trials[~new], trials[new]
here = {"subjects": target.subjects, "sessions": target.sessions}
network = TSMNetClassifier(epochs=15, subspace=8, random_state=0)
network.fit(source.X, source.y, subjects=source.subjects, sessions=source.sessions)
print(f"{network.history_.column('valid_loss')[-1]:.2f} is the last validation loss")


def score(model: TSMNetClassifier, which: np.ndarray | slice = slice(None)) -> float:
    """Return the balanced accuracy on trials of the new person."""
    domains = {name: column[which] for name, column in here.items()}
    said = model.predict(target.X[which], **domains)
    return float(balanced_accuracy_score(target.y[which], said))


plain = score(network)
# safetensors and JSON: weights, statistics and names, no pickle.
network.save(folder / "network.safetensors")
network.adapt(target.X, **here)
refitted = score(network)
print(f"person 06: {plain:.2f} un-adapted, {refitted:.2f} refitted")
print(*(f"  {name}: {what}" for name, what in network.adaptation_.items()), sep="\n")
assert refitted > plain + 0.05

# %% [markdown]
# ## Trial by trial
#
# In a running experiment trials come one by one. `partial_adapt` starts at the
# sources' pooled statistics and moves with each trial: nobody waits for a block.

# %%
online = TSMNetClassifier.load(folder / "network.safetensors")
right = []
for k in range(len(target)):
    domains = {name: column[k : k + 1] for name, column in here.items()}
    online.partial_adapt(target.X[k : k + 1], **domains)
    right.append(online.predict(target.X[k : k + 1], **domains)[0] == target.y[k])
print(f"online: {np.mean(right):.2f} of the trials")
assert np.mean(right) > plain + 0.05

# %% [markdown]
# ## When the new person's classes are not balanced
#
# Recentring assumes that all domains hold the same mixture. Let a new person
# give four trials of one class for each of the other: the mean moves towards the
# frequent class, and the border with it. Two repairs need no labels either:
# `maximise_information` (SPDIM) moves the centre so that the frozen decoder is
# sure of each trial and still uses all classes; `balance_classes` weighs trials
# so that the classes it guesses weigh alike. They take any decoder of tangent
# vectors; here logistic regression, every person in turn, either class rare.

# %%
people = et.simulate_trials(
    n_subjects=6, n_sessions=1, n_trials=80, snr=2.0, random_state=1
)
C, y, who = geometry.covariances(people.X), people.y, people.subjects
first, second = people.classes


def tangent(matrices: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return tangent vectors at a centre."""
    whitened = geometry.congruence(geometry.inv_sqrtm(centre), matrices)
    return geometry.upper_vector(geometry.logm(whitened))


subjects, owner = np.unique(who, return_inverse=True)
centres = geometry.frechet_mean(C, segments=owner)
V = np.concatenate([tangent(C[owner == k], centres[k]) for k in range(len(subjects))])
order = np.concatenate([np.flatnonzero(owner == k) for k in range(len(subjects))])
reached: dict[str, list[float]] = {}
for k in range(len(subjects)):
    learned = owner[order] != k
    decoder = LogisticRegression(max_iter=1000).fit(V[learned], y[order][learned])
    decide = linear_decision(decoder.coef_, decoder.intercept_)
    mine, labels = C[owner == k], y[owner == k]
    for frequent, rare in ((first, second), (second, first)):
        kept = np.flatnonzero(labels == rare)[::4]
        some = np.sort(np.concatenate([np.flatnonzero(labels == frequent), kept]))
        X = mine[some]
        centre = {
            "balanced target": centres[k],
            "4:1, recentred": geometry.frechet_mean(X),
            "4:1, balance_classes": balance_classes(X, decide).centre[0].numpy(),
            "4:1, maximise_information": maximise_information(X, decide)
            .centre[0]
            .numpy(),
        }
        for words, point in centre.items():
            said = decoder.predict(tangent(X, point))
            found = balanced_accuracy_score(labels[some], said)
            reached.setdefault(words, []).append(float(found))
mean = {words: float(np.mean(values)) for words, values in reached.items()}
for words, value in mean.items():
    print(f"{words:26} {value:.3f}")
lost = mean["balanced target"] - mean["4:1, recentred"]
mended = mean["4:1, maximise_information"] - mean["4:1, recentred"]
print(f"the shift costs {lost:.3f}, of which information brings back {mended:.3f}")
assert lost > 0.03 and mended > 0.5 * lost

# %% [markdown]
# The network has both as `adaptation="spdim-bias"` and `"balanced"`. With few
# trials, or nothing to gain (a network that was trained briefly is sure of
# nothing), plain recentring stays, and `adaptation_` says so.

# %%
network.set_params(adaptation="spdim-bias").adapt(target.X, **here)
print(*network.adaptation_.values(), sep=", ")
few = {name: column[:3] for name, column in here.items()}
network.adapt(target.X[:3], **few)
print(network.adaptation_[network.last_target_])
assert "fewer" in network.adaptation_[network.last_target_]

# %% [markdown]
# ## What it looks at
#
# The decision is linear in the tangent space, so it has a direction there; back
# through the norm, the BiMap and the filters it is a change of the sensors'
# covariance, and that is a set of sources with topographies.

# %%
found = network.class_patterns(
    source.X, subjects=source.subjects, sessions=source.sessions
)
each = sources(found.matrices[0], found.covariance)
figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.8), layout="constrained")
for k, axis in enumerate(axes):
    topography = each.topographies[:, k]
    topography = topography / topography[np.abs(topography).argmax()]
    limits = (-1, 1)
    mne.viz.plot_topomap(topography, trials.info, axes=axis, show=False, vlim=limits)
    axis.set_title(f"power {each.change[k]:+.0%}")
classes = network.classes_
figure.suptitle(f"{classes[1]} against {classes[0]}")
figure.savefig(folder / "patterns.png")
print("the picture is in", folder / "patterns.png")
strongest = np.abs(each.topographies[:, :2]).argmax(axis=0)
print("strongest at", *(trials.ch_names[k] for k in strongest))
motor = {"C3", "C4", "Cz", "CP5", "CP6", "FC5", "FC6"}
assert {trials.ch_names[k] for k in strongest} <= motor

# %% [markdown]
# ## In the benchmark
#
# By name it stands beside every other decoder, and the report draws its patterns.

# %%
results = et.benchmark(
    trials[trials.metadata["subject"].isin(["01", "02", "03", "04"])],
    {
        "tangent-space": et.make_pipeline("tangent-space", align="riemann"),
        "tsmnet": et.make_pipeline("tsmnet", epochs=8, subspace=8),
    },
    adapt=("none", "full"),
)
print(results.table())
table = results.table()["balanced_accuracy"]
assert table["tsmnet", "full"] > table["tsmnet", "none"]
