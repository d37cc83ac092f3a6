"""A grid of models and seeds becomes a folder of runs, and a table of them.

    GRID/grid.json, corpus.json       the grid, so that it can be repeated without its file, and which text it read
    GRID/MODEL/seed-K/                an ordinary run, with result.json once it is trained, and measures.json
    GRID/MODEL/training/              while its seeds train: which they are, and checkpoints of all their states
    GRID/results.json, .csv, .md      the table, written anew after each model

Whatever has its result stays as it is; what is in training goes on from its newest checkpoint; the rest begins. So a
grid that was stopped or killed is continued by the same command, and one whose axes have grown trains what is new. A run
without its measures.json is measured, and not trained.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from charlstm import cudnn, signals
from charlstm.batches import Batches
from charlstm.begin import Text
from charlstm.board import Board
from charlstm.checked import from_dict, to_dict
from charlstm.checkpoint import Checkpoints
from charlstm.config import Grid
from charlstm.errors import InputError, Interrupted
from charlstm.files import read_json, write_json
from charlstm.grid import Candidate, candidates, refuse_other_grid
from charlstm.group import Group, Member, States
from charlstm.measure import measured
from charlstm.metrics import Metrics as MetricsFile
from charlstm.metrics import best_loss, read, time_taken
from charlstm.progress import Progress
from charlstm.results import GRID, Results
from charlstm.runs import CORPUS, Run, continued, only_writer, read_fingerprint, refuse_other_text
from charlstm.seeds import Together, take
from charlstm.tables import write_tables
from charlstm.tally import MEASURES, RESULT, tally
from charlstm.terminal import Reporter
from charlstm.train import sampled

TRAINING, SEEDS = "training", "seeds.json"


def compare(grid: Grid, folder: Path, reporter: Reporter) -> Results:
    """Train and measure what is missing in a grid's folder, and write its table.

    Returns:
        What is in results.json.

    Raises:
        InputError: the text, the grid or the folder will not do; nothing in the folder was changed.
        TrainingError: a checkpoint cannot be written.
        Interrupted: a signal came; everything is saved, and the same command goes on.
    """
    text = Text.read(grid.base)
    Batches(text.splits.train, grid.base.data.batch_size, grid.base.data.seq_length)  # refuses a text that is too short
    models = candidates(grid, len(text.vocabulary))
    for model in models:
        cudnn.settled(model.config.model)
    with ExitStack() as stack:
        _open(folder, grid, text, len(text.vocabulary))
        stack.enter_context(only_writer(folder))
        write_json(folder / GRID, to_dict(grid))
        received = stack.enter_context(signals.collected())
        progress = stack.enter_context(Progress(models, grid.seeds, folder, len(text.vocabulary), reporter))
        for model in models:
            progress.begin(model)
            for numbers in _groups(folder / model.name, model, grid.seeds):
                _train(model, numbers, folder / model.name, text, received, progress)
            _measure(
                [folder / model.name / f"seed-{model.run(number).seed}" for number in range(grid.seeds)], text, received
            )
            found = tally(folder, grid, models, len(text.vocabulary))
            write_tables(found, folder)
            progress.finish(model, found)
    return tally(folder, grid, models, len(text.vocabulary))


def _open(folder: Path, grid: Grid, text: Text, vocabulary_size: int) -> None:
    """Makes a grid's folder, or refuses one that this grid cannot go on from."""
    if (folder / GRID).exists():
        before = from_dict(read_json(folder / GRID), Grid)
        refuse_other_grid(before, grid, vocabulary_size)
        refuse_other_text(folder, read_fingerprint(folder / CORPUS), text.fingerprint)
        return
    if Run.exists(folder):
        raise InputError(f"{folder} is a run, not a comparison; use another --run-dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CORPUS, asdict(text.fingerprint))
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"the folder {folder} cannot be made: {why}; use another --run-dir") from None


