"""A grid of models and seeds becomes a folder of runs, and the table of their results.

    GRID/grid.json, corpus.json       the grid, so that it can be repeated without its file, and which text it read
    GRID/MODEL/seed-K/                an ordinary run, with result.json once it is trained, and measures.json
    GRID/ngram.json                   the best n-gram model on the text, to compare with
    GRID/results.json                 the table, written anew after each model

Whatever has its result stays as it is, and the rest goes on from its newest checkpoints. So a grid that was stopped or
killed is continued by the same call, and one whose axes have grown trains what is new. A run without its measures.json
is measured, and not trained.
"""

import itertools
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import jax

from charlstm.analysis.settings import under_settings
from charlstm.compare.grid import LENGTH, GridModel, check_same_grid, grid_models
from charlstm.compare.results import RESULTS, Outcome, Results
from charlstm.compare.statistics import MEASURES, NGRAM, RESULT, measure_ngram, measure_run, outcome, tabulate
from charlstm.config import Experiment, Grid
from charlstm.core.loss import mean_nats
from charlstm.core.network import Model
from charlstm.core.optimizer import learning_rate, make_optimizer
from charlstm.core.sharding import Layout
from charlstm.core.size import count_training_operations
from charlstm.core.step import TrainState
from charlstm.data.dataset import Dataset, Fingerprint
from charlstm.runs.config_file import continued
from charlstm.runs.folder import CORPUS, GRID, Run, as_training_errors, check_text, check_vacant, make_folder, read_as
from charlstm.runs.loading import TrainedRun
from charlstm.runs.metrics import read, time_taken
from charlstm.runs.models import first_state, make_model, other_backend
from charlstm.support.errors import InputError, Interrupted
from charlstm.support.files import inside, user_path, write_json
from charlstm.support.lock import only_writer
from charlstm.support.schema import to_dict
from charlstm.training.loop import Loop, Watch
from charlstm.training.member import Member, open_member
from charlstm.training.seeds import OneRun, Program, SeedProgram, chunk_of
from charlstm.training.signals import Received, collected


class GridWatch(Watch):
    """Hears how a comparison gets on; silent, like `Watch`."""

    def begin_grid(self, models: Sequence[GridModel], seeds: int, folder: Path, data: Dataset) -> None:
        """The folder is open; the first model follows."""

    def begin_model(self, model: GridModel) -> None:
        """A model's turn has come."""

    def end_model(self, model: GridModel, found: Results) -> None:
        """A model is trained and measured; `found` has all that is."""


@under_settings
def run_grid(
    grid: Grid, folder: str | os.PathLike[str], *, watch: GridWatch | None = None, signals: bool = False
) -> Results:
    """Trains and measures what is missing in a grid's folder: ``charlstm compare`` from Python.

    Args:
        grid: the models and their seeds.
        folder: of the comparison, made when missing.
        watch: is told of the progress; by default nothing is printed.
        signals: whether signals save and stop the comparison; see `train`.

    Returns:
        What is in results.json.

    Raises:
        InputError: the text, the grid or the folder will not do; nothing in the folder was changed.
        TrainingError: a checkpoint cannot be written, or the system failed in another way.
        Interrupted: a signal came; everything is saved, and the same call goes on.
    """
    folder, watch = user_path(folder), watch or GridWatch()
    with as_training_errors(folder), collected(signals) as received, ExitStack() as stack:
        data = Dataset.read(grid.base.data)
        models = grid_models(grid, len(data.vocabulary))
        for model in models:
            make_model(model.config, len(data.vocabulary), states=grid.seeds)
        received.check()
        make_folder(folder)
        stack.enter_context(only_writer(folder, watch.line))  # two that begin in one folder do not mix their files
        for model in models:
            inside(folder, model.name)
        _open(folder, grid, data)
        comparison = _Comparison(grid, folder, data, watch, received)
        watch.begin_grid(models, grid.seeds, folder, data)
        if not inside(folder, NGRAM).exists():
            write_json(folder / NGRAM, measure_ngram(data))
        for model in models:
            watch.begin_model(model)
            comparison.train(model)
            comparison.measure(model)
            found = tabulate(folder, grid, models, len(data.vocabulary))
            write_json(folder / RESULTS, asdict(found))
            watch.end_model(model, found)
    return tabulate(folder, grid, models, len(data.vocabulary))


