# %% [markdown]
# # Tokens
#
# A tokenizer turns a second of a channel into a few small integers, and those
# back into a second of EEG. What for: storing and sending recordings at a
# thirtieth of their size, and models that read and write EEG as language models
# do text. This page fits a tokenizer on some people, codes a person it has never
# seen, looks at what is lost and at what the codes are, and lets a small
# transformer learn from tokens without labels.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.signal

import eegtensor as et
from eegtensor.tokens import (
    EEGTokenizer,
    MaskedTokenModel,
    TokenClassifier,
    evaluate,
    load_tokens,
    plot_codes,
    plot_rate_distortion,
    plot_reconstruction,
    plot_usage,
    rate_distortion,
    save_tokens,
)

folder = Path(tempfile.mkdtemp(prefix="eegtensor-07-"))
trials = et.simulate_trials(
    n_subjects=4, n_sessions=1, n_channels=8, sfreq=200.0, snr=3.0, random_state=0
)
names = tuple(trials.info["ch_names"])
people = {
    subject: np.concatenate(list(trials.X[trials.metadata["subject"] == subject]), -1)
    for subject in ("01", "02", "03", "04")
}
train, new = [people[s] for s in ("01", "02", "03")], people["04"]
print(f"{len(train)} people to fit on, each {train[0].shape[1] / 200:.0f} s")

# %% [markdown]
# ## Fit, encode, decode
#
# Two kinds for 104 bits a second and channel. "band-rvq" codes bands of the
# spectrum by codebooks, one second like the next; "learned" has a small network
# that says what every code costs, so that a dull second leaves bits to a lively
# one. Neither needs a label. Error is measured as NRMSE: what is missing, by what
# was there.

# %%
found = {}
for kind in ("band-rvq", "learned"):
    tokenizer = EEGTokenizer(kind, bits_per_second=104)
    tokenizer.fit(train, sfreq=200.0, ch_names=names)
    found[kind] = tokenizer, evaluate(tokenizer, [new], sfreq=200.0)
    error = found[kind][1]
    print(f"{kind}: {error.bits_per_second:.0f} bit/s/channel, NRMSE {error.nrmse:.3f}")
    assert error.bits_per_second <= 104.001 and error.nrmse < 0.8
assert found["learned"][1].nrmse < found["band-rvq"][1].nrmse
bands, learned = (found[kind][0] for kind in found)

tokens = bands.encode(new, ch_names=names)
print(f"tokens {tokens.ids.shape} (channels, seconds, slots)")
rebuilt = bands.decode(tokens)
assert rebuilt.shape == new.shape

# %% [markdown]
# ## What they may not depend on
#
# Volts or microvolts: the same tokens. Another sampling rate: tokens of the same
# form, for seconds are coded by their spectrum, and equal error. Chunk by chunk as
# they arrive, with a scale that is known: the same tokens.

# %%
volts, micro = (bands.encode(v * new, ch_names=names) for v in (1.0, 1e6))
assert np.array_equal(volts.ids, micro.ids)
assert np.allclose(1e6 * bands.decode(volts), bands.decode(micro))

faster = scipy.signal.resample_poly(new, 5, 4, axis=-1)
other = bands.encode(faster, sfreq=250.0, ch_names=names)
assert other.ids.shape == volts.ids.shape
back = scipy.signal.resample_poly(bands.decode(other), 4, 5, axis=-1)
at_200 = np.sqrt(np.mean((rebuilt - new) ** 2)) / new.std()
at_250 = np.sqrt(np.mean((back - new) ** 2)) / new.std()
print(f"NRMSE {at_200:.3f} at 200 Hz, {at_250:.3f} at 250 Hz")
assert abs(at_200 - at_250) < 0.05

stream = list(bands.stream(np.split(new, 40, axis=1), scale=volts.scale))
assert np.array_equal(np.concatenate([t.ids for t in stream], axis=1), volts.ids)

# %% [markdown]
# ## What is lost
#
# By band: slow waves come back nearly whole, gamma hardly, because its energy is
# little and costs as many bits as any other. Noise can take its place (`fill`):
# then every band has its power again, and the waveform is a little worse.

