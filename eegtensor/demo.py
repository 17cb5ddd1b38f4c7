"""The demonstration: simulated people, two decoders, with and without adaptation."""

from __future__ import annotations

from eegtensor.benchmark import Results, benchmark
from eegtensor.simulate import simulate_trials

PIPELINES = ("mdm", "tangent-space")
MODES = ("none", "full")


def run_demo(*, random_state: int = 0, progress: bool | None = None) -> Results:
    """Benchmark two pipelines on six simulated people, adapted and not.

    Parameters
    ----------
    random_state : int
    progress : bool | None

    Returns
    -------
    Results
    """
    trials = simulate_trials(random_state=random_state)
    return benchmark(
        trials,
        list(PIPELINES),
        protocol="leave-one-subject-out",
        adapt=list(MODES),
        random_state=random_state,
        progress=progress,
        command="eegtensor demo",
    )
