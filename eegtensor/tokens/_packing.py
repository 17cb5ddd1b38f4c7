"""Tokens in the bytes that they cost."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from eegtensor._check import fail
from eegtensor.tokens._makers import check_maker
from eegtensor.tokens.learned import LearnedCodec
from eegtensor.tokens.tokens import Tokens

_MAGIC = b"EEGT1"


def pack_tokens(codec: Any, tokens: Tokens, name: str) -> bytes:
    """Return the bytes of tokens: a head in JSON, then the codes.

    Parameters
    ----------
    codec : LearnedCodec
    tokens : Tokens
    name : str
        Of the tokenizer.
    """
    codec = _with_costs(codec)
    check_maker(tokens.made_by, name, reader="they are to be compressed by")
    ids = np.asarray(tokens.ids)
    if ids.shape[-1] != len(codec.alphabet):
        fail(
            f"tokens have {ids.shape[-1]} slots, the tokenizer {len(codec.alphabet)}",
            fix="compress with the tokenizer that encoded",
        )
    single = ids.ndim == 3
    step = codec.step if tokens.step is None else tokens.step
    ids = ids[None] if single else ids
    head = {
        "shape": ids.shape[:3],
        "single": single,
        "scale": [float(v) for v in tokens.scale],
        "sfreq": tokens.sfreq,
        "ch_names": tokens.ch_names,
        "n_times": tokens.n_times,
        "step": step,
        "made_by": tokens.made_by,
    }
    text = json.dumps(head).encode()
    return _MAGIC + struct.pack("<I", len(text)) + text + codec.pack(ids, step)


def unpack_tokens(codec: Any, data: bytes, name: str) -> Tokens:
    """Return the tokens that `pack_tokens` wrote."""
    codec = _with_costs(codec)
    start = len(_MAGIC) + 4
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        fail("these bytes are no tokens", fix="give what compress() returned")
    end = start + struct.unpack("<I", data[len(_MAGIC) : start])[0]
    try:
        head = json.loads(data[start:end])
    except ValueError as error:
        fail(
            "the head of these bytes is damaged",
            fix="give the bytes that were written, whole",
            cause=error,
        )
    made_by = head.get("made_by")
    check_maker(made_by, name, reader="they are to be read by")
    ids = codec.unpack(data[end:], tuple(head["shape"]), head["step"])
    bits = codec.bits_of(ids, head["step"])
    return Tokens(
        ids[0] if head["single"] else ids,
        np.array(head["scale"]),
        head["sfreq"],
        tuple(head["ch_names"]),
        head["n_times"],
        codec.alphabet,
        bits[0] if head["single"] else bits,
        head["step"],
        made_by,
    )


def _with_costs(codec: Any) -> LearnedCodec:
    if not isinstance(codec, LearnedCodec):
        fail(
            "this kind of tokenizer has no model of what tokens cost",
            fix='fit one of kind="learned"',
        )
    return codec
