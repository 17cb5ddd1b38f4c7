# %% [markdown]
# # Alignment in a pipeline
#
# Alignment is a step of a pipeline, like scaling. This page puts the steps
# together by name and by hand, uses them in scikit-learn, weighs trials, goes
# from classes to numbers, and ends with an aligner of one's own.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.preprocessing import StandardScaler

import eegtensor as et
from eegtensor.features import Covariances, TangentSpace
from eegtensor.transfer import (
    BalancedRecenter,
    EuclideanAlignment,
    PerDomain,
    Recenter,
    Rescale,
    Rotate,
)

folder = Path(tempfile.mkdtemp(prefix="eegtensor-04-"))
trials = et.simulate_trials(n_subjects=6, random_state=0)
print(trials)

# %% [markdown]
# ## By name, and by hand
#
# `et.PIPELINES` is the table of names. `make_pipeline` returns an ordinary
# pipeline: print it, change its parameters, or build the same one yourself.

# %%
print(*et.PIPELINES)
named = et.make_pipeline("tangent-space", align="riemann")
print(named)


def decoder(reference: str = "mean") -> list[tuple[str, object]]:
    """Return the steps from covariances to classes."""
    return [
        ("tangent", TangentSpace(reference=reference)),
        ("scale", StandardScaler()),
        ("decoder", LogisticRegression(C=0.1, max_iter=1000)),
    ]


by_hand = et.Pipeline(
    [("covariances", Covariances("oas")), ("align", Recenter()), *decoder("identity")]
)
assert (by_hand.fit(trials).predict(trials) == named.fit(trials).predict(trials)).all()
assert clone(named).set_params(decoder__C=1.0).get_params()["decoder__C"] == 1.0

# %% [markdown]
# ## Which alignment?
#
# * `EuclideanAlignment` whitens the *signals* of each domain by its arithmetic
#   mean covariance. Anything may follow, a network too.
# * `Recenter` moves the Riemannian mean of each domain's *covariances* to the
#   identity.
# * `Rescale` then gives all domains the same spread.
# * `Rotate` then turns each domain until its class means point like those of
#   the others; an unlabelled person gets guessed classes for that.

# %%
cov = ("covariances", Covariances("oas"))
candidates = {
    "none": et.Pipeline([cov, *decoder()]),
    "euclidean": et.Pipeline([("align", EuclideanAlignment()), cov, *decoder()]),
}
steps = [cov]
for name, step in (
    ("recentre", Recenter()),
    ("+ rescale", Rescale()),
    ("+ rotate", Rotate()),
):
    steps.append((name, step))
    candidates[name] = et.Pipeline([*steps, *decoder("identity")])

results = et.benchmark(trials, candidates, adapt="full")
print(results.table())
score = results.table()["balanced_accuracy"].droplevel("adapt")
aligned = score.drop("none")
assert (aligned > score["none"] + 0.1).all()
assert aligned.max() - aligned.min() < 0.08

# %% [markdown]
# Aligning matters; which alignment matters much less. And do not trust the last
# digits: what rescaling and rotating add to recentring is within chance for
# these six people, and there are others who lose by it.

# %%
pairs = results.compare()
for step in ("+ rescale", "+ rotate"):
    both = [f"{step} (full)", "recentre (full)"]
    here = pairs[pairs["better"].isin(both) & pairs["other"].isin(both)]
    p = here["p_corrected"].item()
    print(f"{step:9} against recentring alone: p = {p:.2f}")
    assert p > 0.05

others = et.simulate_trials(n_subjects=4, random_state=5)
two = {name: candidates[name] for name in ("recentre", "+ rotate")}
rerun = et.benchmark(others, two, adapt="full").table()["balanced_accuracy"]
rerun = rerun.droplevel("adapt")
print("what '+ rotate' adds to 'recentre':")
print(f"  these people  {score['+ rotate'] - score['recentre']:+.3f}")
print(f"  four others   {rerun['+ rotate'] - rerun['recentre']:+.3f}")
assert score["+ rotate"] > score["recentre"] and rerun["+ rotate"] < rerun["recentre"]

