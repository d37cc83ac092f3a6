"""How long a start takes: each in a fresh process, from an empty cache, and from a full one where there is one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.jobs import Job
from benchmarks.rounds import WorkerError, start


def measure(jobs: Sequence[Job], rounds: int, out_of_time: Callable[[], bool] = lambda: False) -> list[dict[str, Any]]:
    """Start every job once in each round, with nothing beside it.

    Args:
        jobs: what is started.
        rounds: cold starts of each; those that keep what they compiled have as many warm ones.
        out_of_time: asked before every round but the first.

    Returns:
        for each job ``{"cold": [...], "warm": [...], "error"}``; an element is the answers of a worker's start.
    """
    results: list[dict[str, Any]] = [{"cold": [], "warm": [], "error": None} for _ in jobs]
    for number in range(rounds):
        if number and out_of_time():
            break
        for job, result in zip(jobs, results, strict=True):
            with TemporaryDirectory(prefix="charlstm-benchmarks-") as folder:
                try:
                    result["cold"].append(start(job, Path(folder)))
                    if job.caches:
                        result["warm"].append(start(job, Path(folder)))
                except WorkerError as error:
                    result["error"] = str(error)
    return results