def _groups(folder: Path, model: Candidate, seeds: int) -> list[list[int]]:
    """The runs that are missing, by number, those first that are in training together."""
    missing = [n for n in range(seeds) if not (folder / f"seed-{model.run(n).seed}" / RESULT).exists()]
    training, begun = folder / TRAINING, list[int]()
    if (training / SEEDS).exists():
        begun = [number for number in read_json(training / SEEDS).get("numbers", []) if number in range(seeds)]
    if training.exists() and not set(begun) & set(missing):
        shutil.rmtree(training)  # a process was killed while it did so
        begun = []
    rest = [number for number in missing if number not in begun]
    return [numbers for numbers in (begun, rest) if numbers]


def _train(
    model: Candidate, numbers: Sequence[int], folder: Path, text: Text, received: Sequence[int], progress: Progress
) -> None:
    """Trains some runs of a model to their end, and leaves a run's folder for each."""
    training = folder / TRAINING
    training.mkdir(parents=True, exist_ok=True)
    write_json(training / SEEDS, {"numbers": list(numbers)})
    with ExitStack() as stack:
        members = [_member(folder, model, number, text, stack) for number in numbers]
        together = Together(tuple(member.run.config for member in members), len(text.vocabulary))
        # Both states of a run are in one checkpoint, and neither is of any use once the runs have theirs.
        checkpoints = stack.enter_context(Checkpoints(training / "checkpoints", keep=1))
        group = Group(together, members, text, checkpoints)
        states = group.train(received, progress)
        for place, member in enumerate(members):
            if received:  # all of them are in the checkpoint of the last step
                raise Interrupted(received[0], group.step)
            if not (member.run.folder / RESULT).exists():
                _conclude(member, place, group, states, together)
    shutil.rmtree(training)


def _member(folder: Path, model: Candidate, number: int, text: Text, stack: ExitStack) -> Member:
    config = model.run(number)
    path = folder / f"seed-{config.seed}"
    if Run.exists(path):
        run = Run.open(path)
        run = replace(run, config=continued(run.config, config))
        run.refuse_other_text(text.fingerprint)
    else:
        run = Run.create(path, config, text.vocabulary, text.fingerprint)
    stack.enter_context(only_writer(path))
    metrics = stack.enter_context(MetricsFile(run.metrics))
    return Member(run, metrics, stack.enter_context(Board(run.tensorboard if config.train.tensorboard else None, 0)))


def _conclude(member: Member, place: int, group: Group, states: States, together: Together) -> None:
    """Leaves the checkpoints, a sample and the result of a run that is trained, the result last."""
    run, diverged = member.run, group.diverged.get(place)
    member.metrics.flush()
    validation = best_loss(run.folder)
    validated = validation < float("inf")
    chosen = take(states.best if validated else states.now, place)
    seconds, speed = time_taken(read(run.folder), run.config.data.batch_size * run.config.data.seq_length)
    count = len(together.configs)
    result: dict[str, Any] = {
        "seed": run.config.seed,
        "diverged_after": diverged,
        "best_step": None,
        "seconds": seconds and seconds / count,
        "chars_per_second": speed and speed * count,
    }
    with Checkpoints(run.checkpoints, run.config.train.keep_checkpoints) as checkpoints:
        if validated or diverged is None:
            step = int(chosen.step)
            checkpoints.save(step, chosen, validation if validated else None)
            result |= {"best_step": step, "validation": validation if validated else None}
            run.write_sample(step, sampled(run, together.model, chosen.params))
        if diverged is None and group.step != result["best_step"]:
            checkpoints.save(group.step, take(states.now, place))
    write_json(run.folder / RESULT, result)


def _measure(folders: Sequence[Path], text: Text, received: Sequence[int]) -> None:
    """Measures the trained runs that have not been, on the parameters of the step that was best by validation."""
    for folder in folders:
        step = read_json(folder / RESULT)["best_step"]
        if step is not None and not (folder / MEASURES).exists():
            write_json(folder / MEASURES, measured(folder, step, text.splits))
        if received:
            raise Interrupted(received[0], step or 0)