# %%
table = pd.DataFrame(
    {fill: evaluate(bands, [new], sfreq=200.0, fill=fill).row() for fill in (0.0, 0.7)}
)
print(table.loc[["nrmse", "nmse_delta", "nmse_gamma", "power_db_gamma"]].round(3))
assert table.loc["nmse_delta", 0.0] < table.loc["nmse_gamma", 0.0]
assert table.loc["power_db", 0.7] < table.loc["power_db", 0.0]
assert table.loc["nrmse", 0.7] > table.loc["nrmse", 0.0]
figure = plot_reconstruction(bands, new, sfreq=200.0, start=1.0)
figure.savefig(folder / "reconstruction.png", dpi=100)

curve = rate_distortion(
    "band-rvq", train, [new], (13, 52, 208), fills=(0.0, 0.7), n_states=0
)
assert curve[curve["fill"] == 0]["nrmse"].is_monotonic_decreasing
plot_rate_distortion(curve).savefig(folder / "rate_distortion.png", dpi=100)

# %% [markdown]
# ## Bytes
#
# What the learned kind says a code costs is what it costs: `compress` writes
# those bits, and a head with names and scales. `save_tokens` keeps tokens of any
# kind, as integers with a digest.

# %%
coded = learned.encode(new, ch_names=names)
data = learned.compress(coded)
seconds = new.shape[1] / 200
spent = 8 * len(data) / seconds / len(names)
print(f"{new.size * 2} bytes of 16-bit samples, {len(data)} compressed")
print(f"{spent:.0f} bit/s/channel in the file, {coded.bits_per_second:.0f} promised")
assert spent < 1.1 * coded.bits_per_second and len(data) < new.size * 2 / 20
assert np.array_equal(learned.decompress(data).ids, coded.ids)

save_tokens(tokens, folder / "new.safetensors")
assert np.array_equal(load_tokens(folder / "new.safetensors").ids, tokens.ids)

# %% [markdown]
# ## What the codes are
#
# How often each slot is sent, and how many of its codes occur; and what the most
# used ones stand for: waves of their band, each of another phase and envelope.

# %%
many = bands.encode(np.concatenate([*train, new], axis=1), ch_names=names)
plot_usage(many, bands).savefig(folder / "usage.png", dpi=100)
plot_codes(bands, many).savefig(folder / "codes.png", dpi=100)
sent = (many.ids >= 0).mean(axis=(0, 1))
print(f"{(sent > 0).sum()} of {len(sent)} slots are ever sent")
assert sent[0] <= 1 and 0 < (sent > 0).sum() < len(sent)

# %% [markdown]
# ## Learning without labels
#
# A transformer that fills in masked tokens learns how EEG goes together. On a
# person it has not seen it is asked for tokens that were taken away: what it pays
# for each, in nats, against a guess by how often codes occur. With so few minutes
# the difference is small. Codes of waves say little about power, which tells what
# hands are imagined; so this tokenizer has a state, one token that says how the
# energy of a second is spread over the bands.

# %%
coder = EEGTokenizer(bits_per_second=52, n_states=32)
coder.fit(train, sfreq=200.0, ch_names=names)
model = MaskedTokenModel(width=32, depth=1, epochs=15)
model.fit([coder.encode(x, ch_names=names) for x in train], tokenizer=coder)
told = model.evaluate(coder.encode(new, ch_names=names))
guess = told.unigram_cross_entropy
print(f"a masked token costs {told.cross_entropy:.2f}, by guess {guess:.2f}")
assert told.cross_entropy < guess

# %% [markdown]
# What it has learned serves a classifier: tokens of trials, averages of the
# network's states, mean and variance by person, logistic regression. The new
# person's labels are only there to count.

# %%
mine = (trials.metadata["subject"] == "04").to_numpy()
source, target = trials[~mine], trials[mine]
decoder = TokenClassifier(coder, model, ch_names=names)
decoder.fit(source.X, source.y, subjects=source.subjects, sessions=source.sessions)
decoder.adapt(target.X, subjects=target.subjects, sessions=target.sessions)
said = decoder.predict(target.X, subjects=target.subjects, sessions=target.sessions)
print(f"new person: {np.mean(said == target.y):.2f} of {len(said)} trials right")
assert np.mean(said == target.y) > 0.6

# %% [markdown]
# Pictures in the folder that is printed below. For files, with tokens, a table
# and a picture of each:
#
#     eegtensor tokenize recordings/ --out tokens --bits 104

# %%
print(f"pictures in {folder}")
