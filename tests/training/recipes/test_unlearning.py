"""SFRon, UG-CLU and NatMU: networks that forget domains and keep the others."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.geometry import distance, random_spd
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    ShuffleSampler,
    Step,
    forward_all,
    make_optimizer,
    train,
)
from eegtensor.training.recipes import UGCLU, NatMU, SFRon
from eegtensor.training.recipes.blends import natural_blends, soft_masks
from eegtensor.training.recipes.saliency import Masked, fisher, saliency_mask
from eegtensor.training.recipes.streams import Stream, trials_of

# Of the authors' code for CIFAR-10, beside the defaults of the recipe.
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def perceptron(seed=0, n=20, dtype=torch.float32):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(n, 128), nn.ReLU(), nn.Linear(128, 4)).to(dtype)


def run(net, data, recipe, n_epochs=1, optimizer=None, callbacks=()):
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=optimizer or torch.optim.SGD(net.parameters(), **SGD),
        recipe=recipe,
        epochs=n_epochs,
        callbacks=callbacks,
    )
    return net


def memorised(seed=0):
    """Six people; the labels of the first are random, and can be memorised alone."""
    g = torch.Generator().manual_seed(seed)

    def draw(n, person, random):
        y = torch.randint(4, (n,), generator=g)
        x = torch.randn(n, 20, generator=g) + 4.0 * torch.eye(20)[y]
        x = x + 3.0 * torch.eye(20)[10 + person]
        if random:
            y = torch.randint(4, (n,), generator=g)
        return Batch(x, y, torch.full((n,), person))

    def all_of(n):
        parts = [draw(n, p, p == 0) for p in range(6)]
        return Batch(
            *(torch.cat([getattr(b, k) for b in parts]) for k in ("x", "y", "domain"))
        )

    return all_of(60), all_of(200)


def fitted(data, epochs=60):
    net = perceptron()
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=torch.optim.Adam(net.parameters(), lr=3e-3),
        sampler=ShuffleSampler(len(data), batch_size=50),
        epochs=epochs,
    )
    return net


def numbers(net, seen, fresh):
    """Return accuracies on the person to forget and on the others, and the AUC."""
    gone = seen.domain == 0
    guess = forward_all(net, seen).argmax(1) == seen.y
    right = forward_all(net, fresh).argmax(1) == fresh.y
    losses = [
        nn.functional.cross_entropy(forward_all(net, b), b.y, reduction="none")
        for b in (seen, fresh)
    ]
    a, b = losses[0][gone].numpy(), losses[1][fresh.domain == 0].numpy()
    truth = np.r_[np.ones(len(a)), np.zeros(len(b))]
    auc = roc_auc_score(truth, -np.r_[a, b])
    kept = right[fresh.domain != 0].float().mean().item()
    return guess[gone].float().mean().item(), kept, float(auc)


@pytest.fixture(scope="module")
def people():
    seen, fresh = memorised()
    rest = seen.pick((seen.domain != 0).nonzero()[:, 0])
    gold = fitted(Batch(rest.x, rest.y, rest.domain))
    return seen, fresh, fitted(seen), numbers(gold, seen, fresh)


def test_sfron_is_near_retraining_and_fine_tuning_is_not(people) -> None:
    seen, fresh, net, gold = people
    assert numbers(net, seen, fresh)[2] > 0.85
    found = {}
    for alpha in (0.0, 25.0):
        after = copy.deepcopy(net)
        run(after, seen, SFRon((0,), n_steps=300, alpha=alpha))
        found[alpha] = numbers(after, seen, fresh)
    sfron, tuned = found[25.0], found[0.0]
    assert abs(sfron[2] - gold[2]) < 0.2
    assert abs(tuned[2] - gold[2]) > 0.3
    assert sfron[1] > gold[1] - 0.02


def test_a_small_ascent_forgets_less(people) -> None:
    # As the specification found: alpha and clip go together.
    seen, fresh, net, _ = people
    auc = [
        numbers(
            run(copy.deepcopy(net), seen, SFRon((0,), n_steps=300, **options)),
            seen,
            fresh,
        )[2]
        for options in ({}, {"alpha": 1.0, "clip": 1.0})
    ]
    assert auc[1] > auc[0] + 0.1


class Rest:
    """Fine-tuning on what is kept, with the batches of the recipe."""

    def __init__(self, n_steps):
        self.n_steps = n_steps

    def steps(self, state, data):
        rest = trials_of(data, (0,), others=True)
        options = {"batch_size": 50, "domains_per_batch": 5, "seed": 0}
        stream = Stream(data, rest, **options)
        for t in range(self.n_steps):
            yield Step(data.pick(stream.at(t)))


def test_without_ascent_it_is_fine_tuning_bit_for_bit(people) -> None:
    seen, _, net, _ = people
    a = run(copy.deepcopy(net), seen, SFRon((0,), n_steps=40, alpha=0.0))
    b = run(copy.deepcopy(net), seen, Rest(40))
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_first_steps_are_those_of_the_paper(people) -> None:
    """One ascent and one descent, by hand from the equations."""
    seen, _, net, _ = people
    net = copy.deepcopy(net).double()
    data = Batch(seen.x.double(), seen.y, seen.domain)
    twin, alpha, lam, clip = copy.deepcopy(net), 25.0, 0.5, 7.0
    recipe = SFRon((0,), n_steps=10)
    run(net, data, Only(recipe, 2))
    options = {"batch_size": 50, "domains_per_batch": 5, "seed": 0}
    parts = {
        "forget": Stream(data, trials_of(data, (0,)), **options),
        "rest": Stream(data, trials_of(data, (0,), others=True), **options),
    }

    def gradient(model, index, weigh=False):
        y = data.y[index]
        loss = nn.functional.cross_entropy(model(data.x[index]), y, reduction="none")
        if weigh:
            w = 1.0 / (loss.detach().pow(lam) + 1e-15)
            loss = w / w.sum() * loss * len(index)
        return torch.autograd.grad(loss.mean(), list(model.parameters()))

    squares = {}
    for name, stream in parts.items():
        passes = [gradient(twin, index) for index in stream.one_pass()]
        squares[name] = [
            torch.stack([g[k] ** 2 for g in passes]).mean(0) for k in range(4)
        ]
    mask = [
        ((f + 1e-15) / (r + 1e-15) >= 1.0).double()
        for f, r in zip(squares["forget"], squares["rest"], strict=True)
    ]
    assert 0.05 < torch.cat([m.flatten() for m in mask]).mean() < 0.95
    up = gradient(twin, parts["forget"].at(0), weigh=True)
    up = [-alpha * m * g for m, g in zip(mask, up, strict=True)]
    norm = torch.stack([g.square().sum() for g in up]).sum().sqrt()
    up = [g * min(1.0, clip / (float(norm) + 1e-6)) for g in up]
    velocity = [g + 5e-4 * p for g, p in zip(up, twin.parameters(), strict=True)]
    with torch.no_grad():
        for p, v in zip(twin.parameters(), velocity, strict=True):
            p -= 0.01 * v
    down = gradient(twin, parts["rest"].at(0))
    with torch.no_grad():
        for p, v, g in zip(twin.parameters(), velocity, down, strict=True):
            p -= 0.01 * (0.9 * v + g + 5e-4 * p)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-10)


class Only:
    """The first steps of a recipe."""

    def __init__(self, recipe, n_steps):
        self.recipe, self.n_steps = recipe, n_steps

    def steps(self, state, data):
        for _, step in zip(range(self.n_steps), self.recipe.steps(state, data)):  # noqa: B905
            yield step


def test_ug_clu_without_trials_to_learn_is_sfron(people) -> None:
    seen, _, net, _ = people
    a = run(copy.deepcopy(net), seen, SFRon((0,), n_steps=30, beta=0.5))
    b = run(copy.deepcopy(net), seen, UGCLU((0,), n_steps=30, beta=0.5))
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_ug_clu_without_trials_to_forget_is_replay(people) -> None:
    seen, _, net, _ = people

    class Replay:
        def steps(self, state, data):
            options = {"batch_size": 50, "domains_per_batch": 5, "seed": 0}
            new = Stream(data, trials_of(data, (5,)), **options)
            old = Stream(data, trials_of(data, (5,), others=True), **options)
            for t in range(20):
                if t % 5 == 0:
                    yield Step(data.pick(new.at(t // 5)))
                yield Step(data.pick(old.at(t)))

    a = run(copy.deepcopy(net), seen, UGCLU((), (5,), n_steps=20))
    b = run(copy.deepcopy(net), seen, Replay())
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_ug_clu_learns_and_forgets_and_keeps_the_rest(people) -> None:
    seen, fresh, _, gold = people
    early = seen.pick((seen.domain != 5).nonzero()[:, 0])
    net = fitted(Batch(early.x, early.y, early.domain))

    def accuracy(domains):
        here = torch.isin(fresh.domain, torch.tensor(domains))
        guess = forward_all(net, fresh).argmax(1)
        return (guess == fresh.y)[here].float().mean().item()

    first = accuracy([1, 2, 3, 4])
    run(net, seen, UGCLU((0,), (5,), n_steps=300))
    assert accuracy([1, 2, 3, 4]) > first - 0.02
    assert accuracy([5]) > 0.9
    assert abs(numbers(net, seen, fresh)[2] - gold[2]) < 0.2


def test_manifolds_and_statistics(toy, trials, equal) -> None:
    data = trials(n=160)
    net = toy(dropout=0.0)
    sampler = ShuffleSampler(160, batch_size=40)
    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-sgd", **options),
        sampler=sampler,
        epochs=2,
    )
    before = {n: b.clone() for n, b in net.named_buffers()}
    optimizer = make_optimizer(net, "riemannian-sgd", **options)
    recipe = SFRon((0,), n_steps=20, beta=0.5)
    run(net, data, recipe, optimizer=optimizer)
    eye = torch.eye(3)
    torch.testing.assert_close(net.frame.mT @ net.frame, eye, rtol=0, atol=1e-5)
    torch.testing.assert_close(net.shape, net.shape.mT)
    assert torch.linalg.eigvalsh(net.shape.detach()).min() > 0
    # One number for a parameter on a manifold, one an entry for others.
    mask = recipe.masks["forget"]
    assert mask["frame"].shape == (1,)
    assert mask["head.weight"].shape == (2, 3)
    # Trials to forget left nothing in their domain's statistics; others moved.
    assert torch.equal(net.norm.mean[0], before["norm.mean"][0])
    assert not torch.equal(net.norm.mean[1], before["norm.mean"][1])


def test_information_is_found_without_a_trace(toy, trials, equal) -> None:
    data, net = trials(n=40), toy()
    net.train()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    found = fisher(Network(net), data, [torch.arange(20), torch.arange(20, 40)])
    assert equal(state, net.state_dict())
    assert torch.equal(random, torch.get_rng_state())
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    mask = saliency_mask([found], [found], 1.0)
    assert all(0 <= m.min() and m.max() <= 1 for m in mask.values())
    twice = {n: 2 * f for n, f in found.items()}
    half = saliency_mask([found], [twice], 1.0)
    assert all(m.sum() == 0 for m in half.values())


def test_masked_gradients_are_clipped_together() -> None:
    gradients = {"a": torch.tensor([3.0, 8.0]), "b": torch.tensor([4.0])}
    mask = {"a": torch.tensor([1.0, 0.0]), "b": torch.ones(1)}
    found = Masked(mask, 1.0)(gradients, None)
    torch.testing.assert_close(found["a"], torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(found["b"], torch.tensor([0.8]))


def test_masks_of_blends() -> None:
    for delta, low, high in ((-0.05, 0.4, 0.5), (-0.19, 0.28, 0.4)):
        m = soft_masks((20, 128), delta)
        assert m.shape == (4, 20, 128)
        means = m.flatten(1).mean(1)
        assert ((means > low) & (means < high)).all(), means
        assert m.min() >= 0
        assert m.max() <= 1
    # In time the first is zero at the ends, the second in the middle.
    m = soft_masks((20, 128), 0.0)
    assert (m[0, :, [0, -1]] == 0).all()
    assert (m[1, :, [63, 64]] == 0).all()
    # In rows of images, the authors' masks: j / 16 up, and down again.
    up = torch.arange(16) / 16
    exact = torch.cat([up, up.flip(0)])
    torch.testing.assert_close(soft_masks((32, 32), 0.0)[0, 0].float(), exact)


def test_blends_get_the_class_of_what_is_kept() -> None:
    g = torch.Generator().manual_seed(0)
    x, kept = torch.randn(5, 3, 16, generator=g), torch.randn(40, 3, 16, generator=g)
    y, kept_y = torch.tensor([0, 1, 2, 3, 4]), torch.arange(40) % 6
    logits = torch.randn(5, 6, generator=g)
    found = natural_blends(x, y, logits, kept, kept_y, generator=g)
    assert found.x.shape == (20, 3, 16)
    for i in range(5):
        mine = found.y[found.forgotten == i].tolist()
        likely = [c for c in logits[i].argsort(descending=True).tolist() if c != i]
        assert mine == likely[:4]
    assert torch.equal(kept_y[found.kept], found.y)
    # Fewer classes: all that are wrong.
    two = natural_blends(x, y % 2, logits[:, :2], kept, kept_y % 2, generator=g)
    assert torch.equal(two.y, 1 - y % 2)
    nothing = natural_blends(x, y, logits, kept, kept_y, delta=-1.0, generator=g)
    assert torch.equal(nothing.x, kept[nothing.kept])
    with pytest.raises(EEGTensorError, match="No trial is kept of the classes"):
        natural_blends(x, y, logits, kept, torch.zeros(40, dtype=torch.int64))


def test_matrices_are_blended_on_their_geodesic() -> None:
    a, b = (random_spd(4, size=6, random_state=s) for s in (0, 1))
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    found = natural_blends(
        a, y, torch.zeros(6, 2), b, y, space="spd", generator=torch.Generator()
    )
    assert torch.linalg.eigvalsh(found.x).min() > 0
    near, far = distance(found.x, b[found.kept]), distance(found.x, a)
    whole = distance(a, b[found.kept])
    # On the geodesic distances add up; more of the trial that is kept.
    torch.testing.assert_close(near + far, whole)
    assert (near < far).all()


def test_natmu_is_milder(people) -> None:
    seen, fresh, net, _ = people
    before = numbers(net, seen, fresh)
    found = {}
    for lr in (3e-4, 5e-3):
        after = copy.deepcopy(net)
        optimizer = torch.optim.AdamW(after.parameters(), lr=lr)
        run(after, seen, NatMU((0,)), n_epochs=5, optimizer=optimizer)
        found[lr] = numbers(after, seen, fresh)
    assert found[5e-3][2] < found[3e-4][2]
    assert found[5e-3][2] < before[2] - 0.05
    assert found[5e-3][1] > before[1] - 0.03


def test_natmu_with_nothing_of_the_trial_is_fine_tuning(people) -> None:
    seen, _, net, _ = people
    spoiled = seen.x.clone()
    recipe = NatMU((0,), delta=-1.0)
    run(copy.deepcopy(net), seen, recipe)
    spoiled[recipe.blends["forgotten"]] = 7.0
    assert torch.equal(recipe.blends["x"], seen.x[recipe.blends["kept"]])
    assert torch.equal(recipe.blends["y"], seen.y[recipe.blends["kept"]])
    assert (seen.domain[recipe.blends["kept"]] != 0).all()


@pytest.mark.parametrize("name", ["sfron", "ug-clu", "natmu"])
def test_by_name(people, name) -> None:
    from _toy_training import Perceptron, fit

    seen, *_ = people
    data = Batch(seen.x, seen.y.clamp_max(2), seen.domain)
    options = "" if name == "natmu" else ", n_steps=4"
    fit(Perceptron(0, 20), data, epochs=2, recipe=f"{name}(forget=(0,){options})")


def test_mistakes_are_named(people) -> None:
    seen, _, net, _ = people
    for recipe in (SFRon, NatMU):
        with pytest.raises(EEGTensorError, match="nothing to forget"):
            recipe(())
    with pytest.raises(EEGTensorError, match="learned and forgotten"):
        UGCLU((1,), (1, 2))
    with pytest.raises(EEGTensorError, match="domains 17 have no trial"):
        run(copy.deepcopy(net), seen, SFRon((17,)))
    with pytest.raises(EEGTensorError, match="without domains"):
        run(copy.deepcopy(net), Batch(seen.x, seen.y), NatMU((0,)))
    with pytest.raises(EEGTensorError, match="no trials left"):
        run(copy.deepcopy(net), seen, SFRon(tuple(range(6))))
    with pytest.raises(EEGTensorError, match="beta=0"):
        UGCLU((1,), beta=0.0)
