"""How a comparison gets on: what is done, what is left, and the best so far, on a terminal or line by line."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from charlstm.cli import summary
from charlstm.cli.terminal import SECONDS_BETWEEN_LINES, Reporter
from charlstm.compare.grid import GridModel
from charlstm.compare.results import ModelResult, Results
from charlstm.compare.statistics import RESULT
from charlstm.core.size import operations
from charlstm.support.files import one_line
from charlstm.training.begin import Text


class Progress:
    """Told by `compare` and its groups. A step counts with its operations, as large models take longer.

    Args:
        models: of the grid.
        seeds: runs of each.
        folder: of the grid, whose results are done already.
        text: that they read.
        reporter: what a person sees.
    """

    def __init__(self, models: Sequence[GridModel], seeds: int, folder: Path, text: Text, reporter: Reporter) -> None:
        self._models, self._reporter, self._stack = list(models), reporter, ExitStack()
        self._weights = {each.name: operations(each.config.model, len(text.vocabulary)) for each in models}
        self._finished = {each.name for each in models if len(list((folder / each.name).glob(f"*/{RESULT}"))) >= seeds}
        self._total = self._work(models)
        self._began, self._last_line = time.perf_counter(), -math.inf
        self._worked, self._at, self._best = 0.0, 0.0, ""
        for line in _introduction(models, seeds, len(self._finished), folder, text):
            reporter.line(line)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._reporter.bar(self._done(None, 0), self._total, counts_steps=False))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, model: GridModel) -> None:
        """A model's turn has come."""
        self._model, self._at = model, math.inf

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        """The current model's runs made updates; see `group.Watch`."""
        model, done = self._model, self._done(self._model, step)
        self._worked += max(done - self._at, 0)  # its first steps may be of another process
        self._at = done
        said = (
            f"{model.name} ({self._models.index(model) + 1} of {len(self._models)}) step {step:,} of"
            f" {model.config.train.steps:,}: loss {loss:.3f}  {chars_per_second:,.0f} chars/s{self._best}"
        )
        self._reporter.advance(done, said)
        now = time.perf_counter()
        if not self._reporter.has_bar and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._began) * (self._total - done) / self._worked if self._worked else math.inf
            self._reporter.line(f"{said}; {_minutes(left)} left" if math.isfinite(left) else said)

    def line(self, text: str, style: str | None = None) -> None:
        """A line worth telling."""
        self._reporter.line(text, style)

    def finish(self, model: GridModel, found: Results) -> None:
        """A model is trained and measured."""
        new = model.name not in self._finished
        self._finished.add(model.name)
        known = {row.name: row.validation.mean for row in found.models if row.validation}
        if known:
            best = min(known, key=known.__getitem__)
            self._best = f"; best {best} {known[best]:.4f}"
        self._reporter.advance(self._done(None, 0), f"{model.name} is done{self._best}")
        if new:
            self._reporter.line(f"{model.name}: {_told(next(row for row in found.models if row.name == model.name))}")

    def _done(self, current: GridModel | None, step: int) -> float:
        finished = [each for each in self._models if each.name in self._finished]
        return self._work(finished) + (self._weights[current.name] * step if current else 0)

    def _work(self, models: Sequence[GridModel]) -> float:
        return sum(self._weights[each.name] * each.config.train.steps for each in models)


def _introduction(models: Sequence[GridModel], seeds: int, done: int, folder: Path, text: Text) -> list[str]:
    """The text, the models, and where they go."""
    least, most = (sort(each.parameters for each in models) for sort in (min, max))
    count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    lines = [
        summary.of_text(models[0].config.data, len(text.vocabulary), text.splits),
        f"models   {len(models)} with {seeds} {'seed' if seeds == 1 else 'seeds'} each, of {count} parameters",
        f"folder   {one_line(folder)}{f', where {done} of them are trained' if done else ''}",
    ]
    if len(models) > 1 and all(each.baseline is None for each in models):
        lines.append("none of them is the baseline that --baseline-cell and --baseline-layers name: no differences")
    if not len(text.splits.validation):
        lines.append("there is no validation split, so the last step of each run counts as its best")
    return lines


def _told(row: ModelResult) -> str:
    """A model's losses in a few words."""
    lost = sum(run.diverged_after is not None for run in row.seeds)
    known = {"validation": row.validation, "test": row.test}
    parts = [f"{name} {loss.mean:.4f}" for name, loss in known.items() if loss]
    if lost:
        parts.append(f"{lost} of {len(row.seeds)} seeds diverged")
    return ", ".join(parts) or "trained"


def _minutes(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
