"""Peak memory grows with the largest recording, not with the folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mne
import pytest

SCRIPT = """
import resource, sys
import eegtensor
eegtensor.read_trials(sys.argv[1], tmin=0.0, tmax=0.5, band=(1.0, 40.0),
                      store=sys.argv[2] if len(sys.argv) > 2 else None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak(*args: object) -> float:
    """Return the peak memory of reading a folder, in MB."""
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, args)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(out.stdout) / 1024


@pytest.mark.slow
def test_peak_memory(
    make_raw: Callable[..., mne.io.RawArray],
    save: Callable[..., Path],
    tmp_path: Path,
) -> None:
    names = tuple(f"E{i}" for i in range(24))
    # 24 channels x 160 s x 500 Hz: 15 MB in memory.
    raw = make_raw(names=names, sfreq=500.0, seconds=160.0)
    first = save(raw, "one/sub-0_raw.fif")
    size = raw.get_data().nbytes / 2**20
    for n in (4, 16):
        (tmp_path / f"{n}").mkdir()
        for i in range(n):
            shutil.copyfile(first, tmp_path / f"{n}" / f"sub-{i}_raw.fif")
    for store in ((), ("store",)):
        few, many = (
            _peak(tmp_path / f"{n}", *(tmp_path / f"{s}{n}" for s in store))
            for n in (4, 16)
        )
        # Twelve more recordings would be 180 MB; their trials are 2 MB.
        assert many - few < 2 * size, (few, many)
