"""A model of a comparison as a task of Ray's: what it is sent, what it tells, and what it gives back."""

import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.analysis.settings import settled
from charlstm.compare.comparison import Comparison, GridWatch, Work
from charlstm.compare.grid import GridModel
from charlstm.config import Grid
from charlstm.core.flax_stack import register_cell
from charlstm.data.dataset import Dataset
from charlstm.runs.config_file import Versions, installed
from charlstm.runs.folder import as_training_errors
from charlstm.runs.models import prepare
from charlstm.support.errors import InputError, Interrupted, TrainingError
from charlstm.support.files import remove_tree, write_atomic
from charlstm.support.lock import LOCK
from charlstm.training.signals import Received

MARK = ".cluster"
"""A file in the comparison's folder, whose content tells a task that it sees this folder, and not one of its name."""
PATIENCE = 120.0
"""Seconds after which a network's file system shows what another node wrote, and frees the locks of a lost one."""
UNSEEN = "unseen"
"""What a task gives that would go on with runs whose files it cannot see."""
_BEAT, _SILENT = 1.0, 30.0
"""Seconds between two reports of a task, and after which one that makes none counts as lost."""
Files = dict[str, NDArray[Any]]
"""The files of a folder by their names, each as bytes [N], which Ray hands on without a copy."""


@dataclass(frozen=True)
class Job:
    """What a task needs to know besides the text."""

    grid: Grid
    folder: Path
    model: GridModel
    numbers: list[int]
    """Of the runs that the model lacks."""
    begun: bool
    """Whether the head has files of these runs."""
    mark: str
    host: str
    """The head's."""
    cells: dict[str, Any]
    """Those that were registered."""
    versions: Versions


class News(NamedTuple):
    """What tasks have told: lines, and by model how far each is that has begun."""

    lines: list[tuple[str, str | None]]
    works: dict[str, Work]


class Board:
    """An actor beside the head: what tasks tell until the head asks, and the signal that it got."""

    def __init__(self) -> None:
        self._begun, self._heard = dict[str, int](), dict[str, float]()
        self._news, self._signal = News([], {}), 0

    def begin(self, name: str, work: Work) -> int:
        """Takes note of a task; gives how many of its model have begun, with this one."""
        self.tell(name, [], work)
        self._begun[name] = self._begun.get(name, 0) + 1
        return self._begun[name]

    def tell(self, name: str, lines: list[tuple[str, str | None]], work: Work) -> int:
        """Takes a task's lines and how far it is; gives the number of the signal that stops it, or 0."""
        self._news.lines.extend(lines)
        self._news.works[name], self._heard[name] = work, time.monotonic()
        return self._signal

    def news(self, number: int) -> News:
        """What was told since the last call, of tasks that still tell; `number` is that of a signal, or 0."""
        lately = time.monotonic() - _SILENT
        works = {name: work for name, work in self._news.works.items() if self._heard[name] > lately}
        lines, self._news, self._signal = self._news.lines, News([], works), number
        return News(lines, works)


class _Told(GridWatch, AbstractContextManager["_Told"]):
    """Hears in a task how it gets on, and tells the board each second, which answers with a signal if one came.

    A thread asks the board: Ray lends the cores of a task to the next one while its main thread waits for an answer.
    """

    def __init__(self, ray: Any, board: Any, job: Job) -> None:
        self._ray, self._board, self._name, self.received = ray, board, job.model.name, Received()
        host = socket.gethostname()
        self._lines, self._work = list[tuple[str, str | None]](), Work(0, None, 0.0, "" if host == job.host else host)
        self._begun, self._over, self._again = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._keep_telling, daemon=True)

    def __enter__(self) -> "_Told":
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def line(self, text: str, style: str | None = None) -> None:
        self._lines.append((text if text.startswith(self._name) else f"{self._name}: {text}", style))

    def bar(self, step: int, steps: int) -> AbstractContextManager[None]:
        if self._again:
            where = f"{f'on {self._work.host} ' if self._work.host else ''}after step {step:,}"
            self.line(f"its task was lost, and another one goes on {where}", "yellow")
        self._again, self._work = False, self._work._replace(step=step)
        return nullcontext()

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        self._work = self._work._replace(step=step, loss=loss, chars_per_second=chars_per_second)

    def _keep_telling(self) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._again = self._ray.get(self._board.begin.remote(self._name, self._work)) > 1
        self._begun.set()
        over = False
        while not over:
            over = self._over.wait(_BEAT)
            lines, self._lines = self._lines, []
            with suppress(self._ray.exceptions.RayError):  # the head shows less, and the model is trained all the same
                number = self._ray.get(self._board.tell.remote(self._name, lines, self._work))
                if number and not self.received:
                    self.received.append(number)


def complete_as_task(job: Job, data: Dataset, board: Any, copies: list[Files] | None) -> Iterator[Any]:
    """Gives the step at which it was stopped, None if it was not, or `UNSEEN`; then the files of each run.

    The files are None where the head sees them.
    """
    shared = False
    with suppress(OSError):
        shared = (job.folder / MARK).read_text() == job.mark
    if job.begun and not shared and copies is None:
        yield from [UNSEEN, *[None] * len(job.numbers)]
        return
    with ExitStack() as stack:
        folder = job.folder if shared else Path(stack.enter_context(TemporaryDirectory(prefix="charlstm-")))
        runs = [folder / job.model.folder(number) for number in job.numbers]
        for run, files in zip(runs, [] if shared else copies or [], strict=False):
            unpack(files, run)
        yield _complete(job, folder, data, board)
        yield from (None if shared else pack(run) for run in runs)


def _complete(job: Job, folder: Path, data: Dataset, board: Any) -> int | None:
    """Trains and measures in a folder; gives the step at which a signal stopped it, or None."""
    import ray

    for name, cell in job.cells.items():
        register_cell(name, cell)
    host, here = socket.gethostname(), installed()
    try:
        with as_training_errors(folder), _Told(ray, board, job) as watch, settled():
            prepare(tell=watch.line)
            if other := [f"{name} {each}" for name, each in here.items() if job.versions.get(name) != each]:
                watch.line(f"{host} has {', '.join(other)}, unlike the head: last bits may differ", "yellow")
            Comparison(job.grid, folder, data, watch, watch.received, PATIENCE).complete(job.model, job.numbers)
    except Interrupted as stop:
        return stop.step
    except (InputError, TrainingError) as error:
        raise type(error)(f"{job.model.name} on {host}: {error}") from None
    except MemoryError:
        raise
    except Exception:  # of a kind that the head may not be able to read
        raise RuntimeError(traceback.format_exc()) from None
    return None


def pack(folder: Path) -> Files:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {path.relative_to(folder).as_posix(): np.fromfile(path, np.uint8) for path in paths}


def unpack(files: Files | None, folder: Path) -> None:
    """Puts files, if there are any, in the place of what is in a folder."""
    if not files:
        return
    new = folder.with_name(f".{folder.name}.new")
    for each in filter(Path.exists, (new, folder)):
        remove_tree(each)
    for name, content in files.items():
        (path := new / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content.tobytes())
    new.rename(folder)
