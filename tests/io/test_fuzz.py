"""Damaged bytes: an eegtensor error or trials, never another exception."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eegtensor import EEGTensorError
from eegtensor.io import recording_info

N_SIGNALS = 2
HEADER = 256 * (N_SIGNALS + 2)


@pytest.fixture(scope="module")
def edf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Five seconds of two channels and an annotation, 100 Hz."""
    edfio = pytest.importorskip("edfio")
    X = 20 * np.random.default_rng(0).standard_normal((N_SIGNALS, 500))
    signals = [
        edfio.EdfSignal(x, 100.0, label=name, physical_dimension="uV")
        for x, name in zip(X, ("C3", "C4"), strict=True)
    ]
    path = tmp_path_factory.mktemp("edf") / "good.edf"
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(1.0, None, "go")]).write(path)
    content = path.read_bytes()
    assert recording_info(path).faults == []
    assert int(content[184:192]) == HEADER
    return content


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    start=st.integers(0, HEADER - 1),
    patch=st.one_of(
        st.binary(min_size=1, max_size=12),
        st.sampled_from(
            [b"-1      ", b"0       ", b"99999999", b"        ", b"1e300   "]
        ),
    ),
    cut=st.one_of(st.none(), st.integers(0, HEADER + 900)),
)
def test_damaged_header(
    edf_bytes: bytes, tmp_path: Path, start: int, patch: bytes, cut: int | None
) -> None:
    damaged = bytearray(edf_bytes)
    damaged[start : start + len(patch)] = patch
    path = tmp_path / "damaged.edf"
    path.write_bytes(bytes(damaged[:cut]))
    try:
        info = recording_info(path)
    except EEGTensorError as error:
        assert "damaged.edf" in str(error) and "What to do" in str(error)
    else:
        assert info.sfreq > 0 and info.duration > 0


@pytest.mark.parametrize("field", range(10))
@pytest.mark.parametrize("text", [b"-1", b"0", b"99999999", b"", b"1e30", b"\xff\xfe"])
def test_damaged_signal_fields(
    edf_bytes: bytes, tmp_path: Path, field: int, text: bytes
) -> None:
    """Write nonsense over each field of the first signal, and of the recording."""
    widths = [16, 80, 8, 8, 8, 8, 8, 80, 8, 32]
    n = N_SIGNALS + 1
    start = 256 + n * sum(widths[:field])
    damaged = bytearray(edf_bytes)
    damaged[start : start + widths[field]] = text.ljust(widths[field])
    path = tmp_path / "damaged.edf"
    path.write_bytes(bytes(damaged))
    try:
        info = recording_info(path)
    except EEGTensorError as error:
        assert "damaged.edf" in str(error)
    else:
        assert info.duration > 0
