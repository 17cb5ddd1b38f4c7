"""Parts of batches, clean statistics, recipes, features, averages at the end."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from eegtensor import EEGTensorError
from eegtensor.training import (
    UNLABELLED,
    Batch,
    CrossEntropy,
    Network,
    ShuffleSampler,
    Step,
    evaluate,
    features_of,
    find_head,
    forward_all,
    make_optimizer,
    refit_statistics,
    train,
)
from eegtensor.training.perturbations import SAM


def whole(data):
    return ShuffleSampler(len(data), batch_size=len(data))


def fit(net, data, **changes):
    options = {
        "objective": CrossEntropy(),
        "optimizer": make_optimizer(net, lr=0.01),
        "sampler": whole(data),
        "epochs": 2,
    }
    return train(net, data, **(options | changes))


class Plain(torch.nn.Module):
    """No statistics: parts of a batch give the gradients of the batch."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.first = torch.nn.Linear(8, 5, dtype=torch.float64)
        self.head = torch.nn.Linear(5, 2, dtype=torch.float64)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=g, dtype=p.dtype))

    def forward(self, x):
        return self.head(self.first(x).tanh())


@pytest.mark.parametrize("perturbation", [(), SAM(0.1)])
def test_parts_of_a_batch_give_the_gradient_of_the_batch(trials, perturbation):
    data = trials(37, dtype=torch.float64)
    at_once, in_parts = Plain(), Plain()
    sizes = []
    in_parts.register_forward_pre_hook(lambda m, args: sizes.append(len(args[0])))
    losses = [
        fit(net, data, accumulate=count, perturbation=perturbation, epochs=3).column(
            "train_loss"
        )
        for net, count in ((at_once, 1), (in_parts, 5))
    ]
    assert max(sizes) == 8 and min(sizes) == 7
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for a, b in zip(at_once.parameters(), in_parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


class Total:
    per_trial = False

    def __call__(self, model, batch, outputs, context):
        return outputs.square().mean()


@pytest.mark.parametrize("changes", [{"accumulate": 0}, {"accumulate": 2}])
def test_parts_that_make_no_sense(toy, trials, changes):
    with pytest.raises(EEGTensorError, match="accumulate="):
        fit(toy(), trials(), objective=Total(), **changes)


def test_bfloat16_trains_and_leaves_weights_in_float32(trials):
    data = trials()
    net = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
    )
    seen = []
    net[0].register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    options = {"precision": "bfloat16", "sampler": ShuffleSampler(160, batch_size=20)}
    history = fit(net, data, epochs=10, **options)
    assert set(seen) == {torch.bfloat16}
    # Losses, and what enters the head, have all digits of float32.
    network = Network(net, precision="bfloat16", keeps_features=True)
    outputs = network(data)
    assert outputs.dtype == network.features.dtype == torch.float32
    (g,) = torch.autograd.grad(outputs.sum(), network.features)
    # The features are those that the head got: gradients pass through them.
    torch.testing.assert_close(
        g, net[2].weight.sum(0).expand(160, 16), rtol=0, atol=0.01
    )
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    losses = history.column("train_loss")
    assert losses[-1] < 0.9 * losses[0]
    with pytest.raises(EEGTensorError, match="precision"):
        fit(net, data, precision="float16")


class Shift:
    """Moves every trial far away; says that this is no data."""

    where, extra_gradients = "input", 0

    def __init__(self, clean):
        self.clean_statistics = clean

    def sample(self, context):
        b = context.batch
        self.batch = Batch(b.x + 100.0, b.y, b.domain, b.index, b.weight)
        return self

    def apply(self):
        return self.batch

    def revert(self):
        pass


def test_adversarial_copies_leave_no_trace_in_statistics(toy, trials):
    data = trials()
    clean, shifted, plain = (toy(dropout=0.0) for _ in range(3))
    still = {"optimizer": None}
    for net, how in ((clean, [Shift(True)]), (shifted, [Shift(False)]), (plain, [])):
        still["optimizer"] = make_optimizer(net, "riemannian-sgd", lr=0.0)
        fit(net, data, perturbation=how, epochs=1, **still)
    for name in ("norm.mean", "batch_norm.running_mean", "batch_norm.running_var"):
        wanted = plain.state_dict()[name]
        torch.testing.assert_close(clean.state_dict()[name], wanted, msg=name)
        assert int(clean.norm.seen) == int(plain.norm.seen) == 1
    assert (shifted.norm.mean - plain.norm.mean).abs().max() > 1


