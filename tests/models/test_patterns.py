"""What a network looks at is what was planted, and what the authors compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from eegtensor import EEGTensorError, _headmodel, simulate
from eegtensor.models import TSMNet, patterns
from eegtensor.models.patterns import class_patterns, sources

SIZES = {"n_spatial_filters": 10, "subspace": 6, "temporal_kernel": 9, "front": "lag"}


def make_net(n_chans, n_outputs, n_times, names, **options):
    options = SIZES | {"random_state": 0, "front_dtype": "float64"} | options
    domains = names if options.get("norm", "domain") == "domain" else ()
    return TSMNet(n_chans, n_outputs, n_times, domains=domains, **options)


def fitted(x, domain, names, n_outputs=2, **options):
    net = make_net(x.shape[1], n_outputs, x.shape[2], names, **options)
    net.fit_statistics(x, domain)
    return net.eval()


def noise(n_trials=40, n_chans=5, n_times=60, n_domains=2, seed=0):
    """Return trials whose sources change power from trial to trial, and domains."""
    generator = torch.Generator().manual_seed(seed)
    real = {"generator": generator, "dtype": torch.float64}
    level = torch.randn(n_trials, n_chans, 1, **real).exp()
    mixing = torch.randn(n_chans, n_chans, **real)
    x = 1e-5 * mixing @ (level * torch.randn(n_trials, n_chans, n_times, **real))
    return x, torch.arange(n_trials) % n_domains


def cosine(a, b):
    return float(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))


def least_squares_head(net, x, domain, y):
    """Let the head be the regression of centred classes on features."""
    features = net.features(x, domain).detach()
    targets = torch.nn.functional.one_hot(y).to(features)
    ridge = 0.1 * features.square().mean() * len(x) * torch.eye(features.shape[1])
    weight = torch.linalg.solve(
        features.mT @ features + ridge, features.mT @ (targets - targets.mean(dim=0))
    )
    with torch.no_grad():
        net.head.weight.copy_(weight.mT)


def simulated(n_classes=2, **options):
    """Return simulated trials, and the topography of every class's own source."""
    trials = simulate.simulate_trials(
        n_subjects=4, n_sessions=1, n_trials=80, n_classes=n_classes, **options
    )
    # The simulator's first stream places the sources of everyone.
    rng = np.random.default_rng(simulate._seed(0).spawn(1)[0])
    dipoles = _headmodel.place(simulate._RHYTHMIC + simulate._BACKGROUND, rng)
    head = _headmodel.make_head("sphere", trials.info, rng)
    leadfield = head.leadfield(dipoles)
    own = {
        name: leadfield[:, simulate._RHYTHMIC.index(electrode)]
        for name, electrode in simulate.TASKS.items()
        if electrode and name in trials.classes
    }
    return trials, own


def as_tensors(trials):
    y = np.searchsorted(trials.classes, trials.y)
    names = sorted(set(trials.subjects.tolist()))
    domain = np.searchsorted(names, trials.subjects)
    arrays = (trials.X, domain, y)
    return [*(torch.from_numpy(a) for a in arrays), [str(n) for n in names]]


def test_patterns_are_the_authors():
    """Equal to Kobler et al.'s construction, here from their formulas in NumPy."""
    x, domain = noise(n_chans=6, n_domains=1)
    net = fitted(
        x, domain, ["a"], n_temporal_filters=1, n_spatial_filters=5, subspace=3
    )
    filtered = np.stack(
        [
            np.correlate(
                np.pad(channel, 4, mode="reflect"),
                net.front.temporal.weight.detach().numpy().ravel(),
                "valid",
            )
            for channel in x.reshape(-1, x.shape[-1]).numpy()
        ]
    ).reshape(x.shape)
    C1 = np.mean([np.cov(trial, bias=True) for trial in filtered], axis=0)
    V = net.front.spatial.weight.detach().numpy()[:, 0, :, 0]
    W = net.bimap.weight.detach().numpy()
    Cm = V @ C1 @ V.T
    mean = W.T @ Cm @ W
    with torch.no_grad():
        net.norm.test_mean[:] = torch.from_numpy(mean)
        net.norm.test_variance[:] = 1.0 - net.norm.eps
    L = net.features(x, domain).detach().numpy()
    w = net.head.weight.detach().numpy()
    w = (w[1] - w[0])[np.newaxis]
    Cll = np.cov(L.T, bias=True)
    D = linalg.solve(linalg.sqrtm(w @ Cll @ w.T), w @ Cll)[0]
    tangent = np.zeros((3, 3))
    tangent[np.triu_indices(3)] = D
    tangent = np.triu(tangent, 1) / np.sqrt(2) + np.diag(np.diag(tangent))
    tangent = tangent + np.triu(tangent, 1).T
    root = linalg.sqrtm(mean)
    s, U = linalg.eigh(root @ linalg.expm(tangent) @ root, mean)
    P = np.linalg.pinv(U).T
    P = linalg.solve(W.T @ Cm @ W, W.T @ Cm).T @ P
    P = linalg.solve(V @ C1 @ V.T, V @ C1).T @ P

    found = sources(*(m for m in class_patterns(net, x, domain)))
    order = np.argsort(-np.abs(np.log(s)))
    np.testing.assert_allclose(found.change[0, :3], np.log(s)[order], rtol=1e-8)
    np.testing.assert_allclose(found.change[0, 3:], 0, atol=1e-10)
    for k, column in enumerate(order):
        topography = found.topographies[0, :, k].numpy()
        assert cosine(topography, P[:, column]) == pytest.approx(1, abs=1e-10)


