"""Ensembles of states of one network."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import evaluating, forward_all
from eegtensor.training.averagers import ModeEnsemble


def test_one_member_is_the_network_itself(toy, trials):
    net, data = toy(), trials()
    ensemble = ModeEnsemble.of_states(net, [net.state_dict()])
    assert torch.equal(forward_all(ensemble, data), forward_all(net, data))


def test_logits_are_averaged_and_spread_less(toy, trials):
    nets, data = [toy(seed=s) for s in range(6)], trials()
    states = [n.state_dict() for n in nets]
    outputs = torch.stack([forward_all(n, data) for n in nets])
    ensemble = ModeEnsemble.of_states(nets[0], states)
    found = forward_all(ensemble, data)
    torch.testing.assert_close(found, outputs.mean(dim=0))
    halves = [
        forward_all(ModeEnsemble.of_states(nets[0], part), data)
        for part in (states[:3], states[3:])
    ]
    assert torch.stack(halves).std(dim=0).mean() < outputs.std(dim=0).mean()
    with torch.no_grad(), evaluating(ensemble):
        spread = ensemble.spread(data.x, data.domain)
    torch.testing.assert_close(spread, outputs.std(dim=0))


def test_weights_alone_get_statistics_of_their_own(toy, trials):
    net, data = toy(), trials()
    weights = {n: p.detach() + 0.1 for n, p in net.named_parameters() if "head" in n}
    ensemble = ModeEnsemble.of_states(net, [weights, {}], data)
    assert not torch.equal(
        ensemble.members[0].batch_norm.running_mean, net.batch_norm.running_mean
    )
    assert torch.equal(net.batch_norm.running_mean, torch.zeros(3))


def test_mistakes(toy):
    with pytest.raises(EEGTensorError, match="no members"):
        ModeEnsemble([])
    with pytest.raises(EEGTensorError, match="no 'tail'"):
        ModeEnsemble.of_states(toy(), [{"tail": torch.zeros(1)}])


def test_one_member_has_no_spread(toy, trials):
    data, ensemble = trials(), ModeEnsemble([toy()])
    with pytest.raises(EEGTensorError, match="no spread"):
        ensemble.spread(data.x, data.domain)
