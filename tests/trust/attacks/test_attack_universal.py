"""One waveform for all trials: it fools, needs no label, and stays in its band."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.trust.attacks import Universal, dominance, fooling_rate, universal
from eegtensor.trust.attacks.universal import _loss
from eegtensor.trust.attacks.views import view_of


@pytest.fixture(scope="module")
def found(wave_net, wave_trials):
    """Waveforms of both losses, found on other trials than they are tried on."""
    x = wave_trials[0].numpy()
    return {
        loss: Universal(0.2, loss).find(wave_net, x[:100])
        for loss in ("features", "dominant")
    }


def said(network, X):
    return view_of(network, len(X)).predict(np.asarray(X, dtype=np.float32))


@pytest.mark.parametrize("loss", ["features", "dominant"])
def test_it_fools_20_points_more_than_signs_of_its_size(
    found, wave_net, wave_trials, rng, loss
):
    # A11, A45, with the published two epochs.
    X = wave_trials[0].numpy()[100:]
    size = X.std(axis=(0, 2))[:, None]
    before, after = said(wave_net, X), said(wave_net, found[loss].apply(X))
    signs = np.sign(rng.standard_normal((20, *X.shape[1:])))
    noise = [fooling_rate(before, said(wave_net, X + 0.2 * size * s)) for s in signs]
    assert fooling_rate(before, after) > max(noise) + 0.2
    assert dominance(after) > dominance(before) + 0.1
    assert found[loss].budget(X).linf.max() <= 0.2 * 1.1


def test_at_zero_the_cosine_is_one_and_has_no_gradient(wave_net, wave_trials):
    # So the search has to start elsewhere.
    x = wave_trials[0][:50]
    view = view_of(wave_net, 50)
    v = torch.zeros(1, 6, 64, requires_grad=True)
    with view.still():
        clean = view.features_and_logits(x)[0].detach()
        value = _loss(view, x, v, clean, "features", None)
        slope = torch.autograd.grad(value, v)[0]
        v = 1e-7 * torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0))
        v.requires_grad_()
        away = torch.autograd.grad(_loss(view, x, v, clean, "features", None), v)[0]
    assert value.item() == pytest.approx(1.0, abs=1e-6)
    assert slope.norm() < 1e-3 * away.norm()


def test_the_search_starts_at_random_within_a_tenth(wave_net, wave_trials):
    x = wave_trials[0][:40]
    v, _ = universal(view_of(wave_net, 40), x, eps=0.2, n_epochs=1, lr=1e-9)
    assert 0.015 < v.abs().max() <= 0.02 + 1e-6
    assert v.std() == pytest.approx(0.02 / 3**0.5, rel=0.1)


def test_the_dominant_loss_is_its_equation(wave_net, wave_trials):
    x = wave_trials[0][:20]
    v = 1e-6 * torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0))
    view = view_of(wave_net, 20)
    with view.still(), torch.no_grad():
        value = _loss(view, x, v, torch.zeros(20, 16), "dominant", None)
        f = wave_net(x + v)
        wanted = ((f - wave_net(v)).norm(dim=1) / f.norm(dim=1)).mean()
        aimed = _loss(view, x, v, torch.zeros(20, 16), "dominant", 2)
        entropy = -f.log_softmax(1)[:, 2].mean()
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(aimed, wanted + 0.1 * entropy)


def test_an_aim_is_reached_more_often(wave_net, wave_trials):
    X = wave_trials[0].numpy()
    for target in (0, 2):
        waveform = Universal(0.3, target=target, n_epochs=10).find(wave_net, X)
        share = (said(wave_net, waveform.apply(X)) == target).mean()
        assert share > (said(wave_net, X) == target).mean() + 0.2


def test_in_a_band_nothing_else_is_left_and_the_ball_holds(wave_net, wave_trials):
    x = wave_trials[0]
    v, _ = universal(
        view_of(wave_net, len(x)), x, eps=0.2, band=(3.0, 10.0), sfreq=64.0
    )
    power = torch.fft.rfft(v).abs()[0].square().sum(0)
    hertz = torch.fft.rfftfreq(64, 1 / 64.0)
    inside = (hertz >= 3) & (hertz <= 10)
    assert power[~inside].sum() < 1e-8 * power.sum()
    assert v.abs().max() <= 0.2 * (1 + 1e-5)


def test_the_best_epoch_on_trials_that_were_kept_back_is_taken(wave_net, wave_trials):
    x = wave_trials[0]
    view = view_of(wave_net, len(x))
    kept = torch.arange(0, len(x), 5)
    v, history = universal(
        view,
        x,
        eps=0.15,
        n_epochs=4,
        validation=kept,
        generator=torch.Generator().manual_seed(0),
    )
    scale = x.double().std(dim=(0, 2), keepdim=True, correction=0).float()
    before = said(wave_net, x)[kept]
    after = said(wave_net, x + v * scale)[kept]
    best = max(epoch["fooling_rate"] for epoch in history)
    assert fooling_rate(before, after) == pytest.approx(best)
    # Those trials are not learned from.
    other = x.clone()
    other[kept] = other[kept].flip(0)
    again, _ = universal(
        view,
        other,
        eps=0.15,
        n_epochs=1,
        scale=scale,
        validation=kept,
        generator=torch.Generator().manual_seed(0),
    )
    once, _ = universal(
        view,
        x,
        eps=0.15,
        n_epochs=1,
        scale=scale,
        validation=kept,
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(again, once)


def test_the_unit_changes_nothing_and_the_network_is_left_as_it_was(
    found, wave_net, wave_trials, decoders
):
    assert wave_net.training
    X, _ = decoders.test
    pipeline = decoders.get("tangent-space", "riemann")
    a = Universal(0.2).find(pipeline, X, **decoders.new)
    assert a.v.shape == X.shape[1:]
    assert abs(a.v / X.std(axis=(0, 2))[:, None]).max() <= 0.2 * (1 + 1e-9)
    b = Universal(0.2).find(pipeline, X, **decoders.new)
    assert (a.v == b.v).all()


def test_mistakes_are_explained(found, wave_net, wave_trials):
    x = wave_trials[0].numpy()
    with pytest.raises(EEGTensorError, match="loss='cosine'"):
        Universal(loss="cosine").find(wave_net, x)
    with pytest.raises(EEGTensorError, match="sfreq=None"):
        Universal(band=(1.0, 4.0)).find(wave_net, x)
    with pytest.raises(EEGTensorError, match="6 channels x 10 samples"):
        found["features"].apply(x[:, :, :10])
    with pytest.raises(EEGTensorError, match="leaves no trial"):
        Universal(validation_fraction=1.0).find(wave_net, x)
