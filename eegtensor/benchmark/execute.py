"""Run jobs: from the cache, serially, or over processes where they are long."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import joblib
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from eegtensor._check import EEGTensorError, EEGTensorWarning, listing
from eegtensor.benchmark.cache import FoldCache
from eegtensor.benchmark.fold import Job, Outcome, run_job
from eegtensor.benchmark.prefixes import Ready

logger = logging.getLogger("eegtensor")

# Starting processes that import torch and mne takes about this long.
PARALLEL_FROM_SECONDS = 20.0

Key = tuple[str, int, str]


class Execution:
    """Jobs on their way to outcomes.

    Parameters
    ----------
    jobs : list of Job
        Without their `ready` arrays.
    ready : callable
        Returns, for every pipeline and mode, the estimator and its array;
        called only if something has to be computed.
    cache : FoldCache | None
    n_jobs : int
    on_error : "raise" | "warn"
    progress : bool | None

    Attributes
    ----------
    failed : list of str
        Messages of jobs that failed under ``on_error="warn"``.
    """

    def __init__(
        self,
        jobs: list[Job],
        ready: Callable[[], Mapping[str, Mapping[str, Ready]]],
        *,
        cache: FoldCache | None,
        n_jobs: int,
        on_error: str,
        progress: bool | None,
    ) -> None:
        self.jobs = jobs
        self.failed: list[str] = []
        self._ready = ready
        self._cache = cache
        self._n_jobs = min(_count(n_jobs), max(1, len(jobs)))
        self._on_error = on_error
        self._progress = sys.stderr.isatty() if progress is None else progress

    def run(self) -> dict[Key, Outcome]:
        """Return outcomes by pipeline, fold and mode."""
        outcomes: dict[Key, Outcome] = {}
        waiting = self._from_cache(outcomes)
        if not waiting:
            return outcomes
        bar = tqdm(
            total=len(self.jobs),
            initial=len(self.jobs) - len(waiting),
            desc="benchmark",
            unit="fold",
            disable=not self._progress,
        )
        try:
            with bar:
                ready = self._ready()
                jobs = [replace(j, ready=ready[j.pipeline]) for j in waiting]
                for job, found in self._compute(jobs):
                    for mode, outcome in found.items():
                        outcomes[job.pipeline, job.fold.index, mode] = outcome
                    bar.update()
        except KeyboardInterrupt:
            if self._cache is not None:
                logger.info(
                    "interrupted: finished folds are in %s; the same call resumes",
                    self._cache.path,
                )
            raise
        if self.failed:
            warnings.warn(
                f"{len(self.failed)} of {len(self.jobs)} folds failed and are missing "
                f"from the results: {listing(self.failed, 3)}",
                EEGTensorWarning,
                stacklevel=3,
            )
        return outcomes

    def _from_cache(self, outcomes: dict[Key, Outcome]) -> list[Job]:
        """Fill in what the cache holds and return the jobs that remain."""
        waiting = []
        for job in self.jobs:
            parts = dict(job.parts)
            for mode in job.parts:
                key = job.keys.get(mode.name)
                found = self._cache.load(key) if self._cache and key else None
                if found is not None:
                    outcomes[job.pipeline, job.fold.index, mode.name] = found
                    del parts[mode]
            if parts:
                waiting.append(replace(job, parts=parts))
        return waiting

    def _compute(self, jobs: list[Job]) -> Iterator[tuple[Job, dict[str, Outcome]]]:
        # All pipelines of one fold, run here, tell whether processes would pay.
        first = [job for job in jobs if job.fold.index == jobs[0].fold.index]
        rest = jobs[len(first) :]
        start = time.perf_counter()
        yield from self._serial(first)
        estimate = (time.perf_counter() - start) / len(first) * len(rest)
        if self._n_jobs > 1 and rest and estimate > PARALLEL_FROM_SECONDS:
            yield from self._parallel(rest)
        else:
            yield from self._serial(rest)

    def _serial(self, jobs: list[Job]) -> Iterator[tuple[Job, dict[str, Outcome]]]:
        for job in jobs:
            yield job, self._take(_work(job, self._cache, self._on_error))

    def _parallel(self, jobs: list[Job]) -> Iterator[tuple[Job, dict[str, Outcome]]]:
        threads = max(1, (os.cpu_count() or 1) // self._n_jobs)
        logger.info(
            "%d folds over %d processes, %d threads each",
            len(jobs),
            self._n_jobs,
            threads,
        )
        with joblib.parallel_config("loky", inner_max_num_threads=threads):
            parallel = joblib.Parallel(n_jobs=self._n_jobs, return_as="generator")
            # A generator in the order of jobs: progress shows while folds run, and
            # no fold waits in memory for the last.
            results = parallel(
                joblib.delayed(_work)(job, self._cache, self._on_error, threads)
                for job in jobs
            )
            for job, result in zip(jobs, results, strict=True):
                yield job, self._take(result)

    def _take(self, result: tuple[dict[str, Outcome], str]) -> dict[str, Outcome]:
        found, problem = result
        if problem:
            logger.info("%s", problem)
            self.failed.append(problem)
        return found


def _work(
    job: Job, cache: FoldCache | None, on_error: str, threads: int | None = None
) -> tuple[dict[str, Outcome], str]:
    """Run a job, saving every mode as soon as it is done."""
    found: dict[str, Outcome] = {}
    if threads is not None:
        _limit_torch(threads)
    try:
        # One thread for BLAS: EEG's matrices are small, and the order of sums
        # must not depend on n_jobs.
        with threadpool_limits(limits=1, user_api="blas"):
            for mode, outcome in run_job(job):
                key = job.keys.get(mode.name)
                if cache is not None and key is not None:
                    cache.save(key, outcome)
                found[mode.name] = outcome
    except EEGTensorError as error:
        if on_error == "raise":
            raise
        return found, str(error)
    return found, ""


def _limit_torch(threads: int) -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _count(n_jobs: int) -> int:
    cores = os.cpu_count() or 1
    return max(1, cores + 1 + n_jobs) if n_jobs < 0 else max(1, n_jobs)
