"""How a training or a comparison gets on, on a terminal or line by line."""

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self

from charlstm.analysis.evaluate import Evaluation
from charlstm.cli import summary
from charlstm.cli.terminal import Reporter, write
from charlstm.compare.grid import GridModel
from charlstm.compare.results import Results
from charlstm.compare.runner import GridWatch
from charlstm.compare.statistics import RESULT
from charlstm.core.loss import bits
from charlstm.core.network import Model
from charlstm.core.sharding import Layout
from charlstm.core.size import count_operations
from charlstm.data.dataset import Dataset
from charlstm.report.tables import write_tables
from charlstm.runs.folder import Run
from charlstm.runs.loading import TrainedRun
from charlstm.training.loop import Watch

SECONDS_BETWEEN_LINES = 15.0  # where no bar is drawn


class _Lines:
    """What both have in common: a reporter, and a line now and then where it draws no bar."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._last_line = reporter, -math.inf

    def line(self, text: str, style: str | None = None) -> None:
        self._reporter.line(text, style)

    def _advance(self, done: float, state: str) -> bool:
        """Moves the bar, and says whether a line is due instead."""
        self._reporter.advance(done, state)
        due = not self._reporter.has_bar and time.perf_counter() - self._last_line > SECONDS_BETWEEN_LINES
        if due:
            self._last_line = time.perf_counter()
        return due


class TrainProgress(_Lines, Watch):
    """Shows one run: its text and model, a bar, its validations; at the end its loss, a sample and what to do next."""

    def begin(self, run: Run, data: Dataset, model: Model, step: int, layout: Layout) -> None:
        self.line("\n".join(summary.introduction(run, data, model, step, layout)))

    def bar(self, step: int, steps: int) -> AbstractContextManager[None]:
        self._steps = steps
        return self._reporter.bar(step, steps)

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        state = f"loss {loss:.3f}  {bits(loss):.3f} bits/char  {chars_per_second:,.0f} chars/s"
        if self._advance(step, state):
            self.line(f"step {step:,} of {self._steps:,}: {state}")

    def validated(self, run: Run, step: int, found: Evaluation) -> None:
        self.line(f"step {step:,}: validation {found.loss:.4f} nats, {found.bits_per_char:.4f} bits per character")

    def end(self, run: TrainedRun, data: Dataset, found: Evaluation | None, trained: bool) -> None:
        if trained:
            self.line("\n".join(summary.conclusion(run.run, data, found)))
            write(run.sample() + "\n")
        self.line("\n".join(summary.next_commands(run.run)))


class GridProgress(_Lines, GridWatch):
    """Shows a comparison, in a `with`. Progress counts operations, as large models take longer."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter)
        self._stack, self._best = ExitStack(), ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin_grid(self, models: Sequence[GridModel], seeds: int, folder: Path, data: Dataset) -> None:
        self._models, self._folder = list(models), folder
        self._weights = {each.name: count_operations(each.config.model, len(data.vocabulary)) for each in models}
        self._work = {each.name: self._weights[each.name] * each.config.train.steps for each in models}
        self._finished = {each.name for each in models if len(list((folder / each.name).glob(f"*/{RESULT}"))) >= seeds}
        self._began, self._worked = time.perf_counter(), 0.0
        self.line("\n".join(summary.grid_introduction(models, seeds, len(self._finished), folder, data)))
        self._stack.enter_context(self._reporter.bar(self._done(), sum(self._work.values()), counts_steps=False))

    def begin_model(self, model: GridModel) -> None:
        self._model, self._at = model, math.inf

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        model, done = self._model, self._done(self._weights[self._model.name] * step)
        self._worked += max(done - self._at, 0)  # its first steps may be of another process
        self._at = done
        state = (
            f"{model.name} ({self._models.index(model) + 1} of {len(self._models)}) step {step:,} of"
            f" {model.config.train.steps:,}: loss {loss:.3f}  {chars_per_second:,.0f} chars/s{self._best}"
        )
        if self._advance(done, state):
            left = (
                (time.perf_counter() - self._began) * (sum(self._work.values()) - done) / self._worked
                if self._worked
                else math.inf
            )
            self.line(f"{state}; {summary.minutes(left)} left" if math.isfinite(left) else state)

    def end_model(self, model: GridModel, found: Results) -> None:
        write_tables(found, self._folder)
        new = model.name not in self._finished
        self._finished.add(model.name)
        if known := [(row.validation.mean, row.name) for row in found.models if row.validation]:
            self._best = "; best {1} {0:.4f}".format(*min(known))
        self._reporter.advance(self._done(), f"{model.name} is done{self._best}")
        if new:
            self.line(summary.model_line(next(row for row in found.models if row.name == model.name)))

    def _done(self, current: float = 0) -> float:
        return current + sum(work for name, work in self._work.items() if name in self._finished)
