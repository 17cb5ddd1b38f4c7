"""Every objective, perturbation and sampler by name: on odd batches, and resumed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor.training import (
    METHODS,
    Batch,
    Checkpoint,
    Setup,
    make_plugs,
    train,
)
from eegtensor.training.registry import names_of

# Options that make short runs look at what the method does; those left out have
# outputs of another kind, or an archive.
OPTIONS = {
    "aldr": "aldr(lam=1.0)",
    "ensloss": "ensloss(period=1)",
    "group-order": "group-order(n_negatives=3)",
    "hessian-alignment": "hessian-alignment(alpha=0.1, beta=0.1, start=0.0)",
    "nnpu": "nnpu(prior=0.4)",
    "vat": "vat(ramp=1)",
    "tnar": "tnar(ramp=1, n_directions=2)",
    "pani": "pani(ramp=1, patch=5, n_neighbours=3)",
    "smooth-adversarial": "smooth-adversarial(n_steps=2)",
    "pani-mixup": "pani-mixup(patch=5, n_neighbours=3)",
    "f-sam": "f-sam(rho=0.5)",
    "rwp": "rwp(sigma=0.3)",
    "gradient-norm": "gradient-norm(bound=0.01, rate=1.0)",
    "equity": "equity(clusters=3)",
    "importance": "importance(tau=0.9)",
    "difficulty-band": "difficulty-band(warmup=1, every=2)",
    "rs2": "rs2(ratio=0.4)",
}
LEFT = {"deep-cca", "self-similarity", "backward-compatible"}
NAMES = [
    (kind, name)
    for kind in ("objective", "perturbation", "sampler")
    for name in names_of(kind)
    if name not in LEFT
]


class Net(nn.Module):
    """Takes recordings; every trial on its own, so that a batch may be one."""

    def __init__(self, unit=1.0, wide=6):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.conv = nn.Conv1d(3, 4, 5)
            self.hidden = nn.Linear(4, wide)
            self.head = nn.Linear(wide, 2)
        self.unit = unit

    def forward(self, x):
        power = self.conv(x / self.unit).square().mean(2)
        return self.head(torch.tanh(self.hidden(power)))


def recordings(n=24, n_domains=3, unit=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 20, generator=g)
    y = torch.arange(n) % 2
    x[y == 1, 0] *= 2.0
    return Batch(unit * x, y, torch.arange(n) * n_domains // n)


class Killed(Exception):
    pass


class Kill:
    """End a run from outside before an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_start(self, state):
        if state.epoch == self.epoch:
            raise Killed


def run(kind, name, data, *, net=None, epochs=2, batch_size=6, **more):
    net = Net() if net is None else net
    setup = Setup(net, data, epochs=epochs, batch_size=batch_size, lr=0.01)
    named = {"objective": "cross-entropy", "sampler": "shuffle"}
    spec = OPTIONS.get(name, name)
    if kind == "objective":
        # A second pass at each step: what is remembered must not be of both.
        named |= {"objective": ("cross-entropy", spec), "perturbation": "sam"}
    else:
        named[kind] = spec
    plugs = make_plugs(setup, **named)
    train(net, data, epochs=epochs, random_state=3, **plugs, **more)
    return {n: p.detach().clone() for n, p in net.named_parameters()}


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_a_run_goes_on_as_if_never_stopped(kind, name, tmp_path, equal):
    data, more = recordings(18), {"epochs": 3}
    whole = run(kind, name, data, **more)
    checkpoint = Checkpoint(tmp_path / "run.safetensors")
    with pytest.raises(Killed):
        run(kind, name, data, checkpoint=checkpoint, callbacks=[Kill(3)], **more)
    assert equal(whole, run(kind, name, data, checkpoint=checkpoint, **more))


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_single_trials_one_domain_and_none_known(kind, name):
    """A batch of one, a domain without labels, one domain, a class that is absent."""
    data = recordings(12)
    known = data.y.clone()
    known[data.domain == 1] = -1
    known[:4] = 0
    torch.manual_seed(7)
    before = torch.get_rng_state()
    alone = Batch(data.x, data.y, torch.zeros_like(data.domain))
    for trials, size in ((Batch(data.x, known, data.domain), 3), (alone, 6)):
        found = run(kind, name, trials, batch_size=size, epochs=1)
        assert all(torch.isfinite(p).all() for p in found.values())
    if name not in ("domain-balanced", "belief-proportions"):
        some = Batch(data.x, known, data.domain)
        found = run(kind, name, some, batch_size=1, epochs=1)
        assert all(torch.isfinite(p).all() for p in found.values())
    # Torch's own numbers are left alone.
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_the_unit_of_the_signals_does_not_matter(kind, name):
    # A power of two: nothing is rounded, and only absolute thresholds would show.
    unit = 2.0**-20
    plain = run(kind, name, recordings(12), epochs=1)
    scaled = run(kind, name, recordings(12, unit=unit), net=Net(unit), epochs=1)
    for parameter, value in plain.items():
        torch.testing.assert_close(scaled[parameter], value, rtol=1e-5, atol=1e-6)


def test_every_name_is_tried():
    assert LEFT | {name for _, name in NAMES} <= METHODS.keys()
    assert set(OPTIONS) <= {name for _, name in NAMES}
