"""How a comparison gets on: what is done, what is left, and the best so far, on a terminal or line by line."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from charlstm.grid import Candidate
from charlstm.results import ModelResult, Results
from charlstm.sizes import operations
from charlstm.tally import RESULT
from charlstm.terminal import SECONDS_BETWEEN_LINES, Reporter


class Progress:
    """Told by `compare` and its groups. A step counts with its operations, as large models take longer.

    Args:
        models: of the grid.
        seeds: runs of each.
        folder: of the grid, whose results are done already.
        vocabulary_size: V.
        reporter: what a person sees.
    """

    def __init__(
        self, models: Sequence[Candidate], seeds: int, folder: Path, vocabulary_size: int, reporter: Reporter
    ) -> None:
        self._models, self._reporter, self._stack = list(models), reporter, ExitStack()
        self._weights = {each.name: operations(each.config.model, vocabulary_size) for each in models}
        self._finished = {each.name for each in models if len(list((folder / each.name).glob(f"*/{RESULT}"))) >= seeds}
        self._total = self._work(models)
        self._began, self._done_before = time.perf_counter(), self._done(None, 0)
        self._last_line, self._best = 0.0, ""

    def __enter__(self) -> Self:
        self._stack.enter_context(self._reporter.bar(self._done(None, 0), self._total, counts_steps=False))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _done(self, current: Candidate | None, step: int) -> float:
        finished = [each for each in self._models if each.name in self._finished]
        return self._work(finished) + (self._weights[current.name] * step if current else 0)

    def _work(self, models: Sequence[Candidate]) -> float:
        return sum(self._weights[each.name] * each.config.train.steps for each in models)

    def begin(self, model: Candidate) -> None:
        """A model's turn has come."""
        self._current = model

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        """The current model's runs made updates; see `group.Watch`."""
        model = self._current
        number, steps = self._models.index(model) + 1, model.config.train.steps
        done = self._done(model, step)
        spent = time.perf_counter() - self._began
        told = (
            f"{model.name} ({number} of {len(self._models)}) step {step:,} of {steps:,}: loss {loss:.3f}"
            f"  {chars_per_second:,.0f} chars/s{self._best}"
        )
        self._reporter.advance(done, told)
        if not self._reporter.has_bar and time.perf_counter() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.perf_counter()
            left = spent * (self._total - done) / max(done - self._done_before, 1e-9)
            self._reporter.line(f"{told}; {_duration(left)} left")

    def line(self, text: str, style: str | None = None) -> None:
        """A line worth telling."""
        self._reporter.line(text, style)

    def finish(self, model: Candidate, table: Results) -> None:
        """A model is trained and measured."""
        new = model.name not in self._finished
        self._finished.add(model.name)
        measured = {row.name: row.validation.mean for row in table.models if row.validation}
        if measured:
            best = min(measured, key=measured.__getitem__)
            self._best = f"; best {best} {measured[best]:.4f}"
        self._reporter.advance(self._done(None, 0), f"{model.name} is done{self._best}")
        if new:
            self._reporter.line(f"{model.name}: {told(next(row for row in table.models if row.name == model.name))}")


def told(row: ModelResult) -> str:
    """A model's losses in a few words."""
    known = {"validation": row.validation, "test": row.test}
    parts = [f"{name} {loss.mean:.4f}" for name, loss in known.items() if loss]
    return f"{', '.join(parts)} nats per character" if parts else "every run of it diverged"


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
