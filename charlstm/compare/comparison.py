"""The models of a comparison, each trained and measured in its folder, and what is heard of that."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from charlstm.compare.grid import GridModel
from charlstm.compare.results import Outcome, Results
from charlstm.compare.statistics import MEASURES, RESULT, measure_run, outcome
from charlstm.config import Experiment, Grid
from charlstm.core.loss import mean_nats
from charlstm.core.network import Model
from charlstm.core.optimizer import learning_rate, make_optimizer
from charlstm.core.sharding import Layout
from charlstm.core.size import count_training_operations
from charlstm.core.step import TrainState
from charlstm.data.dataset import Dataset
from charlstm.runs.config_file import continued
from charlstm.runs.folder import Run
from charlstm.runs.loading import TrainedRun
from charlstm.runs.metrics import read, time_taken
from charlstm.runs.models import chain_of, first_state, make_model, options_of, other_backend
from charlstm.support.errors import Interrupted
from charlstm.support.files import inside, write_json
from charlstm.support.lock import only_writer
from charlstm.training.loop import Loop, Watch
from charlstm.training.member import Member, open_member
from charlstm.training.seeds import OneRun, Program, SeedProgram, chunk_of
from charlstm.training.signals import Received


class Work(NamedTuple):
    """How far a model is that trains side by side with others."""

    step: int
    loss: float | None
    """The mean over its seeds; None before the first update."""
    chars_per_second: float
    host: str
    """The node that it trains on; empty for this one."""


class GridWatch(Watch):
    """Hears how a comparison gets on; silent, like `Watch`."""

    def begin_grid(self, models: Sequence[GridModel], seeds: int, folder: Path, data: Dataset) -> None:
        """The folder is open; the first model follows."""

    def begin_model(self, model: GridModel) -> None:
        """A model's turn has come."""

    def at_work(self, works: Mapping[str, Work | None]) -> None:
        """How far the models are, by name, that train side by side; None for one that waits its turn."""

    def end_model(self, model: GridModel, found: Results) -> None:
        """A model is trained and measured; `found` has all that is."""


@dataclass(frozen=True)
class Comparison:
    """Trains and measures the models of a comparison, in its folder."""

    grid: Grid
    folder: Path
    data: Dataset
    watch: GridWatch
    received: Received
    patience: float = 0
    """Seconds that a run's folder is waited for while another process has locked it."""

    def missing(self, model: GridModel) -> list[int]:
        """The runs of a model, by number, that are not trained or not measured."""
        folders = [self.run_folder(model, number) for number in range(self.grid.seeds)]
        done = [(each / RESULT).exists() and _to_measure(each) is None for each in folders]
        return [number for number, each in enumerate(done) if not each]

    def in_turn(self, models: Sequence[GridModel]) -> Iterator[GridModel]:
        """Completes models one after the other, and gives each."""
        for model in models:
            self.watch.begin_model(model)
            self.complete(model, self.missing(model))
            yield model

    def complete(self, model: GridModel, numbers: Sequence[int]) -> None:
        """Trains and measures runs of a model."""
        self.train(model, [number for number in numbers if not (self.run_folder(model, number) / RESULT).exists()])
        self.measure(model, numbers)

    def train(self, model: GridModel, numbers: Sequence[int]) -> None:
        """Trains runs of a model: together those that stand at the same step."""
        if not numbers:
            return
        folders = {number: self.run_folder(model, number) for number in numbers}
        began = (Run.open(folder).backend for folder in folders.values() if Run.exists(folder))
        network = make_model(model.config, len(self.data.vocabulary), backend=next(began, None))
        train, optimizer = model.config.train, model.config.optimizer
        tx, schedule = make_optimizer(optimizer, train.steps), learning_rate(optimizer, train.steps)
        symbols = model.config.data.batch_size * model.config.data.seq_length
        operations = count_training_operations(model.config.model, len(self.data.vocabulary))
        # Fewer runs than devices train one by one, and the devices share the rows of each.
        options = options_of(model.config)
        layout = Layout.of(options.shared(model.config.data.batch_size))
        alone = OneRun(network, chain_of(model.config, layout), layout, mean_nats, schedule, options)
        one_by_one = self.grid.seeds < jax.local_device_count()
        with ExitStack() as stack:
            groups: dict[int, list[tuple[Member, TrainState]]] = {}
            for number, folder in folders.items():
                run = self._open_run(folder, model.run(number), network, stack)
                first, devices = partial(first_state, run.config, network), alone.row_devices if one_by_one else 1
                member, state = open_member(run, first, devices, self.watch.line, stack, restart=True)
                groups.setdefault(number if one_by_one else int(state.step), []).append((member, state))
            for _, group in sorted(groups.items()):
                members, states = zip(*group, strict=True)
                chunk = chunk_of(train, int(states[0].step), len(group) * symbols * operations)
                program = alone if one_by_one else SeedProgram(network, tx, schedule, len(group), chunk, options)
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

    def measure(self, model: GridModel, numbers: Sequence[int]) -> None:
        """Measures trained runs that have not been, on the parameters of the step that was best by validation."""
        for number in numbers:
            self.received.check(model.config.train.steps, model.name)
            folder = self.run_folder(model, number)
            if (step := _to_measure(folder)) is not None:
                write_json(folder / MEASURES, measure_run(folder, step, self.data))

    def run_folder(self, model: GridModel, number: int) -> Path:
        """Where a run lies, or will; InputError where that is out of the comparison's folder."""
        return inside(self.folder, model.folder(number))

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
        stack.enter_context(only_writer(folder, self.watch.line, self.patience))
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


def _to_measure(folder: Path) -> int | None:
    """The step that a trained run is to be measured at; None where it has been, or cannot be."""
    found = outcome(folder)
    return None if (folder / MEASURES).exists() or found.diverged_after is not None else found.best_step