def test_two_classes_show_the_areas_that_they_weaken():
    trials, own = simulated()
    x, domain, y, names = as_tensors(trials)
    net = fitted(x, domain, names, n_spatial_filters=40, subspace=16)
    least_squares_head(net, x, domain, y)
    found = class_patterns(net, x, domain)
    assert found.matrices.shape == (1, 16, 16)
    first = sources(found.matrices[0], found.covariance)
    # More in class right_hand is what left_hand weakens.
    for sign, name in ((1, "left_hand"), (-1, "right_hand")):
        k = int((sign * first.change).argmax())
        assert k < 2
        assert cosine(first.topographies[:, k].numpy(), own[name]) > 0.9


def test_each_of_several_classes_has_less_power_in_its_own_area():
    trials, own = simulated(n_classes=3)
    x, domain, y, names = as_tensors(trials)
    net = fitted(x, domain, names, 3, n_spatial_filters=40, subspace=16)
    least_squares_head(net, x, domain, y)
    found = class_patterns(net, x, domain)
    for matrix, name in zip(found.matrices, trials.classes, strict=True):
        first = sources(matrix, found.covariance)
        k = int(first.change.argmin())
        assert k < 2
        assert cosine(first.topographies[:, k].numpy(), own[name]) > 0.9


def test_a_filter_of_another_phase_changes_nothing():
    # The outputs of an odd filter are uncorrelated with the sensors themselves.
    x, domain = noise(n_chans=4, n_times=400)
    found = []
    for taps in ([0.0, 1, 0], [-1.0, 0, 1]):
        net = make_net(
            4, 2, 400, ["a", "b"], temporal_kernel=3, n_temporal_filters=1, subspace=4
        )
        with torch.no_grad():
            net.front.temporal.weight.copy_(torch.tensor(taps))
        net.fit_statistics(x, domain)
        found.append(sources(*class_patterns(net.eval(), x, domain)))
    np.testing.assert_allclose(*(f.change for f in found), rtol=0.3, atol=0.03)
    for k in range(2):
        a, b = (f.topographies[0, :, k].numpy() for f in found)
        assert cosine(a, b) > 0.98


def test_neither_units_nor_scales_of_filters_nor_gains_matter():
    x, domain = noise()
    names = ["a", "b"]

    def compare(a, b):
        np.testing.assert_allclose(a.matrices, b.matrices, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-7, atol=1e-9)

    base = class_patterns(fitted(x, domain, names), x, domain)
    assert base.covariance.trace() == pytest.approx(5)
    compare(base, class_patterns(fitted(1e6 * x, domain, names), 1e6 * x, domain))
    gains = torch.tensor([1.0, 10.0])[domain][:, None, None]
    compare(base, class_patterns(fitted(gains * x, domain, names), gains * x, domain))
    net = fitted(x, domain, names)
    scale = torch.tensor([2.0, -3.0, 0.1, 1.0], dtype=torch.float64)
    with torch.no_grad():
        net.front.temporal.weight.mul_(scale[:, None, None, None])
        net.front.spatial.weight.div_(scale[None, :, None, None])
    compare(base, class_patterns(net, x, domain))


def test_paths_blocks_and_the_order_of_trials_do_not_matter(monkeypatch, device):
    x, domain = (part.to(device) for part in noise())
    net = fitted(x, domain, ["a", "b"], device=device)
    base = class_patterns(net, x, domain)
    shuffled = torch.randperm(len(x), device=device)
    others = [
        class_patterns(net, net.front.statistics(x), domain),
        class_patterns(net, x[shuffled], domain[shuffled]),
    ]
    net.front.path = "conv"
    others.append(class_patterns(net, x, domain))
    monkeypatch.setattr(patterns, "_BLOCK", 1)
    others.append(class_patterns(net, x, domain))
    for other in others:
        for a, b in zip(base, other, strict=True):
            np.testing.assert_allclose(a.cpu(), b.cpu(), rtol=1e-7, atol=1e-9)


