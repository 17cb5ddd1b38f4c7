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
from sklearn.metrics import balanced_accuracy_score

import eegtensor as et
from eegtensor import geometry, nn
from eegtensor.models.patterns import sources
from eegtensor.transfer import TSMNetClassifier

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
# sources' pooled statistics and moves with each trial. The early ones pay for
# it, the late ones do not.

# %%
online = TSMNetClassifier.load(folder / "network.safetensors")
right = []
for k in range(len(target)):
    domains = {name: column[k : k + 1] for name, column in here.items()}
    online.partial_adapt(target.X[k : k + 1], **domains)
    right.append(online.predict(target.X[k : k + 1], **domains)[0] == target.y[k])
early, late = np.mean(right[:10]), np.mean(right[10:])
print(f"online: {early:.2f} of the first ten trials, {late:.2f} of the others")
assert late > plain

# %% [markdown]
# ## When the new person's classes are not balanced
#
# Recentring assumes that all domains hold the same mixture. Let the new person
# give four trials of one class for each of the other: the mean moves towards the
# frequent class, and the border with it. Two repairs need no labels either:
# `adaptation="spdim-bias"` moves the centre so that the frozen network is sure of
# each trial and still uses all classes; `"balanced"` weighs trials so that the
# classes it guesses weigh alike.

# %%
rng = np.random.default_rng(0)
first, second = trials.classes
rare = np.flatnonzero(target.y == second)
kept = rng.permutation(rare)[: len(rare) // 4]
shifted = np.sort(np.concatenate([np.flatnonzero(target.y == first), kept]))
some = {name: column[shifted] for name, column in here.items()}
reached = {"balanced target": score(network, shifted)}
for method in ("refit", "balanced", "spdim-bias"):
    network.set_params(adaptation=method).adapt(target.X[shifted], **some)
    reached[f"4:1, {method}"] = score(network, shifted)
for words, value in reached.items():
    print(f"{words:16} {value:.3f}")
lost = reached["balanced target"] - reached["4:1, refit"]
mended = reached["4:1, spdim-bias"] - reached["4:1, refit"]
print(f"the shift costs {lost:.2f}, of which spdim-bias brings back {mended:.2f}")
assert lost > 0 and mended > 0.5 * lost

# %% [markdown]
# With few trials, or nothing to gain, plain recentring stays and `adaptation_`
# says so.

# %%
few = np.flatnonzero(target.metadata["session"] == "0")[:6]
network.adapt(target.X[few], **{name: column[few] for name, column in here.items()})
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
figure.suptitle(f"{second} against {first}")
figure.savefig(folder / "patterns.png")
print("the picture is in", folder / "patterns.png")
strongest = np.abs(each.topographies[:, :2]).argmax(axis=0)
print("strongest at", *(trials.ch_names[k] for k in strongest))
assert {trials.ch_names[k] for k in strongest} <= {"C3", "C4", "CP5", "CP6", "FC5", "FC6", "Cz"}

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