@dataclass(frozen=True)
class _Comparison:
    grid: Grid
    folder: Path
    data: Dataset
    watch: GridWatch
    received: Received

    def train(self, model: GridModel) -> None:
        """Trains the runs of a model that have no result yet: together those that stand at the same step."""
        folders = [inside(self.folder, model.folder(number)) for number in range(self.grid.seeds)]
        missing = [number for number, each in enumerate(folders) if not (each / RESULT).exists()]
        if not missing:
            return
        began = (Run.open(folders[number]).backend for number in missing if Run.exists(folders[number]))
        network = make_model(model.config, len(self.data.vocabulary), backend=next(began, None))
        train, optimizer = model.config.train, model.config.optimizer
        tx, schedule = make_optimizer(optimizer, train.steps), learning_rate(optimizer, train.steps)
        symbols = model.config.data.batch_size * model.config.data.seq_length
        operations = count_training_operations(model.config.model, len(self.data.vocabulary))
        # Fewer runs than devices train one by one, and the devices share the rows of each.
        alone = OneRun(network, tx, Layout.of(model.config.data.batch_size), mean_nats, schedule)
        one_by_one = self.grid.seeds < jax.local_device_count()
        with ExitStack() as stack:
            groups: dict[int, list[tuple[Member, TrainState]]] = {}
            for number in missing:
                run = self._open_run(folders[number], model.run(number), network, stack)
                first, devices = partial(first_state, run.config, network), alone.row_devices if one_by_one else 1
                member, state = open_member(run, first, devices, self.watch.line, stack, restart=True)
                groups.setdefault(number if one_by_one else int(state.step), []).append((member, state))
            for _, group in sorted(groups.items()):
                members, states = zip(*group, strict=True)
                chunk = chunk_of(train, int(states[0].step), len(group) * symbols * operations)
                program = alone if one_by_one else SeedProgram(network, tx, schedule, len(group), chunk)
                self._train_group(model, program, members, states)

    def _train_group(
        self, model: GridModel, program: Program, members: Sequence[Member], states: Sequence[TrainState]
    ) -> None:
        def diverged(member: Member, what: str) -> None:
            self.watch.line(f"{model.name}: seed {member.run.config.seed} diverged; {what}", "yellow")
            self._conclude(member, program.model, len(members))

        loop = Loop(members, program, self.data, states, self.watch, diverged)
        try:
            loop.run(self.received)
        except Interrupted as stop:
            raise Interrupted(stop.signal_number, stop.step, model.name) from None
        for member in members:
            if member.diverged_after is None:
                self._conclude(member, program.model, len(members))

    def measure(self, model: GridModel) -> None:
        """Measures the trained runs that have not been, on the parameters of the step that was best by validation."""
        for number in range(self.grid.seeds):
            self.received.check(model.config.train.steps, model.name)
            folder = inside(self.folder, model.folder(number))
            found = outcome(folder)
            if found.best_step is not None and found.diverged_after is None and not (folder / MEASURES).exists():
                write_json(folder / MEASURES, measure_run(folder, found.best_step, self.data))

    def _open_run(self, folder: Path, config: Experiment, model: Model, stack: ExitStack) -> Run:
        if Run.exists(folder):
            run = Run.open(folder)
            run = replace(run, config=continued(run.config, config))
            run.check_text(self.data.fingerprint, self.data.vocabulary)
            for line in other_backend(run, model):
                self.watch.line(line)
        else:
            found = self.data.vocabulary, self.data.fingerprint
            run = Run.create(folder, config, *found, backend=model.backend)
        stack.enter_context(only_writer(folder, self.watch.line))
        return run

    def _conclude(self, member: Member, model: Model, count: int) -> None:
        """Leaves a sample and, last, the result of a run that has ended; `count` runs shared the time."""
        run, diverged, validated = member.run, member.diverged_after, math.isfinite(member.metrics.best)
        member.metrics.flush()
        member.checkpoints.check_folder()
        seconds, speed = time_taken(read(run.folder), run.config.data.batch_size * run.config.data.seq_length)
        best = member.checkpoints.best() if validated else None if diverged is not None else member.checkpoints.latest()
        if best is not None:
            params = member.checkpoints.restore_params(best, jax.eval_shape(model.init, jax.random.key(0)))
            run.write_sample(best, TrainedRun(run, model, params, best).sample())
        result = Outcome(
            seed=run.config.seed,
            diverged_after=diverged,
            best_step=best,
            validation=member.metrics.best if validated else None,
            seconds=seconds and seconds / count,
            chars_per_second=speed and speed * count,
        )
        write_json(run.folder / RESULT, asdict(result))


def _check_member(run: Run, config: Experiment) -> None:
    """Raises InputError for a run that `charlstm train` made longer, or other than those beside it."""
    other = {f"train.{name}" for name in LENGTH if getattr(run.config.train, name) != getattr(config.train, name)}
    if names := sorted(other | {each.field for each in run.changes}):
        what = f"{run.folder} was trained on outside of its comparison, with another {' and '.join(names)}"
        raise InputError(f"{what}; move it away, and it is trained anew, or use another --run-dir")


def _open(folder: Path, grid: Grid, data: Dataset) -> None:
    """Begins a grid in its folder, or raises InputError where this grid cannot go on from what is there."""

    def begun(model: GridModel, number: int) -> bool:
        # A stranger's grid may have very many runs, and the folder none of them.
        return os.path.lexists(folder / model.name) and Run.exists(inside(folder, model.folder(number)))

    path, corpus = inside(folder, GRID), inside(folder, CORPUS)
    if path.exists():
        check_same_grid(read_as(Grid, path), grid, len(data.vocabulary), begun)
        if corpus.exists():
            check_text(folder, read_as(Fingerprint, corpus), data.fingerprint)
    elif Run.exists(folder):
        raise InputError(f"{folder} is a run, and is no comparison; use another --run-dir")
    else:  # what its tables, plots and page would replace is the user's own
        tables = (RESULTS, *(Path(RESULTS).with_suffix(each).name for each in (".csv", ".md")))
        check_vacant(folder, (CORPUS, *tables, "plots", "report.html"))
    for model, number in itertools.product(grid_models(grid, len(data.vocabulary)), range(grid.seeds)):
        if begun(model, number):
            _check_member(Run.open(inside(folder, model.folder(number))), model.config)
    write_json(path, to_dict(grid))
    if not corpus.exists():
        write_json(corpus, asdict(data.fingerprint))
