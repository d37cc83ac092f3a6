"""How long a start takes: each in a fresh process, from an empty cache, and from a full one where there is one."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.deadline import Deadline
from benchmarks.jobs import Job
from benchmarks.rounds import WorkerError, start


def measure(jobs: Sequence[Job], rounds: int, deadline: Deadline) -> list[dict[str, Any]]:
    """Start every job once in each round, with nothing beside it.

    Args:
        jobs: what is started.
        rounds: cold starts of each; those that keep what they compiled have as many warm ones.
        deadline: no round but the first is begun near it, and no answer is awaited past it.

    Returns:
        for each job ``{"cold": [...], "warm": [...], "error"}``; an element is the answers of a worker's start.
    """
    results: list[dict[str, Any]] = [{"cold": [], "warm": [], "error": None} for _ in jobs]
    for number in range(rounds):
        if number and deadline.near:
            break
        for job, result in zip(jobs, results, strict=True):
            with TemporaryDirectory(prefix="charlstm-benchmarks-") as folder:
                try:
                    result["cold"].append(start(job, Path(folder), deadline))
                    if job.caches:
                        result["warm"].append(start(job, Path(folder), deadline))
                except WorkerError as error:
                    result["error"] = str(error)
    return results
