"""A grid of models and seeds becomes a folder of runs, and a table of them.

    GRID/grid.json, corpus.json       the grid, so that it can be repeated without its file, and which text it read
    GRID/MODEL/seed-K/                an ordinary run, with result.json once it is trained, and measures.json
    GRID/MODEL/training/              while its seeds train: which they are, and checkpoints of all their states
    GRID/results.json, .csv, .md      the table, written anew after each model

Whatever has its result stays as it is; what is in training goes on from its newest checkpoint; the rest begins. So a
grid that was stopped or killed is continued by the same command, and one whose axes have grown trains what is new. A
run without its measures.json is measured, and not trained.
"""

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from charlstm.cli.progress import Progress
from charlstm.cli.terminal import Reporter
from charlstm.compare.grid import GridModel, check_same_grid, grid_models
from charlstm.compare.measure import measured
from charlstm.compare.results import RESULTS, Outcome, Results
from charlstm.compare.statistics import MEASURES, RESULT, outcome, tally
from charlstm.config import Grid
from charlstm.core.fast import cudnn
from charlstm.core.size import refuse_what_no_memory_holds
from charlstm.core.step import TrainState
from charlstm.data.windows import Batches
from charlstm.report.tables import write_tables
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import (
    CHECKPOINTS,
    CORPUS,
    GRID,
    Run,
    continued,
    goes_on_later,
    make_folder,
    only_writer,
    read_fingerprint,
    refuse_other_text,
)
from charlstm.runs.metrics import Metrics as MetricsFile
from charlstm.runs.metrics import best_loss, read, time_taken
from charlstm.runs.tensorboard import Board
from charlstm.support.errors import InputError, Interrupted
from charlstm.support.files import inside, one_line, read_json, write_json
from charlstm.support.schema import from_dict, to_dict
from charlstm.training import signals
from charlstm.training.begin import Text
from charlstm.training.group import Group, Member, Watch
from charlstm.training.seeds import Together, unstacked
from charlstm.training.train import sampled

TRAINING, SEEDS = "training", "seeds.json"


def compare(grid: Grid, folder: Path, reporter: Reporter) -> Results:
    """Train and measure what is missing in a grid's folder, and write its table.

    Returns:
        What is in results.json.

    Raises:
        InputError: the text, the grid or the folder will not do; nothing in the folder was changed.
        TrainingError: a checkpoint cannot be written, or the system failed in another way.
        Interrupted: a signal came; everything is saved, and the same command goes on.
    """
    text = Text.read(grid.base)
    Batches(text.splits.train, grid.base.data.batch_size, grid.base.data.seq_length)  # refuses a text that is too short
    models = grid_models(grid, len(text.vocabulary))
    for model in models:
        cudnn.settled(model.config.model)
        # All seeds train together, and the best state of each is kept beside the newest.
        refuse_what_no_memory_holds(model.config, len(text.vocabulary), states=2 * grid.seeds)
    _refuse_other_kinds(folder)
    make_folder(folder)
    with goes_on_later(folder), ExitStack() as stack:
        stack.enter_context(only_writer(folder))  # two that begin in one folder do not mix their files
        _open(folder, grid, text)
        for model in models:
            inside(folder, model.name)
        write_json(folder / GRID, to_dict(grid))
        received = stack.enter_context(signals.collected())
        progress = stack.enter_context(Progress(models, grid.seeds, folder, text, reporter))
        for model in models:
            progress.begin(model)
            here = inside(folder, model.name)
            for numbers in _groups(here, model, grid.seeds):
                train_runs(model, numbers, here, text, received, progress)
            for number in range(grid.seeds):
                if received:
                    raise Interrupted(received[0], model.config.train.steps, model.name)
                _measure(_seed_folder(here, model, number), text)
            found = tally(folder, grid, models, len(text.vocabulary))
            write_tables(found, folder)
            progress.finish(model, found)
    return tally(folder, grid, models, len(text.vocabulary))


def _refuse_other_kinds(folder: Path) -> None:
    if not (folder / GRID).exists():
        present = [name for name in (CORPUS, RESULTS) if os.path.lexists(folder / name)]
        if present or Run.exists(folder):
            what = "is a run" if Run.exists(folder) else f"holds {present[0]}"
            raise InputError(f"{folder} {what}, and is no comparison; use another --run-dir")


def _open(folder: Path, grid: Grid, text: Text) -> None:
    """Begins a grid in its folder, or refuses one that this grid cannot go on from."""
    _refuse_other_kinds(folder)
    if not (folder / GRID).exists():
        write_json(folder / GRID, to_dict(grid))
    path = inside(folder, GRID)
    try:
        before = from_dict(read_json(path), Grid)
    except (InputError, RecursionError) as error:
        raise InputError(f"{path} is malformed: {one_line(error)}; put back the comparison's own file") from None

    def begun(model: GridModel, number: int) -> bool:
        here = folder / model.name  # a stranger's grid may have very many runs, and the folder none of them
        return os.path.lexists(here) and Run.exists(_seed_folder(here, model, number))

    check_same_grid(before, grid, len(text.vocabulary), begun)
    if (corpus := inside(folder, CORPUS)).exists():
        refuse_other_text(folder, read_fingerprint(corpus), text.fingerprint)
    else:
        write_json(corpus, asdict(text.fingerprint))


