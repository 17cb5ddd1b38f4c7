"""TSMNetClassifier: trains, adapts without source, streams, saves, and refuses."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

import eegtensor as et
from eegtensor import EEGTensorError
from eegtensor.domains import Domain
from eegtensor.geometry import distance, frechet_mean, geodesic
from eegtensor.training import History
from eegtensor.transfer import (
    SPDNetworkClassifier,
    TSMNetClassifier,
    label_shift,
    maximise_information,
)
from eegtensor.transfer._trialcache import digests, forget_trials, remembered
from eegtensor.transfer._validation import held_out

SMALL: dict[str, Any] = {
    "n_temporal_filters": 2,
    "temporal_kernel": 9,
    "n_spatial_filters": 10,
    "subspace": 5,
    "epochs": 6,
    "lr": 5e-3,
}


class People:
    """Arrays of simulated people: three sources and one target."""

    def __init__(self) -> None:
        trials = et.simulate_trials(
            n_subjects=4,
            n_sessions=2,
            n_trials=20,
            n_channels=6,
            sfreq=64.0,
            snr=3.0,
            random_state=1,
        )
        target = trials.subjects == np.unique(trials.subjects)[-1]
        self.X, self.y = np.asarray(trials.X), trials.y
        self.domains = {"subjects": trials.subjects, "sessions": trials.sessions}
        self.target = np.flatnonzero(target)
        self.source = np.flatnonzero(~target)

    def of(self, index) -> dict[str, np.ndarray]:
        return {k: v[index] for k, v in self.domains.items()}

    def fit(self, index=None, **params) -> TSMNetClassifier:
        index = self.source if index is None else index
        model = TSMNetClassifier(**{**SMALL, **params})
        return model.fit(self.X[index], self.y[index], **self.of(index))

    def accuracy(self, model, index) -> float:
        return np.mean(model.predict(self.X[index], **self.of(index)) == self.y[index])


@pytest.fixture(scope="module")
def people() -> People:
    return People()


@pytest.fixture(scope="module")
def fitted(people: People) -> TSMNetClassifier:
    """Shared: a test that adapts it makes a copy first."""
    return people.fit(epochs=25)


def adapted(model, people, **params):
    """An adapted copy."""
    model = copy.deepcopy(model).set_params(**params)
    index = people.target
    return model.adapt(people.X[index], **people.of(index))


def tensors_of(network) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in network.state_dict().items()}


def matrices(model, X) -> torch.Tensor:
    """What enters the norm."""
    network = model.network_
    with torch.no_grad():
        return network.tail.rectified(network.spd(torch.from_numpy(X)).double())


def statistics(model, name) -> tuple[np.ndarray, float]:
    norm = model.network_.norm
    (code,) = norm.encode([name])
    return norm.test_mean[code].numpy(), norm.test_variance[code].item()


class TestFit:
    def test_it_learns_and_adapting_helps(self, people, fitted) -> None:
        assert people.accuracy(fitted, people.source) > 0.85
        before = people.accuracy(fitted, people.target)
        after = people.accuracy(adapted(fitted, people), people.target)
        assert after > 0.85
        assert after > before + 0.1

    def test_outputs_agree(self, people, fitted) -> None:
        X, domains = people.X[people.source], people.of(people.source)
        p = fitted.predict_proba(X, **domains)
        z = fitted.decision_function(X, **domains)
        assert p.shape == (len(X), 2)
        assert z.shape == (len(X),)
        np.testing.assert_allclose(p[:, 1], 1.0 / (1.0 + np.exp(-z)), rtol=1e-6)
        np.testing.assert_array_equal(
            fitted.predict(X, **domains), fitted.classes_[(z > 0).astype(int)]
        )

    def test_the_seed_decides(self, people, fitted) -> None:
        X, domains = people.X[:9], people.of(np.arange(9))
        once = people.fit().decision_function(X, **domains)
        np.testing.assert_array_equal(
            people.fit().decision_function(X, **domains), once
        )
        other = people.fit(random_state=1).decision_function(X, **domains)
        assert np.abs(other - once).max() > 1e-3

    def test_random_numbers_of_others_are_left_alone(self, people) -> None:
        torch.manual_seed(5)
        want = torch.rand(3)
        torch.manual_seed(5)
        people.fit(epochs=1)
        assert torch.equal(torch.rand(3), want)

    def test_order_of_trials_means_nothing(self, people) -> None:
        order = np.random.default_rng(0).permutation(people.source)
        X, domains = people.X[:9], people.of(np.arange(9))
        np.testing.assert_array_equal(
            people.fit(order).decision_function(X, **domains),
            people.fit().decision_function(X, **domains),
        )

    def test_both_fronts_train_to_the_same(self, people) -> None:
        X, domains = people.X[:9], people.of(np.arange(9))
        np.testing.assert_allclose(
            people.fit(front="conv").decision_function(X, **domains),
            people.fit(front="lag").decision_function(X, **domains),
            atol=2e-4,
        )

    def test_the_unit_means_nothing(self, people) -> None:
        index = people.source
        y, domains = people.y[index], people.of(index)
        plain = people.fit().decision_function(people.X[index], **domains)
        micro = TSMNetClassifier(**SMALL).fit(people.X[index] * 1e6, y, **domains)
        np.testing.assert_allclose(
            micro.decision_function(people.X[index] * 1e6, **domains), plain, atol=2e-4
        )

    def test_every_source_domain_is_centred(self, people, fitted) -> None:
        norm = fitted.network_.norm
        s = norm.scale.item()
        for name in norm.names:
            here = [
                i for i in people.source if people.domains["subjects"][i] == name[1]
            ]
            here = [i for i in here if people.domains["sessions"][i] == name[2]]
            X = matrices(fitted, people.X[here])
            mean, variance = statistics(fitted, name)
            assert distance(frechet_mean(X.numpy()), mean) < 1e-7
            with torch.no_grad():
                logs = norm.log(X, norm.encode([name] * len(here)))
            spread = logs.square().sum((1, 2)).mean().item()
            assert abs(spread - s**2 * variance / (variance + norm.eps)) < 1e-8
            assert norm.n_trials[norm.encode([name])[0]] == 20

    def test_the_pooled_statistic_is_that_of_the_sources(self, fitted) -> None:
        norm = fitted.network_.norm
        means = norm.test_mean[:-1].numpy()
        assert distance(frechet_mean(means), norm.test_mean[-1].numpy()) < 1e-7

    def test_momenta_follow_the_schedule(self, people, monkeypatch) -> None:
        from eegtensor.nn import DomainSPDBatchNorm
        from eegtensor.training import momentum_schedule

        seen = []
        plain = DomainSPDBatchNorm.set_momentum

        def spy(self, eta, eta_test):
            seen.append((eta, eta_test))
            plain(self, eta, eta_test)

        monkeypatch.setattr(DomainSPDBatchNorm, "set_momentum", spy)
        people.fit(epochs=4)
        want = [
            momentum_schedule(k, 4, batch_size=50, domain_batch_size=10)
            for k in range(1, 5)
        ]
        assert seen[-4:] == [tuple(m) for m in want]
        seen.clear()
        people.fit(epochs=2, momentum="constant")
        assert seen[-1] == (0.1, 0.1)

    def test_three_classes(self, people) -> None:
        index = people.source
        y = np.resize([3, 1, 2], len(index))
        model = TSMNetClassifier(**{**SMALL, "epochs": 2})
        model.fit(people.X[index], y, **people.of(index))
        assert model.classes_.tolist() == [1, 2, 3]
        assert model.decision_function(people.X[:4]).shape == (4, 3)
        assert set(model.predict(people.X[:9])) <= {1, 2, 3}

    @pytest.mark.parametrize(
        "params",
        [
            {"norm": "batch"},
            {"norm": "none"},
            {"features": "log-variance"},
            {"metric": "log-euclidean"},
            {"metric": "log-cholesky"},
            {"head": "grassmann"},
            {"head": "simplex"},
            {"spd_dtype": "float32"},
            {"momentum": "constant"},
        ],
        ids=str,
    )
    def test_variants_run(self, people, params) -> None:
        model = people.fit(**{"epochs": 15, "lr": 1e-2, **params})
        # The Grassmann head does not count the sign of a tangent vector, which is
        # what tells two classes apart once their mean is the origin.
        assert people.accuracy(model, people.source) > (
            0.4 if model.head == "grassmann" else 0.7
        )
        assert model.can_adapt == (model.norm == "domain")
        assert hasattr(model, "adapt") == model.can_adapt
        if model.can_adapt:
            adapted(model, people)

    def test_progress_is_shown_when_asked(self, people, capsys) -> None:
        people.fit(epochs=1)
        assert capsys.readouterr().err == ""
        people.fit(epochs=1, verbose=True)
        assert "TSMNetClassifier" in capsys.readouterr().err


class TestValidation:
    def test_people_left_out_choose_the_epoch(self, people) -> None:
        model = people.fit(epochs=40, lr=0.2, patience=2, validation="domains")
        losses = model.history_.column("valid_loss")
        # It stopped, and not at its best: the weights are of two epochs ago.
        assert len(losses) < 40
        assert len(losses) - 1 - losses.index(min(losses)) == 2
        index = people.source
        p = model.predict_proba(people.X[index], **people.of(index))
        truth = np.searchsorted(model.classes_, people.y[index])
        loss = -np.log(p[np.arange(len(p)), truth])
        # One of three people was left out, and the loss was taken with the
        # statistics that its own trials give.
        subjects = people.domains["subjects"][index]
        by_person = [loss[subjects == s].mean() for s in np.unique(subjects)]
        assert min(abs(b - min(losses)) for b in by_person) < 1e-8

    def test_training_never_sees_their_statistics(self, people, monkeypatch) -> None:
        from eegtensor.transfer import _network

        seen = []
        plain = _network.train

        def spy(model, data, **kwargs):
            seen.append((model, data))
            return plain(model, data, **kwargs)

        monkeypatch.setattr(_network, "train", spy)
        people.fit(validation="domains", epochs=1)
        people.fit(validation="trials", epochs=1)
        people.fit(validation=None, epochs=1)
        domains = [len(torch.unique(data.domain)) for _, data in seen]
        sizes = [len(data) for _, data in seen]
        assert domains == [4, 6, 6]
        assert sizes == [80, 96, 120]

    def test_the_only_trial_of_a_class_is_trained_on(self) -> None:
        # One person has three trials of class 0 and one of class 1, another 20 each.
        codes, y = np.repeat([0, 1], [4, 40]), np.repeat([0, 1, 0, 1], [3, 1, 20, 20])
        names = [Domain("", "ann", ""), Domain("", "bob", "")]
        counts = np.zeros(2)
        for seed in range(40):
            kept = held_out("trials", codes, names, y, 0.3, seed)
            assert not kept[3]
            assert np.count_nonzero(kept[4:24]) == np.count_nonzero(kept[24:]) == 6
            counts += [np.count_nonzero(kept[:3]), 1]
        # 3 x .3 = .9 of a trial, on average.
        assert abs(counts[0] / counts[1] - 0.9) < 0.2

    def test_without_validation(self, people) -> None:
        model = people.fit(validation=None, epochs=2)
        assert model.history_.names == ["epoch", "train_loss", "seconds"]


class TestAdapt:
    def test_no_source_is_needed_and_no_trial_is_kept(self, people) -> None:
        few = pickle.dumps(people.fit(epochs=1))
        index = np.concatenate([people.source] * 3)
        noise = 1e-7 * np.random.default_rng(0).standard_normal((len(index), 6, 1))
        model = TSMNetClassifier(**{**SMALL, "epochs": 1})
        model.fit(people.X[index] + noise, people.y[index], **people.of(index))
        many = pickle.dumps(model)
        assert abs(len(many) - len(few)) < 200
        assert len(many) < people.X[:20].nbytes

    def test_refit_is_mean_and_dispersion_of_the_trials(self, people, fitted) -> None:
        model = adapted(fitted, people)
        for session in "01":
            here = [
                i for i in people.target if people.domains["sessions"][i] == session
            ]
            name = Domain("", people.domains["subjects"][here[0]], session)
            X = matrices(model, people.X[here]).numpy()
            mean, variance = statistics(model, name)
            assert distance(frechet_mean(X), mean) < 1e-7
            assert abs((distance(mean, X) ** 2).mean() - variance) < 1e-8
            assert model.adaptation_[name] == "refit"
        assert model.last_target_ == Domain("", name.subject, "1")

    def test_nothing_else_moves(self, people, fitted) -> None:
        model = adapted(fitted, people)
        n = fitted.network_.norm.n_domains
        for name, before in tensors_of(fitted.network_).items():
            after = model.network_.state_dict()[name]
            if "norm._extra_state" in name:
                continue
            if after.shape != before.shape:
                # Rows of the sources, and the pooled one at the end.
                assert torch.equal(after[:n], before[:n]), name
                assert torch.equal(after[-1], before[-1]), name
            else:
                torch.testing.assert_close(
                    after, before, rtol=0, atol=0, equal_nan=True, msg=name
                )

    def test_shallow_copies_stay_independent(self, people, fitted) -> None:
        before = fitted.network_.norm.test_mean.clone()
        twin = copy.copy(fitted)
        twin.adapt(people.X[people.target])
        twin.partial_adapt(people.X[people.target][:3])
        assert fitted.adaptation_ == {}
        assert fitted.last_target_ is None
        assert torch.equal(fitted.network_.norm.test_mean, before)

    def test_domains_do_not_speak_to_each_other(self, people, fitted) -> None:
        together = adapted(fitted, people, adaptation="spdim-bias")
        alone = copy.deepcopy(fitted).set_params(adaptation="spdim-bias")
        for session in "01":
            here = people.target[people.domains["sessions"][people.target] == session]
            alone.adapt(people.X[here], **people.of(here))
        X, domains = people.X[people.target], people.of(people.target)
        np.testing.assert_allclose(
            alone.decision_function(X, **domains),
            together.decision_function(X, **domains),
            atol=1e-5,
        )

    def test_a_single_trial_is_refused(self, people, fitted) -> None:
        model = copy.deepcopy(fitted)
        with pytest.raises(EEGTensorError, match="at least 2 trials"):
            model.adapt(people.X[:1])
        model.partial_adapt(people.X[:1])

    def test_without_domains_the_last_target_counts(self, people, fitted) -> None:
        X = people.X[people.target]
        pooled = fitted.decision_function(X)
        codes = dict(subjects="nobody")
        np.testing.assert_array_equal(fitted.decision_function(X, **codes), pooled)
        model = copy.deepcopy(fitted).adapt(X)
        assert model.last_target_ == Domain("", "target", "")
        plain = model.decision_function(X)
        assert np.abs(plain - pooled).max() > 1e-3
        np.testing.assert_array_equal(
            model.decision_function(X, subjects="target"), plain
        )

    def test_unseen_domains(self, people, fitted) -> None:
        X, domains = people.X[people.target], people.of(people.target)
        known = adapted(fitted, people).decision_function(X, **domains)
        model = copy.deepcopy(fitted).set_params(unseen="adapt")
        np.testing.assert_allclose(
            model.decision_function(X, **domains), known, atol=1e-9
        )
        assert model.adaptation_ == {}
        # Known domains beside it, in one call.
        both = np.concatenate([people.source[:5], people.target])
        mixed = model.decision_function(people.X[both], **people.of(both))
        np.testing.assert_allclose(mixed[5:], known, atol=1e-9)
        first = people.source[:5]
        np.testing.assert_allclose(
            mixed[:5], fitted.decision_function(people.X[first], **people.of(first))
        )
        with pytest.raises(EEGTensorError, match="at least 2 trials"):
            model.predict(X[:1], subjects="nobody")
        model.set_params(unseen="raise")
        with pytest.raises(EEGTensorError, match="nobody"):
            model.predict(X[:1], subjects="nobody")
        model.predict(X[:1])

    @pytest.mark.parametrize("norm", ["batch", "none"])
    @pytest.mark.parametrize("unseen", ["adapt", "raise"])
    def test_nobody_is_unseen_without_statistics(self, people, norm, unseen) -> None:
        model = people.fit(epochs=1, norm=norm, unseen=unseen)
        X = people.X[people.target]
        named = model.decision_function(X, subjects="nobody")
        np.testing.assert_array_equal(named, model.decision_function(X))


class TestOnline:
    def test_it_is_the_running_mean_from_the_pooled_one(self, people, fitted) -> None:
        model = copy.deepcopy(fitted).set_params(prior_trials=3.0)
        X = people.X[people.target][:4]
        norm = fitted.network_.norm
        mean, variance = norm.test_mean[-1].numpy(), norm.test_variance[-1].item()
        for k, matrix in enumerate(matrices(fitted, X).numpy()):
            t = 1.0 / (3.0 + k + 1.0)
            apart = distance(mean, matrix) ** 2
            # Mean and variance of k + 3 trials and one more, along the geodesic.
            variance = (1 - t) * variance + t * 1e-7 + t * (1 - t) * apart
            mean = geodesic(mean, matrix, t)
            model.partial_adapt(X[k : k + 1])
            got, spread = statistics(model, Domain("", "target", ""))
            assert distance(got, mean) < 1e-8
            assert abs(spread - variance) < 1e-5 * variance
        assert model.adaptation_ == {Domain("", "target", ""): "online"}

    def test_blocks_are_trials_in_a_row(self, people, fitted) -> None:
        X, domains = people.X[people.target], people.of(people.target)
        once = copy.deepcopy(fitted).partial_adapt(X, **domains)
        model = copy.deepcopy(fitted).set_params(adaptation="online")
        half = {k: v[:7] for k, v in domains.items()}
        rest = {k: v[7:] for k, v in domains.items()}
        model.adapt(X[:7], **half).adapt(X[7:], **rest)
        np.testing.assert_allclose(
            model.decision_function(X, **domains),
            once.decision_function(X, **domains),
            atol=1e-10,
        )
        assert set(model.adaptation_.values()) == {"online"}

    def test_a_session_ends_near_its_refit(self, people, fitted) -> None:
        X = np.concatenate([people.X[people.target]] * 2)
        model = copy.deepcopy(fitted).partial_adapt(X)
        start = statistics(fitted, fitted.network_.norm.names[0])[0]
        want = frechet_mean(matrices(fitted, people.X[people.target]).numpy())
        got, _ = statistics(model, Domain("", "target", ""))
        assert distance(got, want) < 0.3 * distance(start, want)


class TestLabelShift:
    @pytest.mark.parametrize("variant", ["bias", "geodesic"])
    def test_the_norm_takes_the_centre_that_was_found(
        self, people, fitted, variant, monkeypatch
    ) -> None:
        # The way through the mean has little to gain here.
        monkeypatch.setattr(label_shift, "MIN_GAIN", 1e-7)
        index = people.target
        rare = people.y[index] == people.y[index][0]
        X = people.X[np.r_[index[~rare], index[rare][:4]]]
        # Large enough to be seen.
        fitted = copy.deepcopy(fitted)
        network, norm = fitted.network_, fitted.network_.norm
        norm.eps = 0.5
        model = copy.deepcopy(fitted).set_params(adaptation=f"spdim-{variant}").adapt(X)
        found = maximise_information(
            matrices(fitted, X),
            lambda v: network.head(v),
            variant=variant,
            dispersion=lambda v: norm.scale.detach() * (v + norm.eps).rsqrt(),
        )
        assert tuple(model.adaptation_.values()) == found.action
        assert found.action == (f"spdim-{variant}",)
        mean, variance = statistics(model, Domain("", "target", ""))
        np.testing.assert_allclose(mean, found.centre[0].numpy(), rtol=1e-6)
        assert abs(variance - found.variance.item()) < 1e-6 * variance
        # The network's own probabilities have the gain that the search reports.
        plain = copy.deepcopy(fitted).adapt(X)
        temperature = np.abs(plain.decision_function(X)).mean()

        def objective(m):
            z = m.decision_function(X) / temperature
            p = 1.0 / (1.0 + np.exp(-np.stack([-z, z], 1)))
            q = p.mean(0)
            return -(p * np.log(p + 1e-5)).sum(1).mean() + (q * np.log(q + 1e-5)).sum()

        assert abs(objective(plain) - objective(model) - found.gain.item()) < 1e-6

    def test_few_trials_say_so(self, people, fitted) -> None:
        model = copy.deepcopy(fitted).set_params(adaptation="spdim-bias")
        model.adapt(people.X[:3])
        (done,) = model.adaptation_.values()
        assert done == "refit: fewer than 2 trials per class"

    def test_balance_aims_at_the_sources(self, people, fitted) -> None:
        np.testing.assert_allclose(fitted.prior_, [0.5, 0.5])
        X = people.X[people.target]
        model = copy.deepcopy(fitted).set_params(adaptation="balanced")
        fair = model.adapt(X).decision_function(X)
        # As if the sources had been 4:1, which the parameter can overrule.
        model.prior_ = np.array([0.8, 0.2])
        assert np.abs(model.adapt(X).decision_function(X) - fair).max() > 1e-2
        model.set_params(prior="uniform").adapt(X)
        np.testing.assert_allclose(model.decision_function(X), fair, atol=1e-9)

    @pytest.mark.parametrize(
        "params",
        [{"metric": "log-euclidean"}, {"norm": "batch"}, {"features": "log-variance"}],
    )
    @pytest.mark.parametrize("adaptation", ["spdim-bias", "balanced"])
    def test_other_norms_refuse_before_training(
        self, people, params, adaptation
    ) -> None:
        with pytest.raises(EEGTensorError, match="needs one SPD norm by domain"):
            people.fit(adaptation=adaptation, epochs=1, **params)


class TestTravel:
    def test_save_and_load(self, people, fitted, tmp_path) -> None:
        model = adapted(fitted, people)
        path = tmp_path / "deep" / "model.safetensors"
        model.save(path)
        twin = TSMNetClassifier.load(path)
        X, domains = people.X, people.domains
        np.testing.assert_array_equal(
            twin.decision_function(X, **domains), model.decision_function(X, **domains)
        )
        np.testing.assert_array_equal(twin.predict(X), model.predict(X))
        assert twin.get_params() == model.get_params()
        assert twin.adaptation_ == model.adaptation_
        assert all(isinstance(name, Domain) for name in twin.adaptation_)
        assert twin.last_target_ == model.last_target_
        assert isinstance(twin.history_, History)
        assert twin.history_.rows == model.history_.rows
        # Not at an end: it adapts on.
        twin.adapt(X[:9], subjects="new")
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        # The weights that loading draws and replaces are of nobody's generator.
        torch.manual_seed(0)
        first = torch.rand(3)
        torch.manual_seed(0)
        TSMNetClassifier.load(path)
        assert torch.equal(torch.rand(3), first)
        # JSON and numbers: nothing that could run.
        head = path.read_bytes()
        size = int.from_bytes(head[:8], "little")
        assert json.loads(head[8 : 8 + size])["__metadata__"]["format"]

    def test_loading_what_is_none(self, tmp_path, people) -> None:
        with pytest.raises(EEGTensorError, match="no whole classifier"):
            TSMNetClassifier.load(tmp_path / "absent")
        (tmp_path / "cut").write_bytes(b"\x10\0\0\0")
        with pytest.raises(EEGTensorError, match="no whole classifier"):
            TSMNetClassifier.load(tmp_path / "cut")
        from safetensors.torch import save_file

        save_file({"a": torch.ones(2)}, tmp_path / "other")
        with pytest.raises(EEGTensorError, match="format None"):
            TSMNetClassifier.load(tmp_path / "other")

        class Other(TSMNetClassifier):
            """Another kind."""

        model = people.fit(epochs=1)
        model.save(tmp_path / "model")
        with pytest.raises(EEGTensorError, match="holds a TSMNetClassifier"):
            Other.load(tmp_path / "model")

    def test_parameters_are_plain(self) -> None:
        for value in TSMNetClassifier().get_params().values():
            assert value is None or isinstance(value, (bool, int, float, str))
        model = TSMNetClassifier(epochs=3, head="simplex")
        assert clone(model).get_params() == model.get_params()


class TestMistakes:
    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"adaptation": "refits"}, "adaptation='refits'"),
            ({"prior": "target"}, "prior='target'"),
            ({"prior_trials": -1.0}, "prior_trials=-1.0"),
            ({"unseen": "guess"}, "unseen='guess'"),
            ({"validation": "people"}, "validation='people'"),
            ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
            ({"validation": None, "patience": 3}, "patience=3"),
            ({"patience": 3, "averager": "swa"}, "averager='swa'"),
            ({"momentum": "none"}, "momentum='none'"),
            ({"device": "tpu"}, "device='tpu'"),
        ],
        ids=str,
    )
    def test_parameters(self, people, params, words) -> None:
        with pytest.raises(EEGTensorError, match=words):
            people.fit(**params)

    def test_data(self, people, fitted) -> None:
        X, y = people.X[:40].copy(), people.y[:40]
        X[[3, 7], 2, 5] = np.nan
        with pytest.raises(EEGTensorError, match=r"trials 3, 7; channels 2"):
            TSMNetClassifier(**SMALL).fit(X, y)
        with pytest.raises(EEGTensorError, match="trials 3, 7"):
            fitted.predict(X)
        with pytest.raises(EEGTensorError, match="one class only"):
            TSMNetClassifier(**SMALL).fit(people.X[:9], ["a"] * 9)
        with pytest.raises(EEGTensorError, match="needs class labels"):
            TSMNetClassifier(**SMALL).fit(people.X[:9], None)
        with pytest.raises(EEGTensorError, match="5 channels x 128"):
            fitted.predict(people.X[:9, :5])
        with pytest.raises(EEGTensorError, match="two people or sessions"):
            TSMNetClassifier(**SMALL, validation="domains").fit(people.X[:40], y)

    def test_one_person_leaves_sessions_out(self, people) -> None:
        index = np.flatnonzero(
            people.domains["subjects"] == people.domains["subjects"][0]
        )
        model = people.fit(index, validation="domains", epochs=1)
        assert "valid_loss" in model.history_.names


class TestPipelines:
    def test_parameters_are_those_of_the_classifier(self) -> None:
        pipe = et.make_pipeline("tsmnet", epochs=3, adaptation="balanced")
        (step,) = [step for _, step in pipe.steps]
        assert (step.epochs, step.adaptation) == (3, "balanced")
        # So that a benchmark's seed reaches it.
        assert step.random_state is None
        defaults = et.PIPELINES["tsmnet"].parameters
        assert {k: v for k, v in defaults.items() if k != "random_state"} == {
            k: v
            for k, v in TSMNetClassifier().get_params().items()
            if k != "random_state"
        }
        with pytest.raises(EEGTensorError, match="no parameter 'epoch'"):
            et.make_pipeline("tsmnet", epoch=3)

    def test_a_norm_without_domains_does_not_adapt(self) -> None:
        assert et.make_pipeline("tsmnet").can_adapt
        assert not et.make_pipeline("tsmnet", norm="batch").can_adapt

    def test_in_the_benchmark(self) -> None:
        trials = et.simulate_trials(
            n_subjects=3,
            n_sessions=2,
            n_trials=16,
            n_channels=6,
            sfreq=64.0,
            snr=3.0,
            random_state=0,
        )
        name = "tsmnet({})".format(", ".join(f"{k}={v}" for k, v in SMALL.items()))
        runs = [
            et.benchmark(trials, [name], adapt=modes, random_state=r)
            for r, modes in (
                (0, ["none", "20%", "full", "online"]),
                (0, ["full"]),
                (1, ["full"]),
            )
        ]
        tables = [run.scores.set_index(["adapt", "subject", "session"]) for run in runs]
        scores = [table["balanced_accuracy"].sort_index() for table in tables]
        assert len(scores[0]) == 4 * 6
        np.testing.assert_array_equal(scores[0]["full"], scores[1]["full"])
        assert (scores[0]["full"] != scores[2]["full"]).any()
        means = scores[0].groupby("adapt").mean()
        assert means["full"] > means["none"]

    @pytest.mark.parametrize(
        ("network", "params"),
        [
            ("spdnet", {"sizes": (4, 3)}),
            ("tensor-cspnet", {"n_bands": 2, "n_windows": 2}),
            ("filter-bank-tsmnet", {"n_bands": 2}),
        ],
    )
    def test_other_networks(self, people, network, params, tmp_path) -> None:
        index, target = people.source, people.target
        model = SPDNetworkClassifier(network, epochs=15, lr=1e-2, **params)
        model.fit(people.X[index], people.y[index], **people.of(index))
        assert people.accuracy(model, index) > 0.7
        before = people.accuracy(model, target)
        model.adapt(people.X[target], **people.of(target))
        assert people.accuracy(model, target) > before
        model.partial_adapt(people.X[target][:2], subjects="new")
        assert set(model.adaptation_.values()) == {"refit", "online"}
        model.save(tmp_path / "model")
        twin = SPDNetworkClassifier.load(tmp_path / "model")
        np.testing.assert_array_equal(
            twin.decision_function(people.X[target]),
            model.decision_function(people.X[target]),
        )

    def test_other_networks_refuse(self, people) -> None:
        for params, words in (
            ({"network": "eegnet"}, "network='eegnet'"),
            ({"n_windows": 5}, "n_windows means nothing to network='spdnet'"),
            (
                {"network": "tensor-cspnet", "adaptation": "balanced", "n_bands": 2},
                "one SPD norm",
            ),
        ):
            with pytest.raises(EEGTensorError, match=words):
                SPDNetworkClassifier(**params).fit(people.X[:40], people.y[:40])


class TestMemory:
    def test_a_trial_is_computed_once(self, people, monkeypatch) -> None:
        from eegtensor.nn import LinearFront

        seen = []
        plain = LinearFront.statistics

        def spy(self, x):
            seen.append(len(x))
            return plain(self, x)

        monkeypatch.setattr(LinearFront, "statistics", spy)
        forget_trials()
        model = people.fit(epochs=1)
        assert sum(seen) == len(people.source)
        # Another fold: people in common are known, in whatever order.
        others = np.concatenate([people.target, people.source[40:][::-1]])
        people.fit(others, epochs=1)
        assert sum(seen) == len(people.X)
        model.predict(people.X)
        assert sum(seen) == len(people.X)
        # Other lags are other statistics.
        people.fit(epochs=1, temporal_kernel=7)
        assert sum(seen) == len(people.X) + len(people.source)

    def test_the_same_bytes_in_another_shape_are_another_trial(self) -> None:
        X = np.arange(24.0).reshape(2, 3, 4)
        others = (X.reshape(2, 4, 3), X.view(np.int64), X.reshape(4, 6)[::2])
        known = digests(X)
        assert digests(X.copy()) == known
        for other in others:
            assert not set(digests(other)) & set(known)

    def test_it_is_bounded(self, monkeypatch) -> None:
        from eegtensor.transfer import _trialcache

        forget_trials()
        monkeypatch.setattr(_trialcache, "LIMIT_BYTES", 10 * 8 * 4)
        X = np.arange(24.0).reshape(12, 1, 2)
        calls = []

        def compute(part):
            calls.append(len(part))
            return torch.from_numpy(part[:, 0].repeat(2, axis=1))

        for _ in range(2):
            rows = remembered("kind", X, np.arange(12)[::-1], compute)
            np.testing.assert_array_equal(rows, X[::-1, 0].repeat(2, axis=1))
        assert sum(row.nbytes for row in _trialcache._rows.values()) <= 320
        # Nor does a row hold on to the block that it was computed in.
        held = [row.untyped_storage().nbytes() for row in _trialcache._rows.values()]
        assert sum(held) <= 320
        forget_trials()
        assert not _trialcache._rows