def test_the_attacked_pass_starts_at_the_statistics_of_the_step(toy, trials):
    # By hand: the loss of the shifted trials from the statistics before the step.
    data = trials()
    net = toy(dropout=0.0)
    twin = copy.deepcopy(net).train()
    batch = data.pick(whole(data).indices(1)[0])
    wanted = F.cross_entropy(twin(batch.x + 100.0, batch.domain), batch.y)
    history = fit(net, data, perturbation=Shift(True), epochs=1)
    assert history.column("train_loss")[0] == pytest.approx(float(wanted), rel=1e-5)


class BackAndForth:
    """Steps down on the first half and up on the second."""

    def steps(self, state, data):
        first, second = data.parts(2)
        yield Step(first)
        yield Step(second, sign=-1.0)


def test_a_recipe_says_what_the_steps_are(trials):
    data = trials(dtype=torch.float64)
    ours, theirs = Plain(), Plain()
    options = {"name": "sgd", "lr": 0.1, "weight_decay": 0.0}
    fit(
        ours,
        data,
        recipe=BackAndForth(),
        sampler=None,
        optimizer=make_optimizer(ours, **options),
        epochs=1,
    )
    optimizer = make_optimizer(theirs, **options)
    for part, sign in zip(data.parts(2), (1.0, -1.0), strict=True):
        optimizer.zero_grad()
        (sign * F.cross_entropy(theirs(part.x), part.y)).backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(EEGTensorError, match="no sampler"):
        fit(ours, data, sampler=None)


class Wants:
    per_trial, needs = True, ("features",)

    def __call__(self, model, batch, outputs, context):
        self.seen = context.features
        return context.features.square().sum(dim=1)


def test_features_are_what_enters_the_head(toy, trials):
    data, net, wants = trials(), toy(dropout=0.0), Wants()
    fit(net, data, objective=[CrossEntropy(), (1e-3, wants)], epochs=1)
    assert wants.seen.shape == (160, 3) and wants.seen.requires_grad
    assert not net.head._forward_pre_hooks
    h = features_of(net, data, batch_size=50)
    torch.testing.assert_close(net.head(h), forward_all(net, data))

    class Curious(CrossEntropy):
        def __call__(self, model, batch, outputs, context):
            return super().__call__(model, batch, outputs, context) + context.features

    with pytest.raises(EEGTensorError, match="needs = "):
        fit(net, data, objective=Curious())


def test_heads_are_found_and_their_absence_told():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4))
    assert find_head(net) is net[1]
    net.final_layer = torch.nn.Conv1d(1, 1, 1)
    assert find_head(net) is net.final_layer
    with pytest.raises(EEGTensorError, match="head"):
        find_head(torch.nn.Flatten())


class PerTrial:
    """A plug that would read the losses of trials."""

    where, extra_gradients, needs = "input", 0, ("losses of trials",)


def test_losses_of_trials_that_do_not_exist_are_not_asked_for(toy, trials):
    with pytest.raises(EEGTensorError, match="PerTrial needs a loss of each trial"):
        fit(toy(), trials(), objective=Total(), perturbation=PerTrial())


def test_unlabelled_trials_have_no_cross_entropy(trials):
    data = trials(40, dtype=torch.float64)
    y = data.y.clone()
    y[::2] = UNLABELLED
    part = Batch(data.x, y)
    net = Plain()
    loss = evaluate(net, part, CrossEntropy())["loss"]
    known = y != UNLABELLED
    wanted = F.cross_entropy(net(data.x[known]), y[known], reduction="sum") / 40
    assert loss == pytest.approx(float(wanted))


class Trainer(Total):
    """Of training alone: evaluation must not call it."""

    training_only = True

    def __call__(self, model, batch, outputs, context):
        assert outputs.requires_grad
        return super().__call__(model, batch, outputs, context)


def test_evaluation_leaves_terms_of_training_out(toy, trials):
    data, net = trials(), toy()
    history = fit(net, data, objective=[CrossEntropy(), Trainer()], validation=data)
    wanted = evaluate(net, data, CrossEntropy())["loss"]
    assert history.column("valid_loss")[-1] == pytest.approx(wanted)
    with pytest.raises(EEGTensorError, match="Trainer"):
        evaluate(net, data, Trainer())


class Mean:
    def __init__(self):
        self.states, self.calls = [], []

    def observe(self, model, step):
        self.states.append({n: p.detach().clone() for n, p in model.named_parameters()})

    def merge(self, states, space, data=None):
        self.merged = space.mean(states)
        return self.merged

    def on_epoch_end(self, state):
        self.calls.append(state.epoch)


def test_a_run_ends_with_its_average_and_statistics_of_it(toy, trials):
    data, mean = trials(), Mean()
    net = toy()
    fit(net, data, averager=mean, epochs=3)
    assert mean.calls == [1, 2, 3], "plugs have hooks, too"
    for name, p in net.named_parameters():
        torch.testing.assert_close(
            p.detach().as_subclass(torch.Tensor), mean.merged[name]
        )
    twin = copy.deepcopy(net)
    refit_statistics(twin, data)
    torch.testing.assert_close(
        net.batch_norm.running_mean, twin.batch_norm.running_mean
    )