def _seed_folder(folder: Path, model: GridModel, number: int) -> Path:
    return inside(folder, f"seed-{model.run(number).seed}")


def _groups(folder: Path, model: GridModel, seeds: int) -> list[list[int]]:
    """The runs that are missing, by number, those first that are in training together."""
    missing = [number for number in range(seeds) if not (_seed_folder(folder, model, number) / RESULT).exists()]
    training, begun = inside(folder, TRAINING), list[int]()
    if (training / SEEDS).exists():
        listed = read_json(inside(training, SEEDS)).get("numbers")
        begun = [number for number in range(seeds) if number in listed] if isinstance(listed, list) else []
    if training.exists() and not set(begun) & set(missing):
        shutil.rmtree(training)  # its runs are finished, and a process was killed before it was gone
        begun = []
    rest = [number for number in missing if number not in begun]
    return [numbers for numbers in (begun, rest) if numbers]


def train_runs(
    model: GridModel, numbers: Sequence[int], folder: Path, text: Text, received: Sequence[int], watch: Watch
) -> None:
    """Trains some runs of a model to their end, and leaves a run's folder for each.

    Args:
        model: the model.
        numbers: of its runs.
        folder: of the model; what is in training there goes on.
        text: what they read.
        received: gets a signal's number when it is time to save and stop.
        watch: is told.
    """
    training = folder / TRAINING
    training.mkdir(parents=True, exist_ok=True)
    write_json(training / SEEDS, {"numbers": list(numbers)})
    with ExitStack() as stack:
        # All states of the group are in one checkpoint; the one before it is there in case that is damaged.
        checkpoints = stack.enter_context(Checkpoints(inside(training, CHECKPOINTS), keep=2))
        step = checkpoints.latest() or 0
        members = [_member(folder, model, number, text, step, stack) for number in numbers]
        together = Together(tuple(member.run.config for member in members), len(text.vocabulary))
        group = Group(together, members, text, checkpoints)
        states = zip(*(unstacked(each, len(members)) for each in group.train(received, watch)), strict=True)
        for place, (member, (now, best)) in enumerate(zip(members, states, strict=True)):
            if received:  # all of them are in the checkpoint of the last step
                raise Interrupted(received[0], group.step, model.name)
            if not (member.run.folder / RESULT).exists():
                _conclude(member, together, group.step, now, best, group.diverged.get(place))
    shutil.rmtree(training)


def _member(folder: Path, model: GridModel, number: int, text: Text, step: int, stack: ExitStack) -> Member:
    config, path = model.run(number), _seed_folder(folder, model, number)
    if Run.exists(path):
        run = Run.open(path)
        run = replace(run, config=continued(run.config, config))
        run.refuse_other_text(text.fingerprint)
        run.refuse_other_vocabulary(text.vocabulary)
    else:
        run = Run.create(path, config, text.vocabulary, text.fingerprint)
    stack.enter_context(only_writer(path))
    metrics = stack.enter_context(MetricsFile(run.metrics))
    board = stack.enter_context(Board(run.tensorboard if config.train.tensorboard else None, step))
    return Member(run, metrics, board)


def _conclude(
    member: Member, together: Together, last: int, now: TrainState, best: TrainState, diverged: int | None
) -> None:
    """Leaves the checkpoints, a sample and the result of a run that is trained, the result last."""
    run, count = member.run, len(together.configs)
    member.metrics.flush()
    records = read(run.folder)
    validation = best_loss(records)
    validated = math.isfinite(validation)
    seconds, speed = time_taken(records, run.config.data.batch_size * run.config.data.seq_length)
    chosen = best if validated else None if diverged is not None else now
    with Checkpoints(run.checkpoints, run.config.train.keep_checkpoints) as checkpoints:
        if chosen is not None:
            checkpoints.save(int(chosen.step), chosen, validation if validated else None)
            run.write_sample(int(chosen.step), sampled(run, together.model, chosen.params))
        if diverged is None and (chosen is None or int(chosen.step) != last):
            checkpoints.save(last, now)
    result = Outcome(
        seed=run.config.seed,
        diverged_after=diverged,
        best_step=None if chosen is None else int(chosen.step),
        validation=validation if validated else None,
        seconds=seconds and seconds / count,
        chars_per_second=speed and speed * count,
    )
    write_json(run.folder / RESULT, asdict(result))


def _measure(folder: Path, text: Text) -> None:
    """Measures a trained run that has not been, on the parameters of the step that was best by validation."""
    found = outcome(folder)
    if found.best_step is not None and found.diverged_after is None and not (folder / MEASURES).exists():
        write_json(folder / MEASURES, measured(folder, found.best_step, text.vocabulary, text.splits))
