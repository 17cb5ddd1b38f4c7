"""The loop against loops written by hand, and the order of its plugs."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    CrossEntropy,
    DomainBalancedSampler,
    ParamSpace,
    ShuffleSampler,
    balanced_accuracy,
    evaluate,
    forward_all,
    make_optimizer,
    train,
)


def fit(net, data, **changes):
    options = {
        "objective": CrossEntropy(),
        "optimizer": make_optimizer(net, lr=0.01),
        "epochs": 3,
    }
    if "sampler" not in changes:
        options["sampler"] = DomainBalancedSampler(
            data.domain, data.y, batch_size=20, domains_per_batch=4
        )
    options |= changes
    return train(net, data, **options)


def test_loss_falls_on_manifolds(toy, trials, device):
    data = trials(device=device)
    net = toy().to(device).eval()
    valid = data.pick(torch.arange(0, 160, 3, device=device))
    history = fit(net, data, epochs=20, validation=valid)
    losses = history.column("train_loss")
    assert losses[-1] < 0.6 * losses[0]
    assert history.column("valid_loss")[-1] < 0.6 * losses[0]
    assert history.column("epoch") == list(range(1, 21))
    eye = torch.eye(3, device=device)
    assert (net.frame.mT @ net.frame - eye).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(net.shape.detach()).min() > 0
    assert not net.training, "ready to predict"
    assert net.norm.seen == 20 * 8
    scores = evaluate(
        net, data, CrossEntropy(), metrics={"accuracy": balanced_accuracy}
    )
    assert scores["accuracy"] > 0.85
    by_hand = (forward_all(net, data, batch_size=7).argmax(1) == data.y).double()
    recalls = [by_hand[data.y == k].mean() for k in range(2)]
    assert scores["accuracy"] == pytest.approx(float(sum(recalls)) / 2)


def test_equals_a_loop_written_by_hand(toy, trials, equal):
    data = trials()
    ours, theirs = toy(dropout=0.0), toy(dropout=0.0)
    fit(ours, data)
    optimizer = make_optimizer(theirs, lr=0.01)
    sampler = DomainBalancedSampler(
        data.domain, data.y, batch_size=20, domains_per_batch=4
    )
    theirs.train()
    for epoch in range(1, 4):
        for index in sampler.indices(epoch):
            optimizer.zero_grad()
            F.cross_entropy(
                theirs(data.x[index], data.domain[index]), data.y[index]
            ).backward()
            optimizer.step()
    assert equal(ours.state_dict(), theirs.state_dict())


def test_same_seed_same_result_and_torch_is_left_alone(toy, trials, equal):
    data = trials()

    def run(seed, before):
        net = toy()
        torch.manual_seed(before)
        fit(net, data, random_state=seed)
        return net.state_dict(), torch.rand(1)

    (a, drawn_a), (b, _), (c, _) = run(0, 5), run(0, 6), run(1, 5)
    assert equal(a, b) and not equal(a, c), "dropout follows random_state"
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn_a)


def test_every_epoch_draws_anew(toy, trials):
    drawn = []

    class Draws:
        def on_step_end(self, state):
            generator = state.context.generator
            drawn.extend([torch.rand(1), torch.rand(1, generator=generator)])

    data = trials(40)
    sampler = ShuffleSampler(40, batch_size=20)
    fit(toy(), data, sampler=sampler, epochs=3, callbacks=[Draws()])
    assert len(drawn) == 12 and len(set(torch.cat(drawn).tolist())) == 12


class Sharpness:
    """SAM: one step up the gradient in the product metric, second gradient there."""

    where, extra_gradients = "weight", 1

    def __init__(self, rho, mix=1.0):
        self.rho, self.mix = rho, mix

    def sample(self, context):
        space = context.space
        up = space.rgrad(space.gradients())
        step = space.scale(up, self.rho / space.norm(up))
        return Move(space, space.retract(step))


class Move:
    def __init__(self, space, to):
        self.space, self.to = space, to

    def apply(self):
        self.kept = self.space.snapshot()
        self.space.assign(self.to)

    def revert(self):
        self.space.restore(self.kept)


@pytest.mark.parametrize("mix", [1.0, 0.25])
def test_second_pass_equals_one_written_by_hand(toy, trials, mix):
    data = trials(dtype=torch.float64)
    ours = toy(dropout=0.0, dtype=torch.float64)
    theirs = copy.deepcopy(ours)
    whole = ShuffleSampler(len(data), batch_size=len(data))
    fit(ours, data, perturbation=Sharpness(0.1, mix), sampler=whole, epochs=2)

    optimizer = make_optimizer(theirs, lr=0.01)
    theirs.train()
    for epoch in (1, 2):
        batch = data.pick(whole.indices(epoch)[0])
        moved = copy.deepcopy(theirs)
        loss = F.cross_entropy(theirs(batch.x, batch.domain), batch.y)
        optimizer.zero_grad()
        loss.backward()
        space = ParamSpace(theirs)
        up = space.rgrad(space.gradients())
        there = space.retract(space.scale(up, 0.1 / space.norm(up)))
        ParamSpace(moved).assign(there)
        F.cross_entropy(moved(batch.x, batch.domain), batch.y).backward()
        for p, q in zip(theirs.parameters(), moved.parameters(), strict=True):
            p.grad = (1 - mix) * p.grad + mix * q.grad
        optimizer.step()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(
            ours.state_dict()[name], value, rtol=1e-12, atol=1e-13, msg=name
        )
    assert int(ours.norm.seen) == 2, "the second pass moves no statistics"


class Noise:
    """A gradient-free perturbation of weights: one pass, at the noisy weights."""

    where, extra_gradients = "weight", 0

    def sample(self, context):
        space = context.space
        u = space.random_tangent(context.generator)
        return Move(space, space.retract(space.scale(u, 1e-3)))


def test_noise_without_a_gradient_costs_one_pass(toy, trials):
    data = trials()
    net = toy()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(net.frame.detach().clone()))
    fit(net, data, perturbation=Noise(), epochs=1)
    assert len(calls) == net.norm.seen == 8
    plain = toy()
    fit(plain, data, epochs=1)
    assert not torch.equal(net.frame, plain.frame)
    torch.testing.assert_close(net.frame, plain.frame, rtol=0, atol=0.02)


class SignAttack:
    """FGSM: needs a gradient at the inputs, which must move no statistics."""

    where, extra_gradients = "input", 1

    def sample(self, context):
        x = context.batch.x.clone().requires_grad_()
        attacked = Batch(x, context.batch.y, context.batch.domain)
        (gradient,) = torch.autograd.grad(context.loss(attacked), x)
        self.batch = Batch(
            x.detach() + 0.1 * gradient.sign(), attacked.y, attacked.domain
        )
        return self

    def apply(self):
        return self.batch

    def revert(self):
        self.reverted = True


def test_inputs_are_attacked_at_the_weights_of_the_step(toy, trials):
    net = toy()
    start, seen = net.frame.detach().clone(), []

    class Watching(SignAttack):
        def sample(self, context):
            seen.append(context.model.frame.detach().clone())
            return super().sample(context)

    data = trials(40)
    whole = ShuffleSampler(40, batch_size=40)
    fit(net, data, perturbation=[Noise(), Watching()], sampler=whole, epochs=1)
    assert torch.equal(seen[0], start)


class Latent:
    """Adds noise behind a layer by a hook, which must be gone afterwards."""

    where, extra_gradients = "latent", 0

    def sample(self, context):
        self.model, self.generator = context.model, context.generator
        return self

    def apply(self):
        def shift(module, args, output):
            return output + 0.1 * torch.randn(output.shape, generator=self.generator)

        self.hook = self.model.batch_norm.register_forward_hook(shift)

    def revert(self):
        self.hook.remove()


def test_all_perturbations_in_one_step(toy, trials):
    data = trials()
    net = toy(dropout=0.0)
    seen = []
    net.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(args[0].detach().clone()), with_kwargs=True
    )
    attack = SignAttack()
    whole = ShuffleSampler(len(data), batch_size=len(data))
    fit(
        net,
        data,
        perturbation=[Sharpness(0.05), Latent(), attack],
        sampler=whole,
        epochs=1,
    )
    clean, first, second = seen
    torch.testing.assert_close((first - clean).abs(), torch.full_like(clean, 0.1))
    assert torch.equal(first, second), "no new attack at the perturbed weights"
    assert net.norm.seen == 1 and net.batch_norm.num_batches_tracked == 1
    assert attack.reverted and not net.batch_norm._forward_hooks


def test_an_error_in_the_perturbed_pass_restores_the_weights(toy, trials):
    net = toy()
    kept = net.frame.detach().clone()

    class Failing(CrossEntropy):
        calls = 0

        def __call__(self, *args):
            Failing.calls += 1
            if Failing.calls == 2:
                raise KeyboardInterrupt
            return super().__call__(*args)

    with pytest.raises(KeyboardInterrupt):
        fit(net, trials(), objective=Failing(), perturbation=Sharpness(0.5))
    assert torch.equal(net.frame, kept)
    assert net.norm.seen == 1


class Clip:
    """Keeps the gradients of the head only, and clips them."""

    def fit(self, trajectory, space):
        return self

    def __call__(self, gradients, context):
        return {
            name: g.clamp(-1e-3, 1e-3)
            if name.startswith("head")
            else torch.zeros_like(g)
            for name, g in gradients.items()
        }


class Memory:
    def __init__(self):
        self.steps, self.states = [], []

    def observe(self, model, step):
        self.steps.append(step)
        self.states.append({n: p.detach().clone() for n, p in model.named_parameters()})

    def merge(self, states, space, data=None):
        return space.mean(states)


def test_gradient_transform_and_averager(toy, trials):
    data = trials()
    net, memory = toy(), Memory()
    start = copy.deepcopy(net)
    optimizer = make_optimizer(net, lr=1.0, name="riemannian-sgd", weight_decay=0.0)
    fit(
        net, data, optimizer=optimizer, grad_transform=Clip(), averager=memory, epochs=1
    )
    assert memory.steps == list(range(1, 9))
    torch.testing.assert_close(net.frame, start.frame)
    first = memory.states[0]["head.weight"] - start.head.weight
    assert 0 < first.abs().max() <= 1.001e-3
    merged = memory.merge(memory.states, ParamSpace(net))
    torch.testing.assert_close(
        merged["head.weight"],
        torch.stack([s["head.weight"] for s in memory.states]).mean(0),
    )


class Trace:
    """An objective of the whole batch."""

    per_trial = False

    def __call__(self, model, batch, outputs, context):
        return outputs.square().sum()


def test_objectives_add_up_with_weights(toy, trials):
    data = trials(40)
    net = toy(dropout=0.0).eval()
    logits = net(data.x, data.domain)
    wanted = F.cross_entropy(logits, data.y) + 0.3 * logits.square().sum()
    got = evaluate(net, data, [CrossEntropy(), (0.3, Trace())])["loss"]
    assert got == pytest.approx(float(wanted), rel=1e-5)
    in_parts = evaluate(net, data, CrossEntropy(), batch_size=7)["loss"]
    assert in_parts == pytest.approx(float(F.cross_entropy(logits, data.y)), rel=1e-5)


class Doubling(ShuffleSampler):
    """Gives some trials twice the weight."""

    def weights(self, epoch):
        return 1.0 + (torch.arange(self.n_trials) % 2)


def test_weights_multiply_losses_of_trials(toy, trials):
    data = replace(trials(40), weight=torch.linspace(0.5, 1.5, 40))
    nets = [toy(dropout=0.0) for _ in range(2)]
    sampler = Doubling(40, batch_size=40)
    fit(nets[0], data, sampler=sampler, epochs=1)
    index = sampler.indices(1)[0]
    batch = data.pick(index)
    nets[1].train()
    losses = F.cross_entropy(nets[1](batch.x, batch.domain), batch.y, reduction="none")
    (losses * (1.0 + index % 2) * batch.weight).mean().backward()
    optimizer = make_optimizer(nets[1], lr=0.01)
    optimizer.step()
    torch.testing.assert_close(nets[0].frame, nets[1].frame)
    with pytest.raises(
        EEGTensorError, match="one loss for a whole batch comes from Trace"
    ):
        fit(toy(), data, objective=Trace(), sampler=sampler)


class Spy:
    """Notes which hooks are called, and what a step shows."""

    def __init__(self):
        self.called = []

    def on_epoch_start(self, state):
        self.called.append(f"start {state.epoch}")

    def on_step_end(self, state):
        losses, batch = state.context.trial_losses, state.context.batch
        assert losses.shape == (len(batch),) and not losses.requires_grad
        self.called.append(batch.index)

    def on_epoch_end(self, state):
        self.called.append(f"end {state.epoch}")
        state.stop = state.epoch == 2


def test_callbacks_see_each_step_and_may_stop(toy, trials):
    data, spy = trials(40), Spy()
    sampler = ShuffleSampler(40, batch_size=20)
    history = fit(toy(), data, callbacks=[spy], sampler=sampler, epochs=9)
    assert len(history) == 2
    words = [c for c in spy.called if isinstance(c, str)]
    assert words == ["start 1", "end 1", "start 2", "end 2"]
    wanted = torch.cat(sampler.indices(1) + sampler.indices(2))
    assert torch.equal(
        torch.cat([c for c in spy.called if not isinstance(c, str)]), wanted
    )


def test_models_without_domains_and_validation_by_a_function(trials):
    net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    seen = []

    def validation(model):
        seen.append(model.training)
        return {"kappa": torch.tensor(0.5)}

    history = fit(net, trials(), validation=validation)
    assert history.column("kappa") == [0.5] * 3 and seen == [True] * 3
    compiled = torch.compile(nn.Linear(8, 2), backend="eager")
    fit(compiled, trials(), epochs=1)


def test_compiled_networks_get_domains(toy, trials):
    net = toy()
    fit(torch.compile(net, backend="eager"), trials(), epochs=1)
    assert net.norm.seen == 8


class Seeing:
    """Fails where a step on a GPU waits for it."""

    def __init__(self, device, n_steps):
        self.on = device == "cuda"
        self.n_steps = n_steps

    def set(self, mode):
        if self.on:
            torch.cuda.set_sync_debug_mode(mode)

    def on_epoch_start(self, state):
        # The first step fills caches and the optimizer's state.
        self.left = self.n_steps

    def on_step_end(self, state):
        self.left -= 1
        self.set("error" if state.step > 1 and self.left > 0 else "default")


def test_a_step_does_not_wait_for_the_gpu(toy, trials, device):
    data = trials(160)
    net = toy().to(device)
    # geoopt's SPD step decomposes with checks, which wait.
    net.shape.requires_grad_(False)
    seeing = Seeing(device, 8)
    try:
        fit(net, data, callbacks=[seeing], epochs=2)
    finally:
        seeing.set("default")
    assert seeing.left == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perturbation": [Sharpness(1), Noise()]}, "Two perturbations of weights"),
        ({"objective": []}, "no objective"),
        ({"objective": F.cross_entropy}, "does not say whether"),
        ({"device": "tpu"}, "is not known"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_mistakes(toy, trials, changes, message):
    with pytest.raises(EEGTensorError, match=message):
        fit(toy(), trials(), **changes)


def test_mistakes_found_while_training(toy, trials):
    data = trials()
    with pytest.raises(EEGTensorError, match="loss of epoch 1 is nan"):
        fit(nn.Linear(8, 2), Batch(data.x * np.nan, data.y, data.domain))
    with pytest.raises(EEGTensorError, match="trials without labels"):
        fit(
            nn.Linear(8, 2),
            Batch(data.x),
            sampler=ShuffleSampler(160),
        )

    class Wrong(CrossEntropy):
        per_trial = False

    with pytest.raises(EEGTensorError, match=r"Wrong returned a loss of shape \(20,\)"):
        fit(toy(), data, objective=Wrong())

    class Lost(Noise):
        where = "bias"

    with pytest.raises(EEGTensorError, match=r"Lost.where='bias' is not known"):
        fit(toy(), data, perturbation=Lost())

    class Empty(ShuffleSampler):
        def indices(self, epoch):
            return []

    with pytest.raises(EEGTensorError, match="Empty has no batch in epoch 1"):
        fit(toy(), data, sampler=Empty(160))


def test_the_trained_network_pickles(toy, trials, equal):
    net = toy()
    fit(net, trials(), perturbation=Sharpness(0.1), epochs=1)
    again = pickle.loads(pickle.dumps(net))
    assert equal(again.state_dict(), copy.deepcopy(net).state_dict())
