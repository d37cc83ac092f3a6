"""What reaches a person's terminal: plain text, whatever is in a corpus, and a steady progress bar."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from charlstm.support.files import printable


def write(text: str) -> None:
    """Text to standard output, at once; as it is into a file or a pipe, `printable` on a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


class Reporter:
    """Lines about a run on standard error, and a bar under them where that is a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: Any = None

    @property
    def has_bar(self) -> bool:
        """Whether progress is drawn, and not written line by line."""
        return self._console.is_terminal

    def line(self, text: str, style: str | None = None) -> None:
        """One line, printed above the bar; nothing in it is markup."""
        self._console.print(printable(text), style=style, markup=False)

    @contextmanager
    def bar(self, done: float, total: float, *, counts_steps: bool = True) -> Iterator[None]:
        """Draws a bar while the block runs, from `done` of `total` on: counts of steps, or of whatever has no name."""
        counted = (TextColumn("step"), MofNCompleteColumn()) if counts_steps else (TaskProgressColumn(),)
        told = TextColumn("{task.description}"), TimeRemainingColumn(compact=True), TextColumn("left")
        columns = (*counted, BarColumn(bar_width=None), *told)
        progress = Progress(*columns, console=self._console, expand=True, disable=not self.has_bar)
        with progress:
            self._task = progress.add_task("compiling", total=total, completed=int(done))
            self._progress = progress
            yield
            self._progress = None

    def advance(self, done: float, description: str) -> None:
        """Moves the bar to what is done and says how things are."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=description)
