"""Stages of self-training, and what the cluster check is worth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from _toy_spd import recentred, tangent_vectors, toy_three
from _toy_training import Perceptron, fit

from eegtensor import EEGTensorError
from eegtensor.training import (
    UNLABELLED,
    Batch,
    CrossEntropy,
    Setup,
    ShuffleSampler,
    TrainState,
    make_optimizer,
    make_plugs,
    train,
)
from eegtensor.training.recipes import SelfTraining
from eegtensor.training.recipes.clusters import accept


def blobs(n=90, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return 6 * np.eye(3)[y] + rng.standard_normal((n, 3)), y


def test_accepted_are_the_most_confident_that_their_cluster_agrees_on():
    h, truth = blobs()
    known = np.where(np.arange(90) < 9, truth, UNLABELLED)
    rng = np.random.default_rng(1)
    # A classifier that is sure, and wrong on some.
    guess = np.where(rng.random(90) < 0.3, (truth + 1) % 3, truth)
    p = np.full((90, 3), 0.1)
    p[np.arange(90), guess] = 0.8 + 0.1 * rng.random(90)
    found = accept(p, h, known, per_class=10)
    got = found != UNLABELLED
    assert not got[:9].any() and got.any()
    # Blobs are so far apart that clusters know the truth: only wrong ones fall out.
    for c in range(3):
        free = np.flatnonzero((known == UNLABELLED) & (guess == c))
        top = free[np.argsort(-p[free].max(1))[:10]]
        np.testing.assert_array_equal(
            np.flatnonzero(found == c), np.sort(top[truth[top] == c])
        )


def test_stages_keep_what_was_accepted_and_what_was_known():
    h, truth = blobs()
    known = np.where(np.arange(90) < 12, truth, UNLABELLED)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    data = Batch(torch.from_numpy(h).float(), torch.from_numpy(known))
    recipe = SelfTraining(ShuffleSampler(90, batch_size=30), stages=3, per_class=8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    state = TrainState(net, optimizer, 9, 90, 0, torch.device("cpu"))
    labels = []
    for epoch in range(1, 10):
        state.epoch = epoch
        seen = torch.full((90,), -7)
        for step in recipe.steps(state, data):
            seen[step.batch.index] = step.batch.y
            loss = torch.nn.functional.cross_entropy(
                net(step.batch.x), step.batch.y, ignore_index=-1
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        labels.append(seen)
    counts = [int((row != UNLABELLED).sum()) for row in labels]
    # Stages begin with epochs 4 and 7.
    assert (
        counts[0] == counts[2] == 12
        and counts[3] == counts[5]
        and counts[6] == counts[8]
    )
    assert 12 < counts[3] <= 36 and counts[3] < counts[6] <= 60
    for earlier, later in itertools.pairwise(labels):
        kept = earlier != UNLABELLED
        assert torch.equal(earlier[kept], later[kept])
    assert torch.equal(labels[-1][:12], torch.from_numpy(truth[:12]))
    again = SelfTraining(ShuffleSampler(90, batch_size=30))
    again.load_state_dict(recipe.state_dict())
    assert torch.equal(again.pseudo_labels, recipe.pseudo_labels)


def test_the_cluster_check_makes_labels_more_often_right_on_toy_spd():
    rows = []
    for seed in range(3):
        C, y, person = toy_three(seed)
        C = recentred(C, person)
        V = tangent_vectors(C)
        V = (V - V.mean(0)) / V.std(0)
        rng = np.random.default_rng(seed)
        known = np.full(len(y), UNLABELLED)
        for c in range(3):
            known[rng.permutation(np.flatnonzero(y == c))[:2]] = c
        data = Batch(torch.from_numpy(V).float(), torch.from_numpy(known))
        net = Perceptron(seed)
        fit(net, data, seed, epochs=15, sampler="shuffle")
        with torch.no_grad():
            p = net(data.x).softmax(1).numpy()
            h = net.act(net.hidden(data.x)).double().numpy()
        checked = accept(p, h, known, per_class=40, seed=seed)
        sure = np.full(len(y), UNLABELLED)
        for c in range(3):
            free = np.flatnonzero((known == UNLABELLED) & (p.argmax(1) == c))
            sure[free[np.argsort(-p[free].max(1))[:40]]] = c
        rows.append(
            [(labels == y)[labels != UNLABELLED].mean() for labels in (checked, sure)]
        )
    right = np.mean(rows, axis=0)
    assert right[0] >= right[1]


def test_mistakes():
    sampler = ShuffleSampler(4)
    with pytest.raises(EEGTensorError, match="stages=0"):
        SelfTraining(sampler, stages=0)
    with pytest.raises(EEGTensorError, match="No trial has a label"):
        accept(np.ones((4, 2)), np.ones((4, 3)), np.full(4, -1), 1)


def test_a_second_run_begins_without_the_labels_of_the_first():
    h, truth = blobs()
    known = np.where(np.arange(90) < 12, truth, UNLABELLED)
    data = Batch(torch.from_numpy(h).float(), torch.from_numpy(known))
    recipe = SelfTraining(ShuffleSampler(90, batch_size=30), stages=2, per_class=8)
    rows = []

    class See:
        def on_epoch_start(self, state):
            found = recipe.pseudo_labels
            rows.append(0 if found is None else int((found != UNLABELLED).sum()))

    for _ in range(2):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            net = torch.nn.Linear(3, 3)
        train(
            net,
            data,
            objective=CrossEntropy(),
            optimizer=make_optimizer(net, "adam", lr=0.05),
            recipe=recipe,
            epochs=4,
            callbacks=[See()],
        )
    assert rows[:4] == rows[4:] and rows[3] > 0


def test_by_name_its_batches_are_those_of_the_run_with_their_weights(trials):
    data = trials(60)
    data.y[::3] = UNLABELLED
    net = torch.nn.Linear(8, 2)
    setup = Setup(net, data, epochs=4, batch_size=20, domains_per_batch=2)
    made = make_plugs(setup, recipe="m3s", sampler="domain-balanced")
    assert made["recipe"].sampler is made["sampler"]
    own = SelfTraining(ShuffleSampler(60))
    assert make_plugs(setup, recipe=own)["recipe"].sampler is own.sampler
    weights = torch.linspace(0.5, 2.0, 60)
    own.sampler.weights = lambda epoch: weights
    state = TrainState(net, made["optimizer"], 4, 60, 0, torch.device("cpu"), epoch=1)
    twice = Batch(data.x, data.y, weight=torch.full((60,), 2.0))
    for step in own.steps(state, twice):
        assert torch.equal(step.batch.weight, 2 * weights[step.batch.index])


@pytest.mark.parametrize(
    "options", [{"stages": 2.5}, {"per_class": 0}, {"n_clusters": -1}], ids=str
)
def test_options_out_of_range(options):
    with pytest.raises(EEGTensorError, match="What to do"):
        SelfTraining(ShuffleSampler(4), **options)
