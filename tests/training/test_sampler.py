from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import DomainBalancedSampler, ShuffleSampler


def people(rng, sizes, n_classes=3):
    """Trials of domains of these sizes, in random order, classes unbalanced."""
    domain = np.repeat(np.arange(len(sizes)), sizes)
    prior = np.array([0.6, 0.3, 0.1])[:n_classes]
    y = rng.choice(n_classes, len(domain), p=prior / prior.sum())
    order = rng.permutation(len(domain))
    return domain[order], y[order]


@pytest.mark.parametrize("domains_per_batch", [1, 3, 5])
@pytest.mark.parametrize("stratify", [True, False])
def test_each_batch_has_so_many_of_so_many_domains(rng, domains_per_batch, stratify):
    domain, y = people(rng, [100, 41, 60, 77, 120, 90, 33])
    sampler = DomainBalancedSampler(
        domain, y, domains_per_batch=domains_per_batch, stratify=stratify
    )
    size = np.bincount(domain)
    # A domain that has no whole group gives all it has.
    group = np.minimum(round(50 / domains_per_batch), size)
    batches = sampler.indices(3)
    for batch in batches:
        assert batch.dtype == torch.int64
        codes, counts = np.unique(domain[batch], return_counts=True)
        assert len(codes) == domains_per_batch
        assert (counts == group[codes]).all()
    used = torch.cat(batches)
    assert len(used.unique()) == len(used), "no trial twice"
    left = (size - np.bincount(domain[used], minlength=7)) // group
    assert np.count_nonzero(left) < domains_per_batch, "it goes on while it can"


def test_groups_keep_the_proportions_of_their_domain(rng):
    domain, y = people(rng, [100, 45, 60, 77, 120, 203])
    proportions = np.stack([np.bincount(y[domain == d], minlength=3) for d in range(6)])
    proportions = proportions / proportions.sum(1, keepdims=True)
    worst = {}
    for stratify in (True, False):
        sampler = DomainBalancedSampler(domain, y, stratify=stratify)
        worst[stratify] = max(
            np.abs(
                np.bincount(y[batch][domain[batch] == d], minlength=3)
                - 10 * proportions[d]
            ).max()
            for epoch in range(20)
            for batch in map(np.asarray, sampler.indices(epoch))
            for d in np.unique(domain[batch])
        )
    assert worst[True] < 1.4
    assert worst[False] > 3


def test_what_is_left_out_has_the_proportions_too():
    y = np.repeat([0, 1], [12, 7])
    sampler = DomainBalancedSampler(np.zeros(19), y, batch_size=10, domains_per_batch=1)
    for epoch in range(30):
        (batch,) = sampler.indices(epoch)
        # 10 of 19 trials: 6.3 of the first class, to one.
        assert abs(np.count_nonzero(y[batch.numpy()] == 0) - 120 / 19) < 1.4


def test_groups_of_one_domain_share_each_class_to_one(rng):
    """Dealt like cards: whole domains, nothing left over."""
    domain, y = people(rng, [60, 60, 60, 60, 60])
    sampler = DomainBalancedSampler(domain, y)
    batches = sampler.indices(0)
    assert len(batches) == 6
    for d in range(5):
        counts = np.stack(
            [
                np.bincount(y[b][domain[b] == d], minlength=3)
                for b in map(np.asarray, batches)
            ]
        )
        assert np.ptp(counts, axis=0).max() <= 1


def test_every_trial_gets_its_turn_equally(rng):
    domain, y = people(rng, [57] * 5)
    sampler = DomainBalancedSampler(domain, y)
    seen = np.zeros(len(y))
    for epoch in range(400):
        seen[np.concatenate(sampler.indices(epoch))] += 1
    # 50 of 57 an epoch: binomial with mean 351, standard deviation 6.6.
    assert seen.min() > 351 - 33 and seen.max() < 351 + 33
    per_class = [seen[y == k].mean() / 400 for k in range(3)]
    np.testing.assert_allclose(per_class, 50 / 57, atol=0.02)


def test_batches_follow_from_seed_and_epoch_alone(rng):
    domain, y = people(rng, [100] * 6)

    def draw(epoch, seed):
        sampler = DomainBalancedSampler(domain, y, random_state=seed)
        sampler.indices(7)
        return torch.cat(sampler.indices(epoch))

    assert torch.equal(draw(2, 0), draw(2, 0))
    assert not torch.equal(draw(2, 0), draw(3, 0))
    assert not torch.equal(draw(2, 0), draw(2, 1))


def test_names_of_domains_and_classes_do_not_matter(rng):
    domain, y = people(rng, [30, 40, 50, 60, 70])
    by_code = DomainBalancedSampler(torch.tensor(domain), torch.tensor(y))
    by_name = DomainBalancedSampler([f"S{d}" for d in domain], np.array(list("abc"))[y])
    assert torch.equal(torch.cat(by_code.indices(1)), torch.cat(by_name.indices(1)))


def test_fewer_and_smaller_domains_than_asked_for(rng):
    domain, y = people(rng, [40, 30])
    two = DomainBalancedSampler(domain, y)
    assert (two.domains_per_batch, two.group_size) == (2, 25)
    assert [len(b) for b in two.indices(0)] == [50]
    # Seven trials give one group of seven; one alone is never drawn.
    domain, y = people(rng, [7, 1, 60])
    small = DomainBalancedSampler(domain, y)
    (batch,) = small.indices(0)
    assert sorted(np.bincount(domain[batch]).tolist()) == [0, 7, 25]


def test_mistakes():
    with pytest.raises(EEGTensorError, match="None of 3 domains has two trials"):
        DomainBalancedSampler([0, 1, 2])
    with pytest.raises(EEGTensorError, match="y has 2 entries for 4 trials"):
        DomainBalancedSampler([0, 0, 1, 1], [0, 1])
    with pytest.raises(EEGTensorError, match=r"batch_size=1.*from 2 up"):
        DomainBalancedSampler([0, 0], batch_size=1)
    with pytest.raises(EEGTensorError, match="one domain per trial"):
        DomainBalancedSampler([[0, 0]])


@pytest.mark.parametrize("n_trials", [1, 50, 51, 149])
def test_shuffling_uses_every_trial_once(n_trials):
    sampler = ShuffleSampler(n_trials, batch_size=50, random_state=3)
    batches = sampler.indices(1)
    assert sorted(torch.cat(batches).tolist()) == list(range(n_trials))
    sizes = [len(b) for b in batches]
    assert max(sizes) <= 50 and max(sizes) - min(sizes) <= 1
    if n_trials > 50:
        assert not torch.equal(torch.cat(batches), torch.cat(sampler.indices(2)))


def test_seeds_from_generators():
    seeds = [
        ShuffleSampler(9, random_state=torch.Generator().manual_seed(s)).seed
        for s in (1, 1, 2)
    ]
    assert seeds[0] == seeds[1] != seeds[2]
    with pytest.raises(EEGTensorError, match="random_state is a str"):
        ShuffleSampler(9, random_state="seed")
