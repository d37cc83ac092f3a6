"""What reaches a person's terminal: plain text, whatever is in a corpus, and how far the work is."""

import io
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from charlstm.support.clock import Clock
from charlstm.support.files import one_line, printable

SECONDS_BETWEEN_LINES = 15.0  # where no bar is drawn
_SECONDS_OF_SPEED = 600.0  # that the time left is estimated from


def write(text: str) -> None:
    """Text to standard output, at once; as it is into a file or a pipe, `printable` on a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def counted(number: int, what: str) -> str:
    """Such as ``1 line`` and ``2,000 lines``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def to_json(value: object) -> str:
    """A line of JSON in ASCII, whatever is in a text; numbers that are not finite become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


def print_notes(notes: Iterable[str]) -> None:
    """Lines on standard error beside what a command prints."""
    for note in notes:
        # Names and fields are in it that a stranger chose: one line, and nothing in it that a terminal would obey.
        print(f"charlstm: {one_line(note, 4000)}", file=sys.stderr)


def print_note(note: str) -> None:
    """One of `print_notes`."""
    print_notes([note])


class _Lasting(io.RawIOBase):
    """What standard error is written to, or nothing, silently, where that cannot be.

    A reader of the log that leaves, a terminal that is gone and a full disk are no reason to end a training.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # which would be closed
        self._raw = getattr(stream.buffer, "raw", stream.buffer)
        self.fileno, self.isatty = stream.fileno, stream.isatty

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        with suppress(OSError):
            return self._raw.write(data) or len(data)
        return len(data)


def keep_streams() -> None:
    """Makes standard streams that are closed lead to nothing, and writes to standard error never fail."""
    for number in range(3):  # a closed one would be a run's next file, and what XLA prints would be in it
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the least number that is free
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    lasting = io.BufferedWriter(_Lasting(sys.stderr))
    sys.stderr = io.TextIOWrapper(lasting, sys.stderr.encoding, line_buffering=True)


def keep_output_apart() -> None:
    """Keeps what libraries in C++ write to standard output out of it, such as Gloo's greeting of each connection."""
    with suppress(OSError, ValueError):  # a stream without a file is no library's
        apart = os.dup(sys.stdout.fileno())
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout = os.fdopen(apart, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def finish_output() -> None:
    """Drops what cannot be written to standard output; Python would complain of it at its end, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Reporter:
    """Lines about a run on standard error. Progress is a bar under them; into a file or a pipe, a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._last_line = -math.inf
        self._parts: Mapping[str, tuple[float, str]] = {}
        self._rows = dict[str, TaskID]()

    def line(self, text: str, style: str | None = None) -> None:
        """One line, printed above the bar; nothing in it is markup."""
        self._console.print(printable(text), style=style, markup=False)

    @contextmanager
    def bar(self, done: float, total: float, *, counts_steps: bool = True) -> Iterator[None]:
        """Shows progress while the block runs, from `done` of `total` on: counts of steps, or of what has no name."""
        counted = (TextColumn("step"), MofNCompleteColumn()) if counts_steps else (TaskProgressColumn(),)
        told = TextColumn("{task.description}", markup=False), TimeRemainingColumn(compact=True), TextColumn("left")
        with Clock() as clock:
            self._progress = Progress(
                *(*counted, BarColumn(bar_width=None), *told),
                console=self._console,
                get_time=clock,
                speed_estimate_period=_SECONDS_OF_SPEED,
                expand=True,
            )
            self._progress.add_task("compiling", total=total, completed=int(done))
            self._counts_steps = counts_steps
            # What is not drawn is not started, and estimates the time left all the same.
            with self._progress if self._console.is_terminal else nullcontext():
                yield

    def parts(self, states: Mapping[str, tuple[float, str]]) -> None:
        """What goes on side by side, by its name: the part that is done, and how things are; in bars of their own.

        Where no bar is drawn, the next of the lines that are told now and then has one for each below it.
        """
        self._parts = states
        if not self._console.is_terminal:
            return
        for name in {*self._rows} - {*states}:
            self._progress.remove_task(self._rows.pop(name))
        for name, (done, state) in states.items():
            if name not in self._rows:
                self._rows[name] = self._progress.add_task(name, total=1.0)
            self._progress.update(self._rows[name], completed=done, description=f"{name} {state}")

    def skip_to(self, done: float) -> None:
        """Moves the bar over what this process did not do, which says nothing about the time that is left."""
        self._progress.tasks[0].completed = done

    def advance(self, done: float, state: str) -> None:
        """Moves the bar to what is done, and says how things are."""
        task = self._progress.tasks[0]
        self._progress.update(task.id, completed=done, description=state)
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            step = f"step {done:,} of {task.total:,}: " if self._counts_steps else ""
            left = f"; {timedelta(seconds=task.time_remaining)} left" if task.time_remaining else ""
            told = (f"\n  {name} {state}" for name, (_, state) in self._parts.items())
            self.line(f"{step}{state}{left}{''.join(told)}")
