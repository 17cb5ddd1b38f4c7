"""F-SAM against its equations, the released rule and SAM."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import ShuffleSampler, make_optimizer, train
from eegtensor.training.perturbations import FSAM, SAM


def by_hand(network, gradients, batches, *, rho, sigma, decay, released, lr=0.3):
    """Steps by the equations of the paper, or in the order of the released code."""
    model = network()
    w = [p.detach().clone() for p in model.parameters()]
    m = None
    for batch in batches:
        g = gradients(model, w, batch)
        if m is None:
            m, d = g, g
        elif released:
            d = [a - sigma * b for a, b in zip(g, m, strict=True)]
            m = [decay * b + (1 - decay) * a for a, b in zip(g, m, strict=True)]
        else:
            m = [decay * b + (1 - decay) * a for a, b in zip(g, m, strict=True)]
            d = [a - sigma * b for a, b in zip(g, m, strict=True)]
        norm = sum((leaf**2).sum() for leaf in d).sqrt()
        up = [a + rho * b / norm for a, b in zip(w, d, strict=True)]
        g = gradients(model, up, batch)
        w = [a - lr * b for a, b in zip(w, g, strict=True)]
    return w


@pytest.mark.parametrize("sigma", [1.0, 0.5])
@pytest.mark.parametrize("compat", [None, "released"])
def test_steps_are_those_of_the_equations(
    steps, batches, gradients, network, sigma, compat
):
    run = steps(FSAM(rho=0.2, sigma=sigma, decay=0.6, compat=compat))
    data = batches(4)
    for batch in data:
        run.take(batch)
    wanted = by_hand(
        network,
        gradients,
        data,
        rho=0.2,
        sigma=sigma,
        decay=0.6,
        released=compat == "released",
    )
    for a, b in zip(run.weights, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_both_rules_agree_with_all_of_the_mean_taken_away_and_only_then(steps, batches):
    def end(sigma, compat):
        run = steps(FSAM(rho=0.2, sigma=sigma, compat=compat))
        for batch in batches(4):
            run.take(batch)
        return torch.cat([w.ravel() for w in run.weights])

    assert (end(1.0, None) - end(1.0, "released")).abs().max() < 1e-12
    assert (end(0.5, None) - end(0.5, "released")).abs().max() > 1e-6


def test_nothing_taken_away_is_sam_bit_for_bit(steps, batches):
    friendly, plain = steps(FSAM(rho=0.05, sigma=0.0)), steps(SAM(rho=0.05))
    for batch in batches(3):
        friendly.take(batch)
        plain.take(batch)
    assert all(map(torch.equal, friendly.weights, plain.weights))


def test_first_step_on_a_quadratic_is_that_worked_out_by_hand(quadratic, fit):
    # Specification A25: H = diag(1, 10), w = (1, 1), lr .1, rho .05.
    wanted = torch.tensor([0.8995024815, -0.0497518596], dtype=torch.float64)
    found = fit(quadratic([1.0, 10.0], [1.0, 1.0]), FSAM(rho=0.05))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


def test_the_same_batch_again_and_again_becomes_a_plain_step(steps, batches):
    # d shrinks by the factor `decay` in each step, from the difference of two batches.
    fsam = FSAM(rho=0.2, decay=0.1)
    run, batch = steps(fsam, lr=0.0), batches()[0]
    run.take(batches(seed=9)[0])
    counts = [int(fsam.n_plain) for _ in range(6) if run.take(batch)]
    assert counts[1] == 0 and counts[5] - counts[3] == 2
    run.optimizer.param_groups[0]["lr"] = 0.3
    plain = steps(())
    run.take(batch)
    plain.take(batch)
    assert all(map(torch.equal, run.weights, plain.weights))


def test_memory_goes_through_a_file_exactly(toy, trials, equal, tmp_path):
    from eegtensor.training import Checkpoint, CrossEntropy

    def run(stop, path):
        net = toy()
        data = trials()

        class Stop:
            def on_epoch_end(self, state):
                state.stop = state.epoch == stop

        train(
            net,
            data,
            objective=CrossEntropy(),
            optimizer=make_optimizer(net, "riemannian-sgd", lr=0.05),
            sampler=ShuffleSampler(len(data), batch_size=40),
            epochs=4,
            perturbation=FSAM(),
            callbacks=[Stop()],
            checkpoint=Checkpoint(path),
        )
        return net.state_dict()

    whole = run(4, tmp_path / "a")
    run(2, tmp_path / "b")
    file = tmp_path / "b"
    # The file of a stopped run says so; the second run begins where it ended.
    from eegtensor.training.files import read_state, write_state

    content = read_state(file, "eegtensor training 1", what="", fix="")
    write_state(file, {**content, "stop": False}, "eegtensor training 1")
    assert equal(run(4, file), whole)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="rho=0"):
        FSAM(rho=0)
    with pytest.raises(EEGTensorError, match="decay=1"):
        FSAM(decay=1)
    with pytest.raises(EEGTensorError, match="compat"):
        FSAM(compat="paper")
