# %% [markdown]
# # Domains: subject, session, unseen
#
# A domain is one sitting of one person: (dataset, subject, session). Whatever
# is learned per person, a mean, a scale, a batch norm, is learned per domain.
# This page shows how domains travel, what a decoder does with one it has never
# met, and the ways to make it known.

# %%
import inspect
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

import eegtensor as et
from eegtensor.domains import UNSEEN, DomainTable, domain_names
from eegtensor.features import Covariances
from eegtensor.transfer import Recenter

folder = Path(tempfile.mkdtemp(prefix="eegtensor-03-"))

# %% [markdown]
# ## Names and codes
#
# Trials carry their domain in the metadata. `trials.domain` numbers the domains
# in order of appearance. Two datasets may both have a person 01: they are two
# people.

# %%
trials = et.simulate_trials(n_subjects=6, random_state=0)
elsewhere = et.simulate_trials(n_subjects=1, random_state=1)
elsewhere = replace(
    elsewhere, metadata=elsewhere.metadata.assign(dataset="another lab")
)
both = et.concatenate([trials, elsewhere])
codes, names = both.domain
print(f"{len(both)} trials, {len(names)} domains")
print("first:", names[0], " last:", names[-1])
assert names[0].subject == names[-1].subject == "01"
assert codes[0] != codes[-1]
assert len(np.unique(both.subjects)) == 7

# %% [markdown]
# A fitted estimator or network keeps a table of its own. What is not in the
# table gets the code -1, `UNSEEN`. Names are compared as strings, so 1 and "1"
# are the same person. A missing name is an error: such a trial would be
# normalised with somebody else's statistics.

# %%
table = DomainTable()
table.encode(domain_names(3, subjects=["ann", "bob", "ann"]), grow=True)
new = table.encode(domain_names(2, subjects=["bob", "eve"]))
print("ann, bob are known; bob, eve become", new)
assert new.tolist() == [1, UNSEEN]
assert domain_names(1, subjects=[1]) == domain_names(1, subjects=["1"])

try:
    domain_names(2, subjects=["ann", None])
    raise AssertionError("a missing name was accepted")
except et.EEGTensorError as error:
    print(error)

# %% [markdown]
# ## Three policies for an unseen domain
#
# Five people are the source, the sixth is new. `Recenter` knows the means of the
# source's domains. `unseen` says what `transform` does with a new one:
#
# * "pooled", the default: use the mean of the sources' means;
# * "adapt": use the mean of the batch that is given;
# * "raise": refuse, and name the domain.

# %%
is_new = trials.metadata["subject"] == "06"
source, target = trials[~is_new], trials[is_new]
covariances = Covariances("oas")
C_source = covariances.fit_transform(source.X)
C_target = covariances.transform(target.X)


def domains_of(some: et.Trials) -> dict[str, np.ndarray]:
    """Return the domain keywords that every estimator takes."""
    return {"subjects": some.subjects, "sessions": some.sessions}


def off_centre(C: np.ndarray) -> np.ndarray:
    """Return the distance of each target session's mean from the identity."""
    means = et.geometry.frechet_mean(C, segments=target.domain.codes)
    return et.geometry.distance(means, np.eye(C.shape[-1]))


for unseen in ("pooled", "adapt"):
    recenter = Recenter(unseen=unseen).fit(C_source, **domains_of(source))
    away = off_centre(recenter.transform(C_target, **domains_of(target)))
    print(f"unseen={unseen!r}: session means lie {away.round(3)} off the centre")
    assert (away < 1e-6).all() if unseen == "adapt" else (away > 1).all()

strict = Recenter(unseen="raise").fit(C_source, **domains_of(source))
try:
    strict.transform(C_target, **domains_of(target))
    raise AssertionError("an unseen domain was accepted")
except et.EEGTensorError as error:
    print(error)

# %% [markdown]
# "adapt" looks convenient, and makes a decision depend on the other trials of
# the batch. Predicting the same trials in two halves gives other answers than
# predicting them at once. That is why "pooled" is the default, why benchmarks
# always use it, and why adapting is a call of its own.

# %%
first_half = target.sessions == "0"
first_half[np.flatnonzero(first_half)[20:]] = False
batchwise = Recenter(unseen="adapt").fit(C_source, **domains_of(source))
together = batchwise.transform(C_target, **domains_of(target))[first_half]
apart = batchwise.transform(C_target[first_half], **domains_of(target[first_half]))
moved = et.geometry.distance(together, apart)
print(f"the same trials come out {moved.mean():.2f} apart")
assert (moved > 0.01).all()

# %% [markdown]
# ## `adapt`: a batch without labels
#
# `adapt` sets the statistics of the domains in an unlabelled batch. From then on
# they are known: each trial is treated the same, whatever comes with it.

# %%
pipe = et.make_pipeline("tangent-space", align="riemann").fit(source)


def score(fitted: et.Pipeline, some: et.Trials = target) -> float:
    """Return the balanced accuracy on some trials."""
    return float(balanced_accuracy_score(some.y, fitted.predict(some)))


