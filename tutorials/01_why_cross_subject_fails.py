# %% [markdown]
# # Why a decoder fails on a new person, and what mends it
#
# A decoder learns on some people and is used on one it has never met. It fails,
# and the usual score does not show it. This page shows how it fails, why, and
# how far unlabelled trials of the new person mend it.
#
# Everything is simulated and takes seconds. Every claim below is an `assert`:
# if it were not so, the page would not run.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

import eegtensor as et
from eegtensor.features import Covariances, TangentSpace
from eegtensor.transfer import Recenter

folder = Path(tempfile.mkdtemp(prefix="eegtensor-01-"))

# %% [markdown]
# ## Eight people
#
# Each imagines moving the left or the right hand, forty times in each of two
# sessions. A movement imagined weakens the rhythm over the opposite side. People
# differ in where their sources lie, how strong these are and how well the
# electrodes sit; sessions of one person differ less.

# %%
trials = et.simulate_trials(n_subjects=8, n_sessions=2, random_state=0)
print(trials)
codes, names = trials.domain
print(f"{len(names)} domains, who was recorded and when:", *map(str, names[:3]), "...")

# %% [markdown]
# ## Within a person it works
#
# The decoder takes covariances to tangent vectors and those to a logistic
# regression. First it learns and is scored within each session.
#
# Balanced accuracy is the share of correct decisions, each class counted the
# same: chance is 0.5. ROC-AUC asks whether trials of one class get *higher
# numbers* than those of the other, wherever the border between them lies.

# %%
decoder = et.make_pipeline("tangent-space")
within = et.benchmark(trials, {"tangent": decoder}, protocol="within-session")
print(within.table())

# %% [markdown]
# ## On a new person it does not, and ROC-AUC hides it
#
# Now each person is held out once; the decoder learns on the seven others.

# %%
across = et.benchmark(trials, {"tangent": decoder}, protocol="leave-one-subject-out")
print(across.table())

own, new = within.table().iloc[0], across.table().iloc[0]
print(
    f"\nbalanced accuracy {own.balanced_accuracy:.2f} within, "
    f"{new.balanced_accuracy:.2f} on a new person"
    f"\nROC-AUC           {own.roc_auc:.2f} within, {new.roc_auc:.2f} on a new person"
)
assert new.balanced_accuracy < own.balanced_accuracy - 0.03
assert new.roc_auc > own.roc_auc

# %% [markdown]
# By ROC-AUC the decoder is *better* on new people: seven people teach it more
# about the direction in which classes differ than forty trials do. By balanced
# accuracy it is worse. Both are right. Look at what it says in each session:

# %%
said = across.predictions
share = (said["y_pred"] == "left_hand").groupby([said["subject"], said["session"]])
share = share.mean().unstack()
print("share of trials called 'left_hand' (the truth is 0.5 everywhere):")
print(share.round(2).to_string())
one_sided = ((share < 0.2) | (share > 0.8)).to_numpy().mean()
print(f"{one_sided:.0%} of the sessions get nearly one answer for every trial")
assert one_sided > 0.3

worst = across.per_person("balanced_accuracy").iloc[:, 0].idxmin()
metrics = ["session", "balanced_accuracy", "roc_auc"]
theirs = across.scores.set_index(["dataset", "subject"]).loc[[worst], metrics]
print(theirs.round(2).to_string())
assert (theirs["balanced_accuracy"] < 0.55).all() and (theirs["roc_auc"] > 0.8).all()

# %% [markdown]
# The direction is right and the border is in the wrong place. ROC-AUC does not
# look at the border, so it cannot see this: a wheelchair that only ever turns
# left can have a good ROC-AUC. That is why every table here shows balanced
# accuracy first.
#
# ## Where the people lie
#
# Covariances are points of a curved space. Measure distances there: between the
# means of two domains, and between the two classes within one domain.

# %%
C = Covariances("oas").fit_transform(trials.X)


def mean_distances(C: np.ndarray) -> tuple[float, float]:
    """Return how far apart domains are, and classes within a domain."""
    domains = et.geometry.frechet_mean(C, segments=codes)
    cells = 2 * codes + (trials.y == "left_hand")
    classes = et.geometry.frechet_mean(C, segments=cells)
    first, second = np.triu_indices(len(names), k=1)
    between = et.geometry.distance(domains[first], domains[second])
    apart = et.geometry.distance(classes[0::2], classes[1::2])
    return float(between.mean()), float(apart.mean())


people, hands = mean_distances(C)
print(f"two domains lie {people:.2f} apart, left and right hand {hands:.2f}")
assert people > 1.5 * hands

# %% [markdown]
# Who was recorded moves a point further than what the person thinks of.
#
# ## Recentring
#
# For each domain d take the Riemannian mean M of its covariances and map each
# covariance X to M^-1/2 X M^-1/2. Every domain then has its mean at the
# identity. No label is used. The map is an isometry: within a domain no
# distance changes.