def test_statistics_are_those_of_torch_update_bn(trials):
    data = trials(96)
    net = torch.nn.Sequential(
        torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    )
    twin = copy.deepcopy(net)
    refit_statistics(net, data)
    torch.optim.swa_utils.update_bn([data.x], twin)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(net[1], name), getattr(twin[1], name))
    assert net[1].momentum == 0.1 and net.training


@pytest.mark.parametrize("n", [2, 3, 65, 300])
def test_statistics_of_trials_sorted_by_person_are_of_all_of_them(n):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0)).double()
    # Two people far apart, one after the other, and a last batch cut short.
    x[n // 2 :] += 5.0
    norm = torch.nn.BatchNorm1d(3).double()
    state = torch.get_rng_state()
    refit_statistics(norm, Batch(x), batch_size=64)
    assert torch.equal(torch.get_rng_state(), state)
    rough = 1e-12 if n % -(-n // 64) == 0 else 0.01
    torch.testing.assert_close(norm.running_mean, x.mean(0), rtol=rough, atol=1e-12)
    rough = 1e-12 if n <= 64 else 0.05
    torch.testing.assert_close(norm.running_var, x.var(0), rtol=rough, atol=0)


def test_statistics_of_a_single_trial_stay():
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(3.0)
    refit_statistics(norm, Batch(torch.ones(1, 2)))
    assert norm.running_mean.tolist() == [3.0, 3.0]


def test_norms_behind_those_of_domains_get_what_these_make_now(trials):
    class Centred(torch.nn.Module):
        """Trials minus the mean of their domain, and a batch norm behind it."""

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4, 8))
            self.norm = torch.nn.BatchNorm1d(8)

        def forward(self, x, domain):
            return self.norm(x - self.mean[domain])

        def fit_statistics(self, x, domain):
            self.mean = torch.stack([x[domain == d].mean(0) for d in range(4)])

    net, data = Centred(), trials()
    refit_statistics(net, data)
    centred = data.x - net.mean[data.domain]
    torch.testing.assert_close(
        net.norm.running_mean, centred.mean(0), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(net.norm.running_var, centred.var(0))


def test_the_network_is_asked_with_domains_only_if_it_takes_them(toy, trials):
    data = trials()
    assert Network(toy()).takes_domain and not Network(Plain()).takes_domain
    assert forward_all(Plain().float(), data).shape == (160, 2)


class Scaled(torch.nn.Module):
    """Cross-entropy of logits times a factor that is learned."""

    per_trial = True
    needs = ("y",)

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, model, batch, outputs, context):
        return F.cross_entropy(self.factor * outputs, batch.y, reduction="none")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_second_passes_and_signs_reach_the_objectives_own_parameters(trials, sign):
    """Their gradients are mixed of both passes, as those of the weights."""
    data = trials(37, dtype=torch.float64)
    net, objective = Plain(), Scaled()

    class Recipe:
        def steps(self, state, batch):
            yield Step(batch, sign=sign)

    class Halfway(SAM):
        mix = 0.25

    lr = 0.1
    optimizer = torch.optim.SGD([*net.parameters(), *objective.parameters()], lr=lr)

    def gradient(weights):
        twin = copy.deepcopy(net)
        twin.load_state_dict(weights)
        factor = torch.ones((), dtype=torch.float64, requires_grad=True)
        F.cross_entropy(factor * twin(data.x), data.y).backward()
        return factor.grad, [p.grad for p in twin.parameters()]

    before = {k: v.clone() for k, v in net.state_dict().items()}
    plain, up = gradient(before)
    size = torch.sqrt(sum((g**2).sum() for g in up))
    moved = {
        name: value + 0.5 * g / size
        for (name, value), g in zip(before.items(), up, strict=True)
    }
    perturbed, _ = gradient(moved)
    fit(
        net,
        data,
        objective=objective,
        optimizer=optimizer,
        perturbation=Halfway(0.5),
        recipe=Recipe(),
        epochs=1,
    )
    wanted = 1.0 - lr * sign * (0.75 * plain + 0.25 * perturbed)
    torch.testing.assert_close(objective.factor.detach(), wanted, atol=1e-8, rtol=0)


def test_a_run_tells_its_objective_before_the_first_step(trials):
    seen = []

    class Watch:
        def on_train_start(self, state):
            seen.append(state.objective.terms[0][1])

    objective = CrossEntropy()
    fit(
        Plain(),
        trials(20, dtype=torch.float64),
        objective=objective,
        callbacks=[Watch()],
    )
    assert seen == [objective]
