"""The loop with the network it was built for, small."""

from __future__ import annotations

import pytest
import torch

from eegtensor.models import TSMNet
from eegtensor.training import (
    Batch,
    Checkpoint,
    CrossEntropy,
    DomainBalancedSampler,
    EarlyStopping,
    MomentumSchedule,
    ParamSpace,
    StatisticsGuard,
    balanced_accuracy,
    evaluate,
    make_optimizer,
    momentum_schedule,
    train,
)

PEOPLE = ["ann", "bob", "eve", "joe"]


def simulate(n=160, seed=0):
    """Two classes by the power of a source, each person with a mixing of their own."""
    g = torch.Generator().manual_seed(seed)
    domain = torch.arange(n) % 4
    y = torch.randint(2, (n,), generator=g)
    power = torch.ones(n, 4, 1)
    power[:, 0, 0] = torch.where(y == 1, 3.0, 1.0)
    power[:, 1, 0] = torch.where(y == 1, 1.0, 3.0)
    mixing = torch.eye(4) + 0.4 * torch.randn(4, 4, 4, generator=g)
    x = mixing[domain] @ (power.sqrt() * torch.randn(n, 4, 64, generator=g))
    return Batch(1e-5 * x, y, domain)


def network(device="cpu"):
    return TSMNet(
        4,
        2,
        64,
        domains=PEOPLE,
        temporal_kernel=5,
        n_spatial_filters=8,
        subspace=4,
        random_state=0,
    ).to(device)


@pytest.fixture
def fit(device):
    """Return a function that trains on three people and validates on the fourth."""
    data = simulate().to(device)
    own = data.pick((data.domain < 3).nonzero()[:, 0])
    new = data.pick((data.domain == 3).nonzero()[:, 0])

    def run(*callbacks, checkpoint=None, epochs=10):
        net = network(device)

        def validation(model):
            # Source-free adaptation to the held-out person, for this look alone.
            with StatisticsGuard(model, "transient"):
                model.fit_statistics(new.x, new.domain)
                metrics = {"score": balanced_accuracy}
                scores = evaluate(model, new, CrossEntropy(), metrics=metrics)
            return {f"valid_{name}": value for name, value in scores.items()}

        history = train(
            net,
            own,
            objective=CrossEntropy(),
            optimizer=make_optimizer(net, lr=0.02),
            sampler=DomainBalancedSampler(
                own.domain, own.y, batch_size=30, domains_per_batch=3
            ),
            epochs=epochs,
            validation=validation,
            callbacks=[MomentumSchedule(), EarlyStopping(patience=9), *callbacks],
            checkpoint=checkpoint,
        )
        return net, history

    return run


def test_it_learns_and_adapts(fit):
    net, history = fit()
    assert history.column("train_loss")[-1] < 0.7 * history.column("train_loss")[0]
    assert max(history.column("valid_score")) > 0.8
    assert net.norm.seen.tolist() == [True, True, True, False, True]
    assert net.norm.momenta == momentum_schedule(len(history), 10)
    eye = torch.eye(4, dtype=torch.float64, device=net.bimap.weight.device)
    weight = net.bimap.weight.detach().double()
    assert (weight.mT @ weight - eye).abs().max() < 1e-6
    assert "stiefel" in {a.name for a in ParamSpace(net).adapters.values()}


def test_a_killed_run_goes_on_exactly(fit, tmp_path, equal):
    class Kill:
        def on_step_end(self, state):
            if state.step == 10:
                raise KeyboardInterrupt

    whole, history = fit(epochs=4)
    with pytest.raises(KeyboardInterrupt):
        fit(Kill(), epochs=4, checkpoint=Checkpoint(tmp_path / "run"))
    resumed, again = fit(epochs=4, checkpoint=Checkpoint(tmp_path / "run"))
    assert equal(resumed.state_dict(), whole.state_dict())
    assert again.column("valid_loss") == history.column("valid_loss")


def test_guards_leave_the_domain_norm_as_it_was(device, equal):
    data, net = simulate(80).to(device), network(device)
    net(data.x, data.domain)
    norm = net.norm
    kept = {name: b.clone() for name, b in norm.named_buffers()}
    assert norm._stale, "the pooled row waits for evaluation"
    with StatisticsGuard(net, "eval"):
        assert not norm._stale
        unseen = net(data.x, torch.full_like(data.domain, -1))
    assert norm._stale and equal(dict(norm.named_buffers()), kept)
    with StatisticsGuard(net, "transient"):
        net(2 * data.x, data.domain)
        net.forget(["bob"])
    assert equal(dict(norm.named_buffers()), kept) and len(norm.names) == 4
    net.eval()
    torch.testing.assert_close(
        net(data.x, torch.full_like(data.domain, -1)), unseen, rtol=0, atol=0
    )