def test_scales_of_latent_sources_do_not_matter():
    # Log variances forget them, after the norm.
    x, domain = noise(n_domains=1)
    options = {"features": "log-variance", "n_spatial_filters": 6, "threshold": 1e-12}
    net = fitted(x, domain, ["a"], **options)
    base = class_patterns(net, x, domain)
    scale = torch.tensor([2.0, 0.5, 1.0, 3.0, 0.2, 1.0], dtype=torch.float64)
    with torch.no_grad():
        net.front.spatial.weight.mul_(scale[:, None, None, None])
    net.fit_statistics(x, domain)
    for a, b in zip(base, class_patterns(net, x, domain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_what_raises_all_classes_alike_is_no_decision():
    x, domain = noise()
    net = fitted(x, domain, ["a", "b"], 3)
    base = class_patterns(net, x, domain)
    with torch.no_grad():
        net.head.weight += torch.linspace(-1, 1, net.head.weight.shape[1])
    for a, b in zip(base, class_patterns(net, x, domain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_a_common_reference_is_no_obstacle():
    x, domain = noise()
    x = x - x.mean(dim=1, keepdim=True)
    net = fitted(x, domain, ["a", "b"], front_dtype="float32")
    P, C = class_patterns(net, x, domain)
    found = sources(P[0], C)
    basis = torch.linalg.svd(torch.ones(1, 5, dtype=torch.float64))[2][1:].mT
    reduced = sources(basis.mT @ P[0] @ basis, basis.mT @ C @ basis)
    np.testing.assert_allclose(found.change[:4], reduced.change, rtol=1e-4)
    assert abs(found.change[4]) < 1e-4
    leading = found.topographies[:, 0]
    assert abs(leading.sum()) < 1e-4 * leading.abs().max()


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "none"},
        {"norm": "batch"},
        {"features": "log-variance"},
        {"metric": "log-cholesky"},
        {"head": "grassmann"},
        {"front_dtype": "float32"},
    ],
    ids=str,
)
def test_variants_of_the_network_see_much_the_same(options):
    trials, own = simulated(n_channels=8)
    x, domain, y, names = as_tensors(trials)
    net = fitted(x, domain, names, n_spatial_filters=16, subspace=8, **options)
    if options.get("head") != "grassmann":
        least_squares_head(net, x, domain, y)
    else:
        step = torch.optim.Adam(net.head.parameters(), lr=0.05)
        features = net.features(x, domain).detach()
        for _ in range(30):
            step.zero_grad()
            torch.nn.functional.cross_entropy(net.head(features), y).backward()
            step.step()
    found = sources(*class_patterns(net, x, domain))
    topography = found.topographies[0, :, int(found.change[0].argmin())].numpy()
    assert cosine(topography, own["right_hand"]) > 0.9


def test_what_cannot_be_looked_at_is_said():
    x, domain = noise()
    net = fitted(x, domain, ["a", "b"])
    with pytest.raises(EEGTensorError, match="Linear has no linear front"):
        class_patterns(torch.nn.Linear(2, 2), x, domain)
    with pytest.raises(EEGTensorError, match=r"call net\.eval"):
        class_patterns(net.train(), x, domain)
    with pytest.raises(EEGTensorError, match="at least two trials"):
        class_patterns(net.eval(), x[:2], domain[:2])


def test_sources_take_numpy_and_solve_their_equation():
    rng = np.random.default_rng(0)
    P, C = rng.standard_normal((3, 4, 4)), np.cov(rng.standard_normal((4, 50)))
    P = P + P.transpose(0, 2, 1)
    change, filters, topographies = sources(P, C)
    assert isinstance(change, np.ndarray)
    np.testing.assert_allclose(P @ filters, topographies * change[:, None], atol=1e-9)
    np.testing.assert_allclose(C @ filters, topographies, atol=1e-9)
    for v in filters:
        np.testing.assert_allclose(v.T @ C @ v, np.eye(4), atol=1e-9)
    assert (np.diff(np.abs(change), axis=-1) <= 0).all()


def test_rounding_where_sensors_have_no_power_is_no_source():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((4, 3)))[0]
    P, C = basis @ np.diag([0.5, -0.2, 0.1]) @ basis.T, basis @ basis.T
    rounding = 1e-15 * rng.standard_normal((4, 4))
    change = sources(P + rounding + rounding.T, C)[0]
    np.testing.assert_allclose(change, [0.5, -0.2, 0.1, 0.0], atol=1e-6)
