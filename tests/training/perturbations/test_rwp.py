"""RWP: size of the noise, mixing of gradients, batches, manifolds."""

from __future__ import annotations

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import ParamSpace
from eegtensor.training.perturbations import ARWP, MRWP, RWP
from eegtensor.training.perturbations._noise import relative_noise


def filter_noise(weights, sigma, generator):
    """Noise by the paper: of each filter, and of vectors as a whole."""
    found = []
    for w in weights:
        z = torch.randn(w.shape, generator=generator, dtype=w.dtype)
        size = w.norm() if w.ndim == 1 else w.flatten(1).norm(dim=1)
        found.append(sigma * z * size.reshape(-1, *[1] * (w.ndim - 1)))
    return found


def test_steps_are_those_of_the_equation_on_two_batches(
    steps, batches, gradients, network
):
    run, data = steps(RWP(sigma=0.1, mix=0.3)), batches(3)
    for batch in data:
        run.take(batch)
    generator = torch.Generator().manual_seed(5)
    model = network()
    w = [p.detach().clone() for p in model.parameters()]
    for i, batch in enumerate(data):
        noise = filter_noise(w, 0.1, generator)
        noisy = [a + b for a, b in zip(w, noise, strict=True)]
        one = gradients(model, w, batch)
        two = gradients(model, noisy, data[max(i - 1, 0)])
        w = [a - 0.3 * (0.7 * b + 0.3 * c) for a, b, c in zip(w, one, two, strict=True)]
    for a, b in zip(run.weights, w, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_no_step_size_leaves_the_weights_bit_for_bit(steps, batches):
    for method in (RWP(sigma=0.5), ARWP(sigma=0.5), MRWP(sigma=0.5)):
        run = steps(method, lr=0.0)
        before = run.weights
        for batch in batches(3):
            run.take(batch)
        assert all(map(torch.equal, before, run.weights))


def test_mean_loss_on_a_quadratic_is_the_closed_form():
    # E L(w + e) = L(w) + sum_j H_jj s_j^2 / 2 with s the size of the noise.
    g = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(3, 2, bias=False).double()
    space = ParamSpace(layer)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 3, generator=g, dtype=torch.float64))
    a = torch.randn(6, 6, generator=g, dtype=torch.float64)
    h, w = a @ a.T, layer.weight.detach()
    s = 0.5 * w.norm(dim=1, keepdim=True).expand(2, 3).reshape(-1)
    wanted = 0.5 * w.reshape(-1) @ h @ w.reshape(-1) + 0.5 * (h.diagonal() * s**2).sum()
    draws = torch.stack(
        [relative_noise(space, 0.5, g)["weight"].reshape(-1) for _ in range(4000)]
    )
    points = w.reshape(-1) + torch.cat([draws, -draws])
    values = 0.5 * ((points @ h) * points).sum(dim=1)
    # Four standard errors; +-e pairs take the linear term away.
    pairs = values.reshape(2, -1).mean(dim=0)
    assert (pairs.mean() - wanted).abs() < 4 * pairs.std() / 4000**0.5


def test_noise_on_manifolds_is_relative_and_stays(toy):
    space = ParamSpace(toy(dtype=torch.float64))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        space.leaves["shape"].copy_(torch.diag(torch.tensor([1e-3, 1.0, 1e3])))
    noise = [relative_noise(space, 0.1, g) for _ in range(400)]
    frame, shape = space.points()["frame"], space.points()["shape"]
    # Stiefel 8 x 3: E ||e||^2 = sigma^2 / n times the dimension nk - k (k + 1) / 2.
    sizes = torch.stack([e["frame"].norm() ** 2 for e in noise])
    assert sizes.mean() == pytest.approx(0.01 / 8 * 18, rel=0.1)
    tangent = noise[0]["frame"].mT @ frame
    torch.testing.assert_close(tangent, -tangent.mT, rtol=0, atol=1e-12)
    root = shape.diagonal().rsqrt().diag()
    white = torch.stack([root @ e["shape"] @ root for e in noise])
    assert white.diagonal(dim1=-2, dim2=-1).std() == pytest.approx(
        0.1 / 3**0.5, rel=0.1
    )
    assert white[:, 0, 2].std() == pytest.approx(0.1 / 6**0.5, rel=0.15)


def test_a_batch_alone_in_its_epoch_is_used_twice(steps, batches):
    method, batch = RWP(sigma=0.1), batches()[0]
    previous, same = steps(method), steps(RWP(sigma=0.1, batch="same"))
    for _ in range(2):
        method.on_epoch_start(None)
        previous.take(batch)
        same.take(batch)
    assert all(map(torch.equal, previous.weights, same.weights))


def test_mistakes():
    with pytest.raises(EEGTensorError, match="sigma=-1"):
        RWP(sigma=-1)
    with pytest.raises(EEGTensorError, match="mix=0"):
        RWP(mix=0)
    with pytest.raises(EEGTensorError, match="batch"):
        RWP(batch="next")
