"""How a training or a comparison gets on, on a terminal or line by line."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from charlstm.analysis.evaluate import Evaluation
from charlstm.cli import summary
from charlstm.cli.terminal import Reporter, write
from charlstm.compare.comparison import GridWatch, Work
from charlstm.compare.grid import GridModel
from charlstm.compare.results import Results
from charlstm.compare.statistics import RESULT
from charlstm.core.loss import bits
from charlstm.core.network import Model
from charlstm.core.sharding import Layout
from charlstm.core.size import count_operations
from charlstm.data.dataset import Dataset
from charlstm.report.tables import write_tables
from charlstm.runs.folder import Run
from charlstm.runs.loading import TrainedRun, load_run
from charlstm.support.files import one_line
from charlstm.training.loop import Watch


class TrainProgress(Watch):
    """Shows one run: its text and model, a bar, its validations; at the end its loss, a sample and what to do next."""

    def __init__(self) -> None:
        self._reporter = Reporter()
        self.line = self._reporter.line

    def begin(self, run: Run, data: Dataset, model: Model, step: int, layout: Layout) -> None:
        self._unit = run.config.data.symbols[:4]  # char or byte
        self.line("\n".join(summary.introduction(run, data, model, step, layout)))

    def bar(self, step: int, steps: int) -> AbstractContextManager[None]:
        return self._reporter.bar(step, steps)

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        state = f"loss {loss:.3f}  {bits(loss):.3f} bits/{self._unit}  {chars_per_second:,.0f} {self._unit}s/s"
        self._reporter.advance(step, state)

    def validated(self, run: Run, step: int, found: Evaluation) -> None:
        self.line(f"step {step:,}: validation {found.loss:.4f} nats, {found.bits_per_char:.4f} bits/{self._unit}")

    def end(self, run: TrainedRun, data: Dataset, found: Evaluation | None, trained: bool) -> None:
        if trained:
            best = load_run(run.run.folder)  # as the commands below do
            if best.step != run.step:
                told = f"step {best.step:,} has the lowest validation loss, not step {run.step:,}, the last"
                self.line("\n".join([*best.notes, f"{told}: of it are the table and the sample"]))
            self.line("\n".join(summary.conclusion(run.run, data, found)))
            for note in summary.lost_prime(run.config, run.vocabulary):
                self.line(one_line(note))
            write(best.sample() + "\n")
        self.line("\n".join(summary.next_commands(run.run, data)))


class GridProgress(ExitStack, GridWatch):
    """Shows a comparison, in a `with`. Progress counts operations, as large models take longer."""

    def __init__(self) -> None:
        super().__init__()
        self._reporter, self._best, self._beside = Reporter(), "", dict[str, float]()
        self.line = self._reporter.line

    def begin_grid(self, models: Sequence[GridModel], seeds: int, folder: Path, data: Dataset) -> None:
        self._names, self._folder = [each.name for each in models], folder
        self._steps = models[0].config.train.steps
        self._unit = models[0].config.data.symbols[:4]
        self._work = {
            each.name: count_operations(each.config.model, len(data.vocabulary)) * each.config.train.steps
            for each in models
        }
        self._finished = {name for name in self._names if len(list((folder / name).glob(f"*/{RESULT}"))) >= seeds}
        self.line("\n".join(summary.grid_introduction(models, seeds, len(self._finished), folder, data)))
        self.enter_context(self._reporter.bar(self._done(), sum(self._work.values()), counts_steps=False))

    def begin_model(self, model: GridModel) -> None:
        self._model = model

    def bar(self, step: int, steps: int) -> AbstractContextManager[None]:
        self._reporter.skip_to(self._done(step / steps))
        return nullcontext()

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        name = self._model.name
        place = f"{name} ({self._names.index(name) + 1} of {len(self._names)})"
        state = f"{place} {self._state(Work(step, loss, chars_per_second, ''))}{self._best}"
        self._reporter.advance(self._done(step / self._steps), state)

    def at_work(self, works: Mapping[str, Work | None]) -> None:
        parts = {name: work.step / self._steps for name, work in works.items() if work}
        self._reporter.parts({name: (parts[name], self._state(work)) for name, work in works.items() if work})
        self._beside = {name: part * self._work[name] for name, part in parts.items()}
        waiting = f", {len(works) - len(parts)} waiting" if len(works) > len(parts) else ""
        done = f"{len(self._finished)} of {len(self._names)} models trained"
        self._reporter.advance(self._done(), f"{done}{waiting}{self._best}")

    def end_model(self, model: GridModel, found: Results) -> None:
        write_tables(found, self._folder)
        if known := [(row.validation.mean, row.name) for row in found.models if row.validation]:
            self._best = "; best {1} {0:.4f}".format(*min(known))
        if model.name not in self._finished:
            self._finished.add(model.name)
            self._beside.pop(model.name, None)
            self.line(summary.model_line(next(row for row in found.models if row.name == model.name)))
        self._reporter.skip_to(self._done())

    def _state(self, work: Work) -> str:
        loss = "" if work.loss is None else f": loss {work.loss:.3f}  {work.chars_per_second:,.0f} {self._unit}s/s"
        place = f"step {work.step:,} of {self._steps:,}{loss}" if work.step else "starting"
        return f"{place}{f'  on {work.host}' if work.host else ''}"

    def _done(self, part: float = 0) -> float:
        """Operations, of the models that are finished, of `part` of the current one, and of those side by side."""
        current = part * self._work[self._model.name] if part else 0
        return current + sum(self._work[name] for name in self._finished) + sum(self._beside.values())
