"""A grid of models and seeds becomes a folder of runs, and the table of their results.

    GRID/grid.json, corpus.json       the grid, so that it can be repeated without its file, and which text it read
    GRID/MODEL/seed-K/                an ordinary run, with result.json once it is trained, and measures.json
    GRID/ngram.json                   the best n-gram model on the text, to compare with
    GRID/results.json                 the table, written anew after each model

Whatever has its result stays as it is, and the rest goes on from its newest checkpoints. So a grid that was stopped or
killed is continued by the same call, and one whose axes have grown trains what is new. A run without its measures.json
is measured, and not trained. Models take turns, or train side by side on a cluster.
"""

import itertools
import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from charlstm.analysis.settings import under_settings
from charlstm.compare.cluster import complete_on, import_ray
from charlstm.compare.comparison import Comparison, GridWatch
from charlstm.compare.grid import LENGTH, GridModel, check_same_grid, grid_models
from charlstm.compare.results import RESULTS, Results
from charlstm.compare.statistics import NGRAM, measure_ngram, tabulate
from charlstm.config import Experiment, Grid
from charlstm.data.dataset import Dataset, Fingerprint
from charlstm.runs.folder import CORPUS, GRID, Run, as_training_errors, check_text, check_vacant, make_folder, read_as
from charlstm.runs.models import make_model
from charlstm.support.errors import InputError
from charlstm.support.files import inside, user_path, write_json
from charlstm.support.lock import only_writer
from charlstm.support.schema import to_dict
from charlstm.training.signals import collected


@under_settings
def run_grid(
    grid: Grid,
    folder: str | os.PathLike[str],
    *,
    on: str | None = None,
    watch: GridWatch | None = None,
    signals: bool = False,
) -> Results:
    """Trains and measures what is missing in a grid's folder: ``charlstm compare`` from Python.

    Args:
        grid: the models and their seeds.
        folder: of the comparison, made when missing.
        on: ``"ray"`` trains models side by side, as tasks of Ray: in the cluster that ``RAY_ADDRESS`` names or, without
            it, by the cores of this machine; ``"ray://HOST:PORT"`` in the cluster of that head. By default they take
            turns here.
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
        data = Dataset.read(grid.base.data, watch.line)
        models = grid_models(grid, len(data.vocabulary))
        for model in models if on is None else ():  # a node may have what is missing here
            make_model(model.config, len(data.vocabulary), states=grid.seeds)
        if on is not None and not (folder / GRID).exists():
            import_ray()  # where it is missing, no folder begins
        received.check()
        make_folder(folder)
        stack.enter_context(only_writer(folder, watch.line))  # two that begin in one folder do not mix their files
        for model in models:
            inside(folder, model.name)
        _open(folder, grid, data)
        comparison = Comparison(grid, folder, data, watch, received)
        watch.begin_grid(models, grid.seeds, folder, data)
        if not inside(folder, NGRAM).exists():
            write_json(folder / NGRAM, measure_ngram(data))
        for model in comparison.in_turn(models) if on is None else complete_on(on, comparison, models):
            found = tabulate(folder, grid, models, len(data.vocabulary))
            write_json(folder / RESULTS, asdict(found))
            watch.end_model(model, found)
    return tabulate(folder, grid, models, len(data.vocabulary))


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