unadapted = score(pipe)
pipe.adapt(target)
adapted = score(pipe)
print(f"balanced accuracy: not adapted {unadapted:.3f}, adapted {adapted:.3f}")
assert adapted > unadapted + 0.1
alone = np.concatenate([pipe.predict(target[i]) for i in range(len(target))])
assert (alone == pipe.predict(target)).all()

# %% [markdown]
# `pipe.fit(source)` took labels and domains from the trials. With arrays one
# passes them; it is the same.

# %%
by_arrays = et.make_pipeline("tangent-space", align="riemann")
by_arrays.fit(source.X, source.y, **domains_of(source))
by_arrays.adapt(target.X, **domains_of(target))
assert (by_arrays.predict(target.X, **domains_of(target)) == pipe.predict(target)).all()

# %% [markdown]
# ## One trial is not a batch
#
# The mean of one trial is that trial: recentring would turn it into the
# identity, whatever it was. So both ways to estimate from a batch refuse.

# %%
for attempt in (
    lambda: clone(pipe).fit(source).adapt(target[0]),
    lambda: batchwise.transform(C_target[:1], subjects="06", sessions="0"),
):
    try:
        attempt()
        raise AssertionError("a single trial was enough")
    except et.EEGTensorError as error:
        print(error)

# %% [markdown]
# ## `partial_adapt`: trial by trial
#
# Live, trials come one after the other. `partial_adapt` starts a new domain at
# the sources' mean, which counts as `prior_trials` trials, and moves it a step
# along the geodesic to each new one. So the first trial can be used already. How
# soon does the streamed mean come near the mean of the whole session?

# %%
session = target[target.sessions == "1"]
C_session = covariances.transform(session.X)
goal = et.geometry.frechet_mean(C_session)
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
halfway = []
for prior in (1.0, 5.0, 20.0):
    stream = Recenter(prior_trials=prior).fit(C_source, **domains_of(source))
    way = [float(et.geometry.distance(stream.pooled_, goal))]
    for k in range(len(session)):
        stream.partial_adapt(C_session[k : k + 1], **domains_of(session[k]))
        way.append(float(et.geometry.distance(stream.statistics_[-1], goal)))
    axes.plot(way, label=f"prior_trials={prior:g}")
    print(f"prior_trials={prior:g}: {way[0]:.2f} -> {way[10]:.2f} -> {way[-1]:.2f}")
    assert way[-1] < way[10] < way[0]
    halfway.append(way[20])
assert halfway == sorted(halfway)
axes.set(xlabel="trials seen", ylabel="distance to the session's mean", ylim=(0, None))
axes.legend()
figure.savefig(folder / "stream.png")
print("the picture is in", folder / "stream.png")

# %% [markdown]
# How do the ways compare, over all six people? "online" adapts to each trial
# just before it is predicted.

# %%
modes = ["none", "online", "20%", "full"]
aligned = et.make_pipeline("tangent-space", align="riemann")
results = et.benchmark(trials, {"aligned": aligned}, adapt=modes)
print(results.table())
found = results.table()["balanced_accuracy"]["aligned"]
assert min(found["online"], found["20%"], found["full"]) > found["none"] + 0.05

# %% [markdown]
# ## Without domains
#
# `predict` without domains uses the domain that was adapted last. That suits a
# program that serves one person at a time. Before any `adapt` it uses the
# sources' common statistic, as unseen="pooled" does.

# %%
fresh = clone(pipe).fit(source)
pooled = fresh.predict(target)
assert (fresh.predict(target.X) == pooled).all()
fresh.adapt(session)
assert (fresh.predict(session.X) == fresh.predict(session)).all()

# %% [markdown]
# A trap of transformers with domains: scikit-learn users expect
# `fit(X).transform(X)` to equal `fit_transform(X)`. It does, if the domains are
# given to both. Where they are given to `fit` alone, `transform` can only use
# the common mean.

# %%
given = domains_of(source)
at_once = Recenter().fit_transform(C_source, **given)
assert np.allclose(
    Recenter().fit(C_source, **given).transform(C_source, **given), at_once
)
assert not np.allclose(Recenter().fit(C_source, **given).transform(C_source), at_once)

# %% [markdown]
# ## Why domains are not packed into the labels
#
# Some tools write the domain into the label: "01/left_hand". It looks handy,
# since every estimator takes y. But a packed label is another class to whoever
# does not unpack it, and `predict` has no y: a new trial cannot say whose it is.

# %%
packed = np.char.add(np.char.add(source.subjects, "/"), source.y)
vectors = et.make_pipeline("tangent-space")[:-1].fit_transform(source)
naive = LogisticRegression(max_iter=200).fit(vectors, packed)
print(f"{len(source.classes)} classes have become {len(naive.classes_)}:")
print(*naive.classes_[:4], "...")
print("predict takes", list(inspect.signature(naive.predict).parameters))
assert len(naive.classes_) == 2 * 5
assert "subjects" not in inspect.signature(naive.predict).parameters
assert "subjects" in inspect.signature(pipe.predict).parameters

# %% [markdown]
# ## In short
#
# * A domain is (dataset, subject, session); estimators take `subjects` and
#   `sessions` in `fit`, `adapt` and `predict`, or find them in `Trials`.
# * Unseen domains get the sources' statistic, unless you adapt first.
# * `adapt` needs a batch, `partial_adapt` a stream; neither needs a label.
