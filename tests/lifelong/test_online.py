"""Online learning: counts of classes with replay, the reservoir, the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.lifelong import OnlineNetwork
from eegtensor.training import Batch, CrossEntropy, train
from eegtensor.training.recipes.onlinestream import OnlineStream, Reservoir
from eegtensor.transfer import TSMNetClassifier


def test_every_trial_is_kept_with_the_same_probability() -> None:
    count = np.zeros(100)
    for seed in range(150):
        reservoir = Reservoir(20, seed)
        for part in torch.arange(100).split(7):
            reservoir.add(part)
        assert len(set(reservoir.kept)) == 20
        count[reservoir.kept] += 1
    # Binomial(150, 0.2): mean 30, deviation 4.9.
    assert abs(count - 30).max() < 4.5 * 4.9
    assert count[:20].mean() == pytest.approx(30, abs=4)
    assert count[-20:].mean() == pytest.approx(30, abs=4)


def test_steps_are_of_what_comes_and_what_came() -> None:
    data = Batch(torch.zeros(100, 1), torch.zeros(100, dtype=torch.int64))
    seen = []

    class Watch:
        def on_step_end(self, state):
            seen.append(state.context.batch.index.tolist())

    recipe = OnlineStream(batch_size=10, replay=15, buffer=20)
    net = nn.Linear(1, 2)
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        recipe=recipe,
        epochs=1,
        callbacks=[Watch()],
    )
    assert [len(s) for s in seen] == [10, 20] + [25] * 8
    for t, step in enumerate(seen):
        assert step[:10] == list(range(10 * t, 10 * t + 10))
        assert all(i < 10 * t for i in step[10:])
        assert len(set(step)) == len(step)
    assert recipe.reservoir.n_seen == 100


@pytest.fixture(scope="module")
def network(people):
    seen, _ = people
    net = TSMNetClassifier(
        n_spatial_filters=6, subspace=4, epochs=3, batch_size=24, validation=None
    )
    return net.fit(seen.X, seen.y, **seen.domains)


def test_a_session_is_learned_in_parts(people, network) -> None:
    _, held = people
    new = held.pick(held.subjects == held.subjects[0])
    new = new._replace(subjects=np.full(len(new.X), "eve"))
    online = OnlineNetwork(FrozenEstimator(network), buffer=9, lr=0.01)
    for part in (slice(0, 8), slice(8, None)):
        online.partial_fit(
            new.X[part],
            new.y[part],
            subjects=new.subjects[part],
            sessions=new.sessions[part],
        )
    assert online.n_seen_ == len(new.X)
    assert len(online.memory_) == 9
    assert "eve" in {d.subject for d in online.estimator_.network_.norm.names}
    # The network given is as it was.
    assert "eve" not in {d.subject for d in network.network_.norm.names}
    assert online.predict(new.X, **new.domains).shape == (len(new.X),)
    p = online.predict_proba(new.X, **new.domains)
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-6)
    before = network.predict_proba(new.X)
    assert np.abs(before - online.predict_proba(new.X, **new.domains)).max() > 1e-4


def test_mistakes_are_named(people, network) -> None:
    seen, _ = people
    with pytest.raises(EEGTensorError, match="no fitted network"):
        OnlineNetwork(TSMNetClassifier()).partial_fit(seen.X, seen.y)
    with pytest.raises(EEGTensorError, match="none of the classes"):
        OnlineNetwork(network).partial_fit(
            seen.X[:4], ["other"] * 4, subjects=["a"] * 4
        )
