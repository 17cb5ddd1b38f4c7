"""Laws that every network keeps."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models._networks import CLASSES, NETWORKS, PEOPLE, trials
from torch import Tensor

from eegtensor import EEGTensorError
from eegtensor.training.optimizers import make_optimizer

with_names = pytest.mark.parametrize("name", NETWORKS)
NORMED = [n for n in NETWORKS if "no norm" not in n]


def domains_of(net: Any, domain: Tensor) -> Tensor | None:
    return None if net.ignores_domains else domain


def trained(net: Any, data: tuple[Tensor, Tensor, Tensor], steps: int = 3) -> Any:
    x, y, domain = data
    optimizer = make_optimizer(net, lr=1e-2)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x, domain), y).backward()
        optimizer.step()
    return net.eval()


@with_names
def test_trains_and_its_evaluation_does_not_depend_on_the_batch(
    name: str, device: str
) -> None:
    x, y, domain = (t.to(device) for t in trials())
    net = NETWORKS[name]().to(device)
    with torch.no_grad():
        first = F.cross_entropy(net.train()(x, domain), y)
    trained(net, (x, y, domain), steps=15)
    net.fit_statistics(x, domain)
    logits = net(x, domain)
    assert logits.shape == (len(x), CLASSES)
    assert float(F.cross_entropy(logits, y).detach()) < float(first)
    assert net.features(x, domain).shape[0] == len(x)
    S = net.spd(x)
    assert torch.equal(S, S.mT)
    order = torch.arange(len(x) - 1, -1, -1, device=device)
    torch.testing.assert_close(
        net(x[order], domain[order])[order], logits, rtol=0, atol=1e-9
    )
    torch.testing.assert_close(net(x[:1], domain[:1]), logits[:1], rtol=0, atol=1e-9)


@with_names
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    x, y, domain = trials()
    net = NETWORKS[name]()
    # The first step of a norm is at momentum 1; gradients must be there after, too.
    for _ in range(2):
        net.zero_grad()
        F.cross_entropy(net(x, domain), y).backward()
    for key, p in net.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and float(p.grad.abs().max()) > 0, key


@with_names
def test_unit_of_the_signals_does_not_matter(name: str) -> None:
    x, y, domain = trials()
    logits = []
    for unit in (1.0, 1e6):
        net = trained(NETWORKS[name](), (unit * x, y, domain))
        logits.append(net(unit * x, domain).detach())
        net.fit_statistics(unit * x, domain)
        logits.append(net(unit * x, domain).detach())
    torch.testing.assert_close(logits[0], logits[2], rtol=0, atol=1e-9)
    torch.testing.assert_close(logits[1], logits[3], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["no norm", "log-variance, no norm"])
def test_without_a_norm_the_first_batch_sets_the_unit_for_good(name: str) -> None:
    x, _, domain = trials()
    net = NETWORKS[name]()
    net(x, domain)
    expected = net.eval()(2.0 * x, domain)
    net.train()(10.0 * x, domain)
    assert torch.equal(net.eval()(2.0 * x, domain), expected)


@pytest.mark.parametrize("name", ["conv", "lag", "log-variance"])
def test_unit_does_not_matter_in_float32(name: str) -> None:
    x, y, domain = trials()
    x = x.float()
    logits = []
    for unit in (1.0, 1e6):
        net = trained(NETWORKS[name](dtype=torch.float32), (unit * x, y, domain))
        net.fit_statistics(unit * x, domain)
        logits.append(net(unit * x, domain).detach())
        assert logits[-1].dtype == torch.float32
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["filter bank", "SPDNet", "Tensor-CSPNet"])
def test_autocast_leaves_covariances_alone(name: str) -> None:
    x = trials()[0].float()
    net = NETWORKS[name](dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        S = net.spd(x)
    assert torch.equal(S, net.spd(x))


@with_names
def test_same_seed_same_network_and_pickles_and_copies(name: str) -> None:
    x, _, domain = trials()
    net = NETWORKS[name]()
    assert not torch.equal(NETWORKS[name](random_state=1)(x, domain), net(x, domain))
    net, twin = NETWORKS[name]().eval(), NETWORKS[name]().eval()
    for network in (net, twin):
        network.fit_statistics(x, domain)
    for other in (twin, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x, domain), net(x, domain))


@with_names
def test_a_state_dict_carries_everything(name: str) -> None:
    data = trials()
    net = trained(NETWORKS[name](), data)
    state = net.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    other = NETWORKS[name](random_state=1).eval()
    other.load_state_dict(state)
    assert torch.equal(other(data[0], data[2]), net(data[0], data[2]))


@pytest.mark.parametrize(
    "name",
    [
        "conv",
        "no norm",
        pytest.param("filter bank", marks=pytest.mark.slow),
        pytest.param("Tensor-CSPNet", marks=pytest.mark.slow),
    ],
)
def test_export(name: str) -> None:
    x, _, domain = trials()
    net = NETWORKS[name]().eval()
    net.fit_statistics(x, domain)
    domain = domain.clone()
    domain[0] = -1
    size = {0: torch.export.Dim("batch", min=1, max=1024)}
    exported = torch.export.export(
        net, (x, domain), dynamic_shapes=(size, size)
    ).module()
    for part in (slice(None), slice(0, 7)):
        torch.testing.assert_close(
            exported(x[part], domain[part]),
            net(x[part], domain[part]),
            rtol=0,
            atol=1e-10,
        )


@pytest.mark.parametrize("name", NORMED)
def test_statistics_are_those_of_all_trials_whatever_the_blocks(name: str) -> None:
    x, _, domain = trials()
    net = NETWORKS[name]()
    other = copy.deepcopy(net)
    net.fit_statistics(x, domains_of(net, domain))
    other.fit_statistics(x, domains_of(net, domain), batch_size=5)
    for a, b in zip(net.norms, other.norms, strict=True):
        assert bool(a.seen.all())
        torch.testing.assert_close(a.test_mean, b.test_mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(a.variance, b.variance, rtol=1e-9, atol=0)


# Log-Cholesky takes its unit from the first trials that it sees.
BY_PERSON = [n for n in NORMED if "no domains" not in n and n != "log-Cholesky"]


@pytest.mark.parametrize("name", BY_PERSON)
def test_statistics_of_a_person_are_of_their_trials_alone(name: str) -> None:
    x, _, domain = trials()
    net, alone = NETWORKS[name](), NETWORKS[name]()
    net.fit_statistics(x, domain)
    alone.fit_statistics(x[domain == 1], domain[domain == 1])
    for a, b in zip(net.norms, alone.norms, strict=True):
        torch.testing.assert_close(a.test_mean[1], b.test_mean[1], rtol=1e-9, atol=0)
        assert bool(a.seen.all()) and b.seen[:-1].tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["conv", "log-variance", "filter bank", "SPDNet"])
def test_new_people_come_and_go(name: str) -> None:
    data = trials()
    net = trained(NETWORKS[name](), data)
    x, _, domain = trials(seed=1)
    net.fit_statistics(data[0], data[2])
    known, unseen = net(data[0], data[2]), net(x)
    torch.testing.assert_close(net(x, -torch.ones_like(domain)), unseen)
    net.add_domains(["new"], source=False)
    code = net.norm.encode(["new"])
    assert code.tolist() == [len(PEOPLE)]
    # Without statistics of its own, a new person is treated as unseen.
    torch.testing.assert_close(net(x, code.expand(len(x))), unseen)
    net.fit_statistics(x, code.expand(len(x)))
    assert float((net(x, code.expand(len(x))) - unseen).detach().abs().max()) > 1e-3
    assert torch.equal(net(data[0], data[2]), known)
    net.update_statistics(x[:1], code)
    net.forget(["new"])
    assert net.norm.names == NETWORKS[name]().norm.names
    assert torch.equal(net(data[0], data[2]), known)


@pytest.mark.parametrize("unseen", ["adapt", "raise"])
def test_a_norm_of_all_trials_knows_nobody_as_unseen(unseen: str) -> None:
    x, _, domain = trials()
    net, plain = NETWORKS["no domains"](unseen=unseen), NETWORKS["no domains"]()
    for network in (net, plain):
        network.fit_statistics(x)
        network.eval()
    assert torch.equal(net(x[:3], domain[:3]), plain(x[:3]))


def test_without_a_norm_adaptation_does_nothing() -> None:
    x, _, domain = trials()
    net = NETWORKS["no norm"]().eval()
    before = net(x)
    net.fit_statistics(x, domain)
    net.update_statistics(x, domain)
    net.add_domains(["new"])
    assert net.norm is None and torch.equal(net(x, domain), before)


@with_names
def test_mistakes(name: str) -> None:
    x, _, domain = trials()
    net = NETWORKS[name]()
    with pytest.raises(EEGTensorError, match="6 channels and 60 samples"):
        net(x[:, :5], domain)
    if name in ("conv", "filter bank", "SPDNet"):
        with pytest.raises(EEGTensorError, match="domain has shape"):
            net(x, domain[:-1])
    x[3, 2, 10] = torch.nan
    with pytest.raises(EEGTensorError, match="Trials 3 of the batch hold NaN"):
        net(x, domain)
