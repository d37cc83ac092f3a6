"""The parent of a row: all contenders alive, one at work, in turns.

A machine's speed drifts within minutes, so contenders that are timed one after the other are timed on different
machines. Here each has a short turn in every round, and what is compared is what the same round measured. Who begins
changes from round to round, so that nobody always follows the same neighbour.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.deadline import Deadline
from benchmarks.jobs import Job

_MOST_RUNS = 200
_LONGEST_ANSWER = 3600.0  # seconds; longer is a worker that hangs
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass
class Measured:
    """What a worker told, and what was seen of it."""

    job: Job
    seconds: list[list[float]] = field(default_factory=list)
    """Of each run, by rounds."""
    built: dict[str, Any] = field(default_factory=dict)
    """The answers to its start and to `build`; see `worker`."""
    peak_bytes: int | None = None
    idle_load: float | None = None
    """Cores that it kept busy while others had their turns: what it took from them."""
    error: str | None = None


class WorkerError(RuntimeError):
    """A worker could not go on; the message is its last word."""


class Worker:
    """A process of `benchmarks.worker`. Use it as a context."""

    def __init__(self, job: Job, cache: Path, deadline: Deadline) -> None:
        """`cache` is where charlstm keeps what it compiled; an empty folder makes a start a cold one."""
        self.job = job
        self._deadline = deadline
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", *job.words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_environment(job, cache),
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, line: str = "") -> dict[str, Any]:
        """Say a line, if there is one to say, and wait for an answer."""
        assert self._process.stdin and self._process.stdout
        try:
            if line:
                print(line, file=self._process.stdin, flush=True)
            with selectors.DefaultSelector() as answers:
                answers.register(self._process.stdout, selectors.EVENT_READ)
                if not answers.select(min(self._deadline.left, _LONGEST_ANSWER)):
                    raise WorkerError("gave no answer in time")
            answer = json.loads(self._process.stdout.readline() or "null")
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise WorkerError(f"ended with exit code {self._process.wait()}")
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def busy_seconds(self) -> float | None:
        """Processor time so far, of all its threads; None where there is no /proc."""
        stat = Path(f"/proc/{self._process.pid}/stat")
        if not stat.exists():
            return None
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS


def start(job: Job, cache: Path, deadline: Deadline) -> dict[str, Any]:
    """One start of one worker, up to the end of its first run: its answers, or why there are none."""
    with Worker(job, cache, deadline) as worker:
        return worker.ask() | worker.ask("build")


def measure(jobs: Sequence[Job], rounds: int, turn_seconds: float, deadline: Deadline) -> list[Measured]:
    """Measure the jobs of one row.

    Args:
        jobs: each gets a process.
        rounds: turns that each gets.
        turn_seconds: how long a turn is, about; it holds at least one run.
        deadline: near it no model is built, and no round but the first is begun; no answer is awaited past it.
    """
    measured = [Measured(job) for job in jobs]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="charlstm-benchmarks-")))
        workers = [stack.enter_context(Worker(job, folder / str(number), deadline)) for number, job in enumerate(jobs)]
        alive = list(zip(workers, measured, strict=True))
        # Libraries are imported side by side, models are built one at a time.
        alive = [each for each in alive if _told(*each, "")]
        alive = [each for each in alive if _built(*each, deadline)]
        idle = _Idle(workers)
        for number in range(rounds):
            if number and deadline.near:
                break
            alive = [each for each in alive[1:] + alive[:1] if _turn(*each, turn_seconds, idle)]
    for worker, result in zip(workers, measured, strict=True):
        result.idle_load = idle.load(worker)
    return measured


def _built(worker: Worker, result: Measured, deadline: Deadline) -> bool:
    if deadline.near:
        result.error = "was not built for lack of time"
        return False
    return _told(worker, result, "build")


def _told(worker: Worker, result: Measured, line: str) -> bool:
    try:
        result.built |= worker.ask(line)
    except WorkerError as error:
        result.error = str(error)
    return result.error is None


def _turn(worker: Worker, result: Measured, turn_seconds: float, idle: "_Idle") -> bool:
    runs = min(max(round(turn_seconds / max(result.built["run_seconds"], 1e-9)), 1), _MOST_RUNS)
    idle.before()
    try:
        answer = worker.ask(f"go {runs}")
    except WorkerError as error:
        result.error = str(error)
        return False
    idle.after(worker)
    result.seconds.append(answer["seconds"])
    result.peak_bytes = answer["peak_bytes"]
    return True


class _Idle:
    """Adds up what workers do in the turns of others."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._busy = dict.fromkeys(workers, 0.0)
        self._waited = dict.fromkeys(workers, 0.0)
        self._since: dict[Worker, float | None] = {}
        self._began = 0.0

    def before(self) -> None:
        self._since = {worker: worker.busy_seconds() for worker in self._workers}
        self._began = time.perf_counter()

    def after(self, at_work: Worker) -> None:
        took = time.perf_counter() - self._began
        for worker, since in self._since.items():
            now = worker.busy_seconds()
            if worker is not at_work and since is not None and now is not None:
                self._busy[worker] += now - since
                self._waited[worker] += took

    def load(self, worker: Worker) -> float | None:
        return self._busy[worker] / self._waited[worker] if self._waited[worker] else None


def _environment(job: Job, cache: Path) -> dict[str, str]:
    """The job's, and: this package can be found; JAX's cache is charlstm's alone, and begins empty.

    Thread pools keep their defaults. A worker that waits in a read has no loop running, and the pools of OpenMP, Eigen
    and XLA spin for milliseconds and then sleep; `Measured.idle_load` shows whether that holds.
    """
    environment = {**job.environment, "KERAS_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if job.caches:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    here = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return environment
