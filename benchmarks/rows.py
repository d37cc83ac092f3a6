"""The rows of a comparison: who does what at which size, and what no contender can do without."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

from benchmarks.floor import Rate
from benchmarks.jobs import Job
from benchmarks.settings import SETTINGS, Settings
from benchmarks.shapes import Size, forward_operations, streamed_bytes, training_operations

Task = Literal["train", "eval", "sample", "sample64", "compile"]
TASKS: dict[Task, str] = {
    "train": "training steps",
    "eval": "evaluation of windows",
    "sample": "one text of {length} characters, after reading a prime",
    "sample64": "{streams} texts of {short} characters, each after reading a prime",
    "compile": "start: building the model, compiling and the first training step",
}


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much each row does, and how often."""

    starts: int = 5
    """Processes of each contender, one after the other."""
    rounds: int = 3
    """Turns of each process."""
    turn_seconds: float = 1.0
    streams: int = 64
    """Texts of `sample64`."""
    length: int = 1000
    """Characters of the one text of `sample`; the many texts have a quarter of it each."""

    @property
    def short(self) -> int:
        """Characters of each of the many texts."""
        return max(self.length // 4, 1)


@dataclass(frozen=True)
class Row:
    """Jobs that are measured in the same turns."""

    task: Task
    size: Size
    title: str
    jobs: tuple[Job, ...]
    rate: Rate | None = None
    """Of the machine, that bounds the work."""
    settings: Settings = "shipped"
    needed: int = 0
    """Operations or bytes of a run, at that rate."""

    @property
    def contenders(self) -> tuple[Job, ...]:
        """The jobs that are compared, without those that measure the rate."""
        return tuple(job for job in self.jobs if job.kind != self.rate)


def make_row(
    task: Task,
    size: Size,
    names: Sequence[str],
    floors: Sequence[str],
    amounts: Amounts,
    settings: Settings = "shipped",
) -> Row:
    """A row of the comparison.

    Args:
        task: what is done.
        size: at which size.
        names: of contenders.
        floors: of contenders that measure the machine's rate.
        amounts: how much.
        settings: the reading.
    """
    rate: Rate | None = "products"
    match task:
        case "train":
            jobs, needed = [Job(name, "train", size) for name in names], training_operations(size)
        case "eval":
            jobs, needed = [Job(name, "eval", size) for name in names], forward_operations(size)
        case "sample":
            jobs, rate = [Job(name, "sample", size, length=amounts.length) for name in names], "weights"
            needed = streamed_bytes(size) * amounts.length
        case "sample64":
            many = partial(Job, kind="sample", size=size, streams=amounts.streams, length=amounts.short)
            jobs, rate, needed = list(map(many, names)), None, 0
        case "compile":
            jobs, rate, needed = [Job(name, "train", size) for name in names], None, 0
    if rate is not None:
        jobs += [Job(name, rate, size) for name in floors]
    what = TASKS[task].format(**asdict(amounts), short=amounts.short)
    title = f"{task}, {SETTINGS[settings]}: {what}, {size} (B×T×H×L), V={size.vocabulary}"
    return Row(task, size, title, tuple(replace(job, settings=settings) for job in jobs), rate, settings, needed)
