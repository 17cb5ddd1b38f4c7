# %% [markdown]
# # Choosing a training method
#
# Perturbed weights, averages, robust losses, unlabelled trials: the literature
# offers dozens of ways to train, and each of them is a plug of one loop here.
# This page names them, puts some into a network, asks what they cost and what
# they bring, and says how to choose: on people held out of the sources, never on
# the person who is to be decoded.

# %%
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import balanced_accuracy_score

import eegtensor as et
from eegtensor.training import METHODS
from eegtensor.transfer import TSMNetClassifier

folder = Path(tempfile.mkdtemp(prefix="eegtensor-11-"))
kinds = {}
for name, method in METHODS.items():
    kinds.setdefault(method.kind, []).append(name)
for kind, names in kinds.items():
    print(f"{kind}: {', '.join(names)}")
print("f-sam:", METHODS["f-sam"])
assert METHODS["f-sam"].kind == "perturbation" and METHODS["f-sam"].cost == "2"
assert "cross-entropy" in kinds["objective"] and len(METHODS) > 60

# %% [markdown]
# ## By name, with options
#
# A method is named in a parameter, with its options as in a call. Objectives add
# up, with weights; perturbations of inputs and of weights go together. What makes
# no sense is refused before anything is trained.

# %%
trials = et.simulate_trials(n_subjects=6, n_trials=40, snr=1.0, random_state=3)
subjects = trials.metadata["subject"].to_numpy()
new = subjects == "06"
source, target = trials[~new], trials[new]


def score(y: np.ndarray, **methods: object) -> tuple[float, float, TSMNetClassifier]:
    """Balanced accuracy on the new person, and CPU seconds of training."""
    network = TSMNetClassifier(epochs=20, random_state=0, **methods)
    start = time.process_time()
    network.fit(source.X, y, subjects=source.subjects, sessions=source.sessions)
    took = time.process_time() - start
    network.adapt(target.X, subjects=target.subjects, sessions=target.sessions)
    said = network.predict(target.X, subjects=target.subjects, sessions=target.sessions)
    return float(balanced_accuracy_score(target.y, said)), took, network


try:
    score(source.y, perturbation=("sam", "f-sam"))
except et.EEGTensorError as error:
    print("refused:", error)
    assert "second pass" in str(error)
else:
    raise AssertionError("two perturbations of the weights were taken")

# %% [markdown]
# ## What they cost, and what they bring
#
# Domains are aligned by the network's batch norm. Once they are, most methods
# neither help nor hurt: alignment has done what they were made for. What they cost
# is known beforehand: a second pass is a second pass.

# %%
tried = {
    "plain": {},
    "sam": {"perturbation": "sam"},
    "f-sam": {"perturbation": "f-sam"},
    "arwp": {"perturbation": "arwp"},
    "swa": {"averager": "swa"},
}
scores, seconds = {}, {}
for name, methods in tried.items():
    scores[name], seconds[name], _ = score(source.y, **methods)
    share = seconds[name] / seconds["plain"]
    print(f"{name:6} new person {scores[name]:.2f}, {share:.1f} x the time")
    assert scores[name] > 0.6

figure, (left, right) = plt.subplots(
    1, 2, figsize=(8, 2.8), sharey=True, layout="constrained"
)
left.barh(list(scores), list(scores.values()), color="tab:blue")
left.axvline(0.5, color="black", linestyle=":", label="chance")
left.set(xlabel="balanced accuracy, new person", xlim=(0, 1))
left.invert_yaxis()
left.legend(loc="lower left")
right.barh(list(seconds), list(seconds.values()), color="tab:grey")
right.set(xlabel="CPU seconds of training")
figure.savefig(folder / "methods.png", dpi=120)
print("picture:", folder / "methods.png")

# %% [markdown]
# ## Where a method is made for the trouble at hand
#
# A third of the labels is wrong here: people did not do what the cue said. Cross
# entropy believes every label; the comp-sum family goes on, with one number tau,
# to the mean absolute error at tau = 2, which no single trial can pull far. It
# learns fewer of the wrong labels. Whether that helps on a new person is another
# question, and few people do not answer it.

# %%
rng = np.random.default_rng(0)
wrong = rng.random(len(source)) < 0.35
classes = np.unique(source.y)
noisy = np.where(wrong, classes[1 - np.searchsorted(classes, source.y)], source.y)
learned = {}
for objective in ("cross-entropy", "comp-sum(tau=2.0)"):
    accuracy, _, network = score(noisy, objective=objective, validation=None)
    said = network.predict(source.X, subjects=source.subjects, sessions=source.sessions)
    fooled = float(np.mean(said[wrong] == noisy[wrong]))
    learned[objective] = fooled
    print(f"{objective:18} new person {accuracy:.2f}, fooled by {fooled:.2f} of them")
    assert accuracy > 0.6 and fooled < 0.5
assert learned["comp-sum(tau=2.0)"] < learned["cross-entropy"]

# %% [markdown]
# ## How to choose
#
# By the people of the sources: leave one of them out, train, adapt to their
# unlabelled trials, score. `benchmark` does that; the target stays out of it.

# %%
result = et.benchmark(
    source,
    {
        "plain": et.make_pipeline("tsmnet", epochs=10),
        "f-sam": et.make_pipeline("tsmnet", epochs=10, perturbation="f-sam"),
    },
    adapt="full",
)
print(result.table())
assert (result.scores["balanced_accuracy"] > 0.6).all()
assert set(result.scores["subject"]) == set(source.metadata["subject"])

# %% [markdown]
# ## Without choosing
#
# `auto` does so inside each fit: decoders count by what they say of source people
# held out. `adapt` lets experts learn the new person's unlabelled trials as well,
# as far as that helped the people held out; where it did not, there are none.
# `QUICK` leaves the network out, which takes minutes.

# %%
auto = et.make_pipeline("auto", align="riemann", candidates=et.auto.QUICK)
auto.fit(source).adapt(target)
decoder = auto["decoder"]
for name, weight in decoder.weights_.items():
    print(f"{name:18} weight {weight:.2f}, alone {decoder.scores_[name]:.2f}")
print(f"people held out {decoder.score_:.2f}, {len(decoder.rounds_)} rounds of experts")
said = auto.predict(target)
print(f"new person {balanced_accuracy_score(target.y, said):.2f}")
assert set(decoder.weights_) <= set(et.auto.QUICK)
assert decoder.score_ > 0.6 and np.mean(said == target.y) > 0.6