# %%
domains = {"subjects": trials.subjects, "sessions": trials.sessions}
recentred = Recenter().fit_transform(C, **domains)
people_after, hands_after = mean_distances(recentred)
print(f"before: domains {people:.2f} apart, classes {hands:.2f}")
print(f"after:  domains {people_after:.2f} apart, classes {hands_after:.2f}")
assert people_after < 1e-3
assert np.isclose(hands_after, hands, rtol=1e-6)

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
subjects = np.unique(trials.subjects)
for panel, (when, points) in zip(
    panels, {"before recentring": C, "after recentring": recentred}.items(), strict=True
):
    plane = PCA(2).fit_transform(TangentSpace().fit_transform(points))
    for k, subject in enumerate(subjects):
        for name, marker in (("left_hand", "o"), ("right_hand", "^")):
            here = (trials.subjects == subject) & (trials.y == name)
            panel.scatter(*plane[here].T, s=12, marker=marker, color=f"C{k}")
    panel.set(title=when, xlabel="first component", ylabel="second component")
figure.suptitle("One colour a person; circles left hand, triangles right hand")
figure.savefig(folder / "domains.png")
print("the map of the domains is in", folder / "domains.png")

# %% [markdown]
# ## What recentring gives
#
# `align="riemann"` puts this step into the pipeline. The benchmark calls
# `adapt` with unlabelled trials of the held-out person: none, the first 20 % of
# each session, or all of it.

# %%
aligned = et.make_pipeline("tangent-space", align="riemann")
results = et.benchmark(
    trials,
    {"plain": decoder, "aligned": aligned},
    protocol="leave-one-subject-out",
    adapt=["none", "20%", "full"],
)
print(results.table())
score = results.table()["balanced_accuracy"]
plain, early, full = (
    score["plain", "none"],
    score["aligned", "20%"],
    score["aligned", "full"],
)
assert full > plain + 0.1
assert early > plain + 0.08
# Recentring the sources alone is not enough: the new person must be adapted to.
assert score["aligned", "none"] < plain + 0.05
# A pipeline without alignment has nothing to adapt.
assert score["plain", "full"] == plain

# %% [markdown]
# ## Per session, not per person
#
# The next day the cap sits otherwise. A tool that knows the person but not the
# session recentres both sessions together. Here that is done by giving all
# sessions one name:

# %%
merged = replace(trials, metadata=trials.metadata.assign(session="all"))
per_subject = et.benchmark(merged, {"aligned": aligned}, adapt="full")
half = per_subject.table()["balanced_accuracy"].iloc[0]
print(f"not recentred            {plain:.3f}")
print(f"per subject              {half:.3f}")
print(f"per (subject, session)   {full:.3f}")
print(f"per subject gets {(half - plain) / (full - plain):.0%} of the gain")
assert plain < half < full
assert 0.25 < (half - plain) / (full - plain) < 0.75

# %% [markdown]
# ## What "transductive" means
#
# Under "full" the decoder is adapted on the very trials that are then scored.
# Their labels are not used, but the trials must all be there before the first
# decision: fine for a recording analysed at night, impossible for one used
# live. Under "20%" only earlier trials are used, and the rest is scored. The
# column `transductive` says which is which; it belongs to the mode, and stands
# in the row of a pipeline with nothing to adapt as well.
#
# The two modes also score different trials. For a fair comparison every mode is
# scored once more on the last half of each session: the columns `*_common`.

# %%
flags = results.table()["transductive"]
assert flags["aligned", "20%"] == "no" and flags["aligned", "full"] == "yes"
common = results.table(["balanced_accuracy_common"])
print(common)
gain = common["balanced_accuracy_common"]
early_gain = gain["aligned", "20%"] - gain["plain", "none"]
full_gain = gain["aligned", "full"] - gain["plain", "none"]
print(f"\non the same trials: 20% gains {early_gain:.3f}, full gains {full_gain:.3f}")
assert early_gain > 0.75 * full_gain

# %% [markdown]
# Eight trials of a session bring most of what its forty bring.
#
# ## Honest intervals
#
# Eight people are eight observations, not 640: trials of one person fail
# together. The intervals of `table()` resample people. A binomial interval over
# trials is narrower; it answers for these people, not for the next one.

# %%
row = results.table().loc[("plain", "none")]
width = row["balanced_accuracy_high"] - row["balanced_accuracy_low"]
p = row["balanced_accuracy"]
naive = 2 * 1.96 * np.sqrt(p * (1 - p) / len(trials))
print(f"95 % interval: width {width:.3f} over people, {naive:.3f} over trials")
assert width > 1.2 * naive

# %% [markdown]
# `compare` flips the signs of people's differences, all ways there are. Eight
# people can never give a p below 2 / 2^8 = 0.0078; five never below 0.0625,
# however well a method works.

# %%
tests = results.compare()
tests = tests[tests["better"] == "aligned (full)"].set_index("other")
print("aligned (full) against")
columns = ["scored_on", "difference", "low", "high", "p_corrected", "p_smallest"]
print(tests[columns].round(4).to_string())
assert np.allclose(tests["p_smallest"], 2 / 2**8)
assert tests.loc["plain (none)", "p_corrected"] < 0.05
assert tests.loc["aligned (20%)", "p_corrected"] > 0.05

# %% [markdown]
# That adaptation helps, eight people can say. That "full" is better than "20%"
# they cannot.
#
# ## In short
#
# * Show balanced accuracy; ROC-AUC is blind to a shifted border.
# * People lie further apart than classes; recentring removes that, without labels.
# * The domain is (subject, session), not the subject.
# * Say whether adaptation saw the scored trials.
# * Resample people.