# %%
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
people = results.per_person().droplevel("adapt", axis=1)
axes.plot(people.T.to_numpy(), color="0.7")
axes.plot(people.mean().to_numpy(), "o-", color="C0", label="mean of 6 people")
axes.axhline(0.5, color="k", linewidth=0.8, linestyle="--", label="chance")
axes.set_xticks(range(len(people.columns)), people.columns)
axes.set(ylabel="balanced accuracy")
axes.legend()
figure.savefig(folder / "aligners.png")
print("the picture is in", folder / "aligners.png")

# %% [markdown]
# ## In scikit-learn
#
# The pipelines are scikit-learn estimators: `clone`, `get_params`, searches and
# cross-validation take them. Cross-validation knows no `adapt`, so let unseen
# domains be estimated from the batch (`unseen="adapt"`), and hand the domains
# over by metadata routing.

# %%
batchwise = et.make_pipeline("tangent-space", align="riemann", unseen="adapt")
domains = {"subjects": trials.subjects, "sessions": trials.sessions}
with sklearn.config_context(enable_metadata_routing=True):
    routed, by_name = (
        cross_val_score(
            batchwise,
            trials.X,
            trials.y,
            cv=LeaveOneGroupOut(),
            params={**domains, "groups": trials.subjects},
            scoring=scoring,
        ).mean()
        for scoring in (None, "balanced_accuracy")
    )
ours = results.table("accuracy").loc[("recentre", "full"), "accuracy"]
print(f"accuracy by scikit-learn {routed:.4f}, by our benchmark {ours:.4f}")
assert np.isclose(routed, ours)

# %% [markdown]
# A trap: with `scoring=None` scikit-learn calls the pipeline's own `score`, which
# gets the domains. A scorer by name calls `predict` *without* them, and the new
# person is not aligned:

# %%
print(f"scoring='balanced_accuracy' {by_name:.4f}")
assert by_name < routed - 0.1

# %% [markdown]
# `et.benchmark` hands the domains to every call, adapts under every mode and
# scores balanced accuracy. Prefer it.
#
# ## When one class is rare
#
# Recentring assumes that all domains hold the same mixture of classes. Where a
# person mostly rests, the mean moves towards rest and takes the border along.
# `align="riemann-balanced"` (`BalancedRecenter`) weighs the classes equally,
# guessing them for a new person and repeating until the guesses stay. Here each
# person prefers one class:

# %%
skewed = et.simulate_trials(n_subjects=6, class_prior_shift=0.7, random_state=0)
counts = np.unique_counts(skewed.y[skewed.metadata["subject"] == "01"]).counts
print("person 01 has", counts, "trials of", *skewed.classes)
assert counts.max() > 4 * counts.min()

gains = {}
for words, snr in (("classes apart", 3.0), ("classes overlap", 0.5)):
    skewed = et.simulate_trials(
        n_subjects=6, class_prior_shift=0.7, snr=snr, random_state=0
    )
    compared = et.benchmark(
        skewed,
        {
            "plain": et.make_pipeline("tangent-space", align="riemann"),
            "balanced": et.make_pipeline("tangent-space", align="riemann-balanced"),
        },
        adapt="full",
    )
    found = compared.table()["balanced_accuracy"].droplevel("adapt")
    gains[words] = found["balanced"] - found["plain"]
    print(f"{words:16} plain {found['plain']:.3f}, balanced {found['balanced']:.3f}")
assert gains["classes apart"] > 0.05
assert abs(gains["classes overlap"]) < 0.02

# %% [markdown]
# Where classes separate the guesses are good and it gains. Where they overlap
# the guesses are poor, and it gains nothing. It is a classifier around a
# classifier of matrices, so it can hold any:

# %%
wrapped = et.Pipeline([cov, ("decoder", BalancedRecenter(et.Pipeline(decoder())))])
wrapped.fit(skewed).adapt(skewed)
print(wrapped.named_steps["decoder"])

# %% [markdown]
# ## Weights
#
# `fit` takes `sample_weight` and hands it to every step that can use it. Suppose
# the protocol calls 160 of the 400 source trials doubtful, and in half of these
# the label is wrong. Weigh doubtful trials little.

