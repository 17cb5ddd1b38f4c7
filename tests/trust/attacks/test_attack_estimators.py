"""Decoders as attacks see them: the same scores, true gradients, fixed statistics."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.pipeline import Pipeline as PlainPipeline
from sklearn.tree import DecisionTreeClassifier

from eegtensor import EEGTensorError
from eegtensor.features import Covariances, TangentSpace
from eegtensor.pipelines import make_pipeline
from eegtensor.transfer import MDM
from eegtensor.trust.attacks import FGSM, PGD, Square
from eegtensor.trust.attacks.asking import codes_of, scores
from eegtensor.trust.attacks.asking import fixed as fixed_copy
from eegtensor.trust.attacks.blackbox import Differences
from eegtensor.trust.attacks.views import view_of

PIPELINES = [
    ("mdm", None, {}),
    ("mdm", "euclidean", {}),
    ("mdm", "riemann", {"estimator": "lwf"}),
    ("mdm", "riemann", {"n_bands": 2, "bands": "separate"}),
    ("mdm", "riemann", {"n_bands": 2, "bands": "blocks"}),
    ("mdm", "riemann", {"metric": "log-euclidean"}),
    ("tangent-space", None, {"metric": "log-euclidean"}),
    ("tangent-space", "riemann", {}),
    ("tangent-space-lda", "euclidean", {}),
    ("tangent-space-svm", "riemann", {}),
    ("tangent-space", "riemann-balanced", {}),
    ("csp-lda", "riemann", {}),
]


def of(name, align, options):
    return f"{name}+{align}" + "".join(f"-{v}" for v in options.values())


@pytest.mark.parametrize(
    ("name", "align", "options"), PIPELINES, ids=[of(*p) for p in PIPELINES]
)
def test_pipelines_give_the_scores_and_a_gradient_that_differences_confirm(
    decoders, rng, name, align, options
):
    pipeline = decoders.get(name, align, **options)
    X = decoders.test[0]
    view = view_of(pipeline, len(X), **decoders.new)
    wanted = scores(pipeline, X, decoders.new)
    found = view(torch.from_numpy(X)).detach().numpy()
    # Probabilities are logits less a number that is the same for all classes.
    shift = (wanted - found).mean(1, keepdims=True)
    np.testing.assert_allclose(found + shift, wanted, atol=1e-9)
    # A slope along a random direction, by the pipeline itself.
    x = torch.from_numpy(X).requires_grad_()
    weight = rng.standard_normal(found.shape[1])
    weight -= weight.mean()
    g = torch.autograd.grad((view(x) @ torch.from_numpy(weight)).sum(), x)[0]
    d = rng.standard_normal(X.shape) * X.std() * 1e-4
    ends = [scores(pipeline, X + s * d, decoders.new) @ weight for s in (1, -1)]
    slope = (ends[0] - ends[1]) / 2
    predicted = (g.numpy() * d).sum(axis=(1, 2))
    np.testing.assert_allclose(
        predicted, slope, rtol=2e-3, atol=2e-3 * abs(slope).max()
    )


def test_a_network_gives_its_logits_from_trials(decoders):
    pipeline, (X, _) = decoders.tsmnet(), decoders.test
    view = view_of(pipeline, len(X), **decoders.new)
    with view.still():
        z = view(torch.from_numpy(X).to(view.dtype)).detach().double()
        part = view.pick(torch.tensor([5, 2]))(
            torch.from_numpy(X[[5, 2]]).to(view.dtype)
        )
    p = pipeline.predict_proba(X, **decoders.new)
    np.testing.assert_allclose(z.softmax(1).numpy(), p, atol=1e-5)
    torch.testing.assert_close(part.double(), z[[5, 2]], rtol=0, atol=1e-6)


def test_each_trial_has_the_statistics_of_its_own_domain(decoders):
    pipeline = decoders.get("tangent-space", "riemann")
    who = decoders.names["subjects"][decoders.train]
    X = decoders.X[decoders.train]
    view = view_of(pipeline, len(X), subjects=who)
    wanted = scores(pipeline, X, {"subjects": who})
    rows = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))[:9]
    found = view.pick(rows)(torch.from_numpy(X)[rows])
    np.testing.assert_allclose(found.numpy(), wanted[rows], atol=1e-9)


@pytest.mark.parametrize("name", ["mdm", "tangent-space-svm", "tsmnet"])
def test_attacks_leave_a_decoder_as_it_is_and_fool_it(decoders, name):
    pipeline = decoders.tsmnet() if name == "tsmnet" else decoders.get(name, "riemann")
    X, y = decoders.test
    before = pipeline.predict(X, **decoders.new)
    found = PGD(0.1, n_steps=5).perturb(pipeline, X, y, **decoders.new)
    assert (pipeline.predict(X, **decoders.new) == before).all()
    assert found.accuracy < (before == y).mean() - 0.2
    assert found.X.dtype == X.dtype
    assert found.X.shape == X.shape
    assert found.budget.linf.max() <= 0.1 * (1 + 1e-4)
    again = pipeline.predict(found.X, **decoders.new)
    assert (again == found.predicted).all()
    assert (found.fooled == (again != y)).all()


def test_volts_and_microvolts_are_attacked_alike(decoders):
    # Fitted anew: decoders are to be of the unit of their trials.
    X, y = decoders.test
    who = {"subjects": decoders.names["subjects"][decoders.train]}
    results = []
    for unit in (1.0, 2.0**20):
        pipeline = make_pipeline("tangent-space", align="riemann")
        pipeline.fit(
            unit * decoders.X[decoders.train], decoders.y[decoders.train], **who
        )
        pipeline.adapt(unit * X, **decoders.new)
        attack = PGD(0.05, n_steps=5, random=False)
        results.append(attack.perturb(pipeline, unit * X, y, **decoders.new))
    a, b = results
    assert (a.predicted == b.predicted).all()
    np.testing.assert_allclose(a.budget.l2, b.budget.l2, rtol=1e-9)
    assert abs(a.X - b.X / 2.0**20).max() < 1e-9 * X.std()


def test_what_adapts_to_its_trials_is_adapted_to_the_clean_ones(decoders):
    X, y = decoders.test
    policy = decoders.get("tangent-space", "riemann", adapt=False, unseen="adapt")
    fixed = decoders.get("tangent-space", "riemann", unseen="adapt")
    attack = PGD(0.1, n_steps=3)
    found = attack.perturb(policy, X, y, **decoders.new)
    wanted = attack.perturb(fixed, X, y, **decoders.new)
    assert (found.X == wanted.X).all()
    assert found.accuracy == wanted.accuracy
    # Asked itself, it would move its alignment to the perturbed trials.
    moved = scores(policy, found.X, decoders.new)
    assert abs(moved - scores(fixed, found.X, decoders.new)).max() > 1e-3
    # People it knows keep the statistics of the fit.
    who = {"subjects": decoders.names["subjects"][decoders.train]}
    source = decoders.X[decoders.train]
    known = FGSM(0.0).perturb(policy, source, decoders.y[decoders.train], **who)
    assert (known.predicted == policy.predict(source, **who)).all()
    both = np.concatenate([source[:7], X])
    mixed = {
        "subjects": np.concatenate([who["subjects"][:7], decoders.new["subjects"]])
    }
    still = fixed_copy(policy, both, **mixed, sessions=None)
    np.testing.assert_allclose(
        scores(still, both, mixed), scores(policy, both, mixed), atol=1e-9
    )


def test_differences_are_the_gradient_of_scores_of_vectors_and_matrices(rng):
    W = rng.standard_normal((4, 3))

    def of_vectors(v, rows):
        assert len(v) == len(rows)
        return np.tanh(v @ W) * (1 + rows[:, None])

    v = torch.from_numpy(rng.standard_normal((6, 4)) * [1.0, 1e-6, 1e5, 3.0])
    scale = torch.tensor([1.0, 1e-6, 1e5, 3.0])
    rows = np.array([3, 1, 4, 1, 5, 9])
    weight = torch.from_numpy(rng.standard_normal((6, 3)))
    unit = lambda v, rows: of_vectors(v / scale.numpy(), rows)  # noqa: E731
    given = v.requires_grad_()
    g = torch.autograd.grad(
        (Differences.apply(given, rows, unit) * weight).sum(), given
    )
    exact = v.detach().clone().requires_grad_()
    z = torch.tanh((exact / scale) @ torch.from_numpy(W))
    total = (z * (1 + torch.from_numpy(rows))[:, None] * weight).sum()
    wanted = torch.autograd.grad(total, exact)[0]
    torch.testing.assert_close(g[0] * scale, wanted * scale, rtol=1e-5, atol=1e-7)

    # Matrices of a filter bank, ill-scaled.
    A = torch.from_numpy(rng.standard_normal((5, 2, 3, 9)))
    P = 1e-10 * (A @ A.mT)

    def log_det(P, rows):
        z = np.linalg.slogdet(P)[1]
        return np.stack([z[:, 0], z.sum(1) ** 2 / 100], 1)

    given = P.clone().requires_grad_()
    weight = torch.from_numpy(rng.standard_normal((5, 2)))
    found = torch.autograd.grad(
        (Differences.apply(given, np.arange(5), log_det) * weight).sum(), given
    )[0]
    exact = P.clone().requires_grad_()
    z = torch.logdet(exact)
    total = (torch.stack([z[:, 0], z.sum(1) ** 2 / 100], 1) * weight).sum()
    wanted = torch.autograd.grad(total, exact)[0]
    wanted = (wanted + wanted.mT) / 2
    torch.testing.assert_close(found / 1e10, wanted / 1e10, rtol=1e-5, atol=1e-7)


def test_a_plain_pipeline_of_scikit_learn_is_attacked_too(decoders):
    X, y = decoders.test
    plain = PlainPipeline(
        [
            ("c", Covariances()),
            ("t", TangentSpace()),
            ("tree", DecisionTreeClassifier()),
        ]
    ).fit(X, y)
    # A tree has scores; it is flat between its splits.
    assert Square(0.3, n_queries=30).perturb(plain, X, y).accuracy < 1.0
    assert np.isfinite(FGSM(0.1).perturb(plain, X, y).X).all()
    mdm = PlainPipeline([("c", Covariances()), ("m", MDM())]).fit(X, y)
    assert PGD(0.2, n_steps=5).perturb(mdm, X, y).accuracy < mdm.score(X, y)


def test_braindecode_is_attacked_as_a_module(wave_trials):
    models = pytest.importorskip("braindecode.models")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = models.EEGNet(n_chans=6, n_outputs=3, n_times=64)
    x = wave_trials[0].numpy()[:30]
    kept = copy.deepcopy(net.state_dict())
    X = (1e5 * x).astype(np.float32)
    own = view_of(net, 30).predict(X)
    found = PGD(0.3, n_steps=10).perturb(net, X, own)
    assert found.accuracy < 0.7
    assert net.training
    assert all(torch.equal(v, kept[k]) for k, v in net.state_dict().items())


def test_without_labels_the_own_predictions_are_left(decoders):
    X, _ = decoders.test
    pipeline = decoders.get("mdm", "riemann")
    found = FGSM(0.1).perturb(pipeline, X, **decoders.new)
    assert (found.y == pipeline.predict(X, **decoders.new)).all()


def test_labels_become_codes_in_the_order_of_the_decoder():
    classes = np.array(["rest", "left", "right"])
    y = np.array(["left", "rest", "right", "left"])
    assert codes_of(y, classes, 4).tolist() == [1, 0, 2, 1]
    with pytest.raises(EEGTensorError, match="foot"):
        codes_of(np.array(["left", "foot"]), classes, 2)


def test_what_has_no_gradient_says_so(decoders):
    X, y = decoders.test
    pipeline = decoders.get("fbcsp-dss-lda")
    with pytest.raises(EEGTensorError, match="FilterBankCSP has no gradient"):
        FGSM().perturb(pipeline, X, y, **decoders.new)
    assert (
        Square(0.3, n_queries=20).perturb(pipeline, X, y, **decoders.new).queries.max()
        <= 20
    )


def test_attacks_load_neither_mne_nor_scikit_learn():
    code = (
        "import sys; from eegtensor.trust import attacks; "
        "print([m for m in ('mne', 'sklearn', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