# %%
rng = np.random.default_rng(0)
new = trials.metadata["subject"] == "06"
source, target = trials[~new], trials[new]
doubtful = rng.permutation(len(source)) < 160
y = source.y.copy()
flipped = doubtful & (rng.random(len(source)) < 0.5)
y[flipped] = np.where(y[flipped] == "left_hand", "right_hand", "left_hand")
weights = np.where(doubtful, 0.05, 1.0)

sure = {}
for words, sample_weight in (("equal", None), ("weighted", weights)):
    pipe = clone(named).fit(
        source.X,
        y,
        subjects=source.subjects,
        sessions=source.sessions,
        sample_weight=sample_weight,
    )
    p = pipe.adapt(target).predict_proba(target)
    truth = np.searchsorted(trials.classes, target.y)
    sure[words] = p[np.arange(len(target)), truth].mean()
    print(f"{words:9} mean probability of the true class {sure[words]:.3f}")
assert sure["weighted"] > sure["equal"]

# %% [markdown]
# ## Numbers instead of classes
#
# The same pipelines do regression with `task="regression"`. Here a rhythm over
# C3 grows with an effort that each trial notes in its metadata, and every person
# hears it through other electrode gains.

# %%
rest = et.simulate_trials(n_subjects=6, snr=0.0, random_state=3)
effort = rng.uniform(0.0, 1.0, len(rest))
rhythm = rng.standard_normal((len(rest), rest.X.shape[2])) * 8e-6
near_c3 = np.array([np.exp(-abs(k - rest.ch_names.index("C3"))) for k in range(16)])
X = rest.X + (0.5 + effort)[:, None, None] * near_c3[:, None] * rhythm[:, None]
codes, names = rest.domain
X *= np.exp(0.5 * rng.standard_normal((len(names), 16)))[codes][:, :, None]
working = et.Trials(X, None, rest.metadata.assign(effort=effort), rest.info)

regressions = et.benchmark(
    working,
    {
        "plain": et.make_pipeline("tangent-space", task="regression", C=0.01),
        "riemann": et.make_pipeline(
            "tangent-space", task="regression", C=0.01, align="riemann"
        ),
    },
    adapt="full",
    target="effort",
)
print(regressions.table())
r2 = regressions.table()["r2"].droplevel("adapt")
assert r2["riemann"] > r2["plain"] + 0.1 and r2["riemann"] > 0

# %% [markdown]
# ## An aligner of your own
#
# `PerDomain` keeps one statistic per domain and knows `fit`, `adapt`,
# `partial_adapt`, `transform` and what to do with unseen domains. You say what
# the statistic is. This one gives every channel the same power in every domain:
# gains are mended, mixing is not.


# %%
class ChannelGains(PerDomain):
    """Divide each channel by its root mean square in the domain."""

    def __init__(self, unseen: str = "pooled", prior_trials: float = 5.0) -> None:
        self.unseen = unseen
        self.prior_trials = prior_trials

    def _check(self, X):
        return np.asarray(X, dtype=float)

    def _statistics(self, X, codes, n_domains, weights):
        power = (X**2).mean(axis=2)
        w = np.ones(len(X)) if weights is None else weights
        each = [codes == k for k in range(n_domains)]
        return np.stack([np.average(power[k], axis=0, weights=w[k]) for k in each])

    def _pool(self, statistics, counts):
        return np.average(statistics, axis=0, weights=counts)

    def _update(self, statistic, x, weight):
        return (1 - weight) * statistic + weight * (x**2).mean(axis=1)

    def _apply(self, X, statistics, codes):
        return X / np.sqrt(statistics[codes])[:, :, None]


own = et.Pipeline([("align", ChannelGains()), cov, *decoder()])
mine = et.benchmark(trials, {"gains": own}, adapt="full")
print(mine.table())
gains = mine.table()["balanced_accuracy"].iloc[0]
print(
    f"none {score['none']:.3f} < gains {gains:.3f} < recentre {score['recentre']:.3f}"
)
assert score["none"] + 0.03 < gains < score["recentre"] - 0.03
