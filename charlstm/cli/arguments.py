"""What a person can type after each command, and an experiment's CONFIG or GRID. No JAX here, so --help is quick."""

import os
import re
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from charlstm.cli.experiments import load_experiment, load_grid
from charlstm.cli.parsing import TEXT, asks_for_help, check_corpus_alone, join_values, option_of, parse, shown, value_of
from charlstm.config import DYNAMIC_RATE, Axes, DataConfig, Experiment, Grid, Weights, check_cell
from charlstm.support import hosts
from charlstm.support.errors import InputError
from charlstm.support.files import user_path

_AS_TRAINED = "as in the run's config"
_RUNS = tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)")


@dataclass(kw_only=True)
class Train:
    """Train on a text. A run whose folder exists already goes on where it stopped."""

    experiment: Annotated[tyro.conf.Positional[Path | None], shown("[EXPERIMENT]", "the King James Bible")] = None
    """A Python file that defines CONFIG, a run's folder, which continues it, or its config.json, which repeats it."""
    run_dir: Annotated[Path | None, shown("DIR", "runs/ and the experiment's or the text's name")] = None
    """The run's folder. One that holds a run continues it."""
    init_from: Annotated[Path | None, shown("RUN", "none")] = None
    """A run whose parameters a new one begins with, by symbol; without an EXPERIMENT, its model is taken too."""
    allow_change: bool = False
    """Let a run continue with another learning rate, schedule, dropout and such, and record it."""
    coordinator_address: Annotated[str | None, shown("HOST:PORT", "found by JAX under Slurm, Open MPI, ...")] = None
    """Train on several hosts: where process 0 listens. The same for all processes; docs/hosts.md."""
    num_processes: Annotated[int | None, shown("N", "found, too")] = None
    """How many processes train together; 1 alone trains by itself, whatever started it."""
    process_id: Annotated[int | None, shown("I", "found, too")] = None
    """Which of them this is, from 0."""
    config: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(
        default_factory=Experiment
    )


@dataclass(kw_only=True)
class Compare:
    """Train a grid of cells, depths, sizes and seeds, and tabulate their losses. The same command goes on with it."""

    experiment: Annotated[tyro.conf.Positional[Path], shown("EXPERIMENT")]
    """A Python file that defines GRID, a comparison's folder, which continues it, or its grid.json."""
    run_dir: Annotated[Path | None, shown("DIR", "runs/ and the experiment's name")] = None
    """The comparison's folder."""
    on: Annotated[str | None, shown("ray[://HOST:PORT]", "this process, model by model")] = None
    """Train models side by side, as tasks of Ray: in the cluster at an address or in RAY_ADDRESS, or by these cores."""
    axes: Annotated[Axes, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=Axes)
    config: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(
        default_factory=Experiment
    )


@dataclass(kw_only=True)
class _OnRun:
    run: Annotated[tyro.conf.Positional[Path], shown("RUN")]  # The run's folder.
    checkpoint: str = "best"  # best by validation, latest, a step, or fresh for the parameters before training.


@dataclass(kw_only=True)
class Eval(_OnRun):
    """The loss over all of a split, or over a text of your own."""

    split: Literal["train", "validation", "test"] = "validation"  # Which part of the run's text.
    text: Annotated[Path | None, shown("FILE", "the run's own text")] = None  # Your own: a file, folder or quoted glob.
    corpus: Annotated[str | None, shown("FILE", "as in the run's config")] = None
    """Where the run's own text is now, if it was moved."""
    exact: bool = False  # Read the text as one row: slower, and a function of text and parameters alone.
    cold: Annotated[int | None, shown("N", "none")] = None
    """Read windows of N characters, each from an empty state, as models that have none are scored."""
    dynamic: bool = False  # Read the text as one row, and learn from each 32 characters once they were predicted.
    dynamic_rate: float = DYNAMIC_RATE  # How fast: a factor of gradients over their root mean square in training.
    lags: bool = False
    """Measure too how the gradient of a loss falls with the lag to the hidden state that it is taken in."""
    weights: Weights = "float32"  # int8 gives the loss of the rounded weights that sample --weights int8 draws from.
    skip_unknown: bool = False  # Drop characters of FILE that the model does not know, instead of refusing them.
    json: bool = False  # Print one JSON object.


@dataclass(kw_only=True)
class Score(_OnRun):
    """How likely the model finds each line of a text, each on its own, or each character of them."""

    file: Annotated[tyro.conf.Positional[str], shown("[FILE | -]")] = "-"  # The lines; - is standard input.
    by: Literal["line", "character"] = "line"  # What is scored, one to a line of the output.
    skip_unknown: bool = False  # Drop characters that the model does not know, instead of refusing them.
    json: bool = False  # Print one JSON object for each line or character.


@dataclass(kw_only=True)
class Sample(_OnRun):
    """Text from a trained model. What is not given here is as in the run's config."""

    prime: Annotated[str | None, TEXT, shown("TEXT", _AS_TRAINED)] = None  # Text that the model reads first.
    prime_file: Annotated[str | None, TEXT, shown("FILE | -", "none")] = None
    """A file, or - for standard input, that holds the prime; it is read as a text to train on is."""
    length: Annotated[int | None, shown("N", _AS_TRAINED)] = None  # Characters to draw after the prime, at most.
    stop: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], shown("STRING", "none")] = ()
    """A text ends with this once it is drawn. May be given several times."""
    temperature: Annotated[float | None, shown("X", _AS_TRAINED)] = None
    """Below 1 is bolder, above 1 is wilder, 0 takes the likeliest character each time."""
    top_n: Annotated[int | None, shown("K", _AS_TRAINED)] = None
    """Draw among the n likeliest characters only; 0 means among all."""
    seed: Annotated[int | None, shown("S", _AS_TRAINED)] = None  # Same checkpoint, settings and seed, same text.
    num: int = 1  # How many texts; the i-th is the text of seed + i - 1 alone.
    stream: bool = False  # Show characters as they are drawn.
    weights: Weights = "float32"  # int8 rounds them: faster on a CPU with the native core, at nearly the same loss.
    skip_unknown: bool = False  # Drop characters of the prime that the model does not know, instead of refusing them.
    json: bool = False  # Print one JSON object for each text: prime, text, seed, characters and nats.


@dataclass(kw_only=True)
class Look(_OnRun):
    """A page of what the units of a model do, where its loss is, and how n-grams compare."""

    text: Annotated[Path | None, shown("FILE", "the validation split of the run's text")] = None
    """The text that is read: a file, folder or quoted glob."""
    corpus: Annotated[str | None, shown("FILE", "as in the run's config")] = None
    """Where the run's own text is now, if it was moved; n-grams are counted in it."""
    output: Annotated[Path | None, shown("FILE", "look.html in the run's folder")] = None
    """The page, which ends in .html."""
    skip_unknown: bool = False  # Drop characters of FILE that the model does not know, instead of refusing them.
    json: bool = False  # Print the numbers as one JSON object; a page is written only where --output names it.


@dataclass(kw_only=True)
class Export(_OnRun):
    """A trained model as one safetensors file, for others to load without charlstm."""

    output: Annotated[Path | None, shown("FILE", "model.safetensors in the run's folder")] = None
    """The file, which ends in .safetensors."""


@dataclass(kw_only=True)
class Report:
    """One HTML page about runs or comparisons, that needs nothing but itself."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], _RUNS]
    """Folders of runs or of comparisons."""
    output: Annotated[Path | None, shown("FILE", "report.html in the folder, or here where there are several")] = None
    """The page, which ends in .html."""


@dataclass(kw_only=True)
class Compile:
    """Compile the native core for this machine's processor, ahead of the first training."""


@dataclass(kw_only=True)
class Corpora:
    """List what can be trained on, and where each text is."""

    json: bool = False  # Print one JSON array.


def train_arguments(words: list[str]) -> tuple[Path, Train, list[str]]:
    """The run's folder; the train command, whose config is under what was typed; and lines worth telling.

    The config is the experiment's or, without one, that of the run which the folder holds.
    """
    words = join_values(Train, words)
    check_corpus_alone(words)
    path, notes = next((user_path(word) for word in words if not word.startswith("-")), None), list[str]()
    config = load_experiment(path) if path else Experiment()
    if asks_for_help(words):
        parse(Train, words, Train(config=config))
    if (folder := _folder(words, path)) is None:
        from charlstm.cli.places import choose_folder, experiment_name, text_name
        from charlstm.runs.folder import CONFIG

        found = {name: value_of(words, f"--data.{name}") for name in ("corpus", "separator")}
        typed = {name: value for name, value in found.items() if value is not None}
        data = find_text(replace(config.data, **typed), words)
        own = "corpus" in typed and os.path.isabs(data.corpus)
        name = experiment_name(path) if path and not own else text_name(data.corpus)
        folder, notes = choose_folder(name, data, CONFIG, joined=path is not None or "separator" in typed)
    if path is None:
        from charlstm.runs.folder import Run

        if Run.exists(folder):
            config = Run.open(folder).config
        elif old := value_of(words, "--init-from"):
            theirs = Run.open(user_path(old)).config
            config = replace(config, model=theirs.model, data=replace(config.data, symbols=theirs.data.symbols))
    parsed = parse(Train, words, Train(config=config))
    check_cell(parsed.config.model.cell)
    return folder, parsed, notes


_OWN = ("--run-dir", "--init-from", "--data.corpus", "--coordinator-address", "--num-processes", "--process-id")
"""What may be typed otherwise in each of the processes that train together."""


def find_place(words: list[str]) -> tuple[hosts.Place | None, list[str]]:
    """This process's place among those that train together, None for one alone, and the words that all share."""
    words = join_values(Train, words)
    if asks_for_help(words):
        return None, []
    address, count, number = map(partial(value_of, words), ("--coordinator-address", "--num-processes", "--process-id"))
    place = hosts.typed_place(address, count, number)
    if place is None and count is None and (found := hosts.launcher()):
        place = hosts.find_place(found)
    shared = sorted(word for word in words if word.startswith("--") and option_of(word) not in _OWN)
    return (place if place and place.count > 1 else None), shared


def follow_arguments(words: list[str]) -> str | None:
    """Where another process than the first reads the text, if typed; its experiment's file is run, for cells."""
    words = join_values(Train, words)
    path = next((user_path(word) for word in words if not word.startswith("-")), None)
    if path and path.suffix == ".py":
        load_experiment(path)
    if (typed := value_of(words, "--data.corpus")) is None:
        return None
    return find_text(DataConfig(corpus=typed), words).corpus


def compare_arguments(words: list[str]) -> tuple[Path, Grid, str | None, list[str]]:
    """The comparison's folder; its grid under what was typed; what it runs on; and lines worth telling."""
    if words and words[0] in ("-h", "--help"):
        parse(Compare, words)
    if not words or words[0].startswith("-"):
        raise InputError("`charlstm compare` needs an experiment's file first; see `charlstm compare --help`")
    words = join_values(Compare, words)
    check_corpus_alone(words)
    path, notes = user_path(words[0]), list[str]()
    grid = load_grid(path)
    instead = {"--model.cell": "--cells", "--model.num-layers": "--layers", "--model.hidden-size": "--sizes"}
    if not grid.learning_rates.keys().isdisjoint(grid.cells):
        instead["--optimizer.learning-rate"] = "--learning-rates"
    for option in map(option_of, words):  # of which every model has its own
        if option in instead:
            raise InputError(f"{option} is not for all models of a comparison; use {instead[option]}")
    axes = Axes(**{each.name: getattr(grid, each.name) for each in fields(Axes)})
    default = Compare(experiment=path, axes=axes, config=grid.base)
    parsed = parse(Compare, words, default)
    if parsed.on not in (None, "ray") and not re.fullmatch(r"ray://[^\s/]+:\d+", parsed.on):
        raise InputError(f"--on is {parsed.on!r}; it must be ray, or ray://HOST:PORT of a cluster's head")
    for cell in (*parsed.axes.cells, *parsed.axes.learning_rates, parsed.axes.baseline_cell):
        check_cell(cell)
    grid, folder = replace(grid, base=parsed.config, **vars(parsed.axes)), _folder(words, path)
    if folder is None:
        from charlstm.cli.places import choose_folder, experiment_name
        from charlstm.runs.folder import GRID

        folder, notes = choose_folder(experiment_name(path), find_text(grid.base.data, words), GRID)
    return folder, grid, parsed.on, notes


def find_text(data: DataConfig, words: list[str]) -> DataConfig:
    """The config with the whole path of its text; InputError says how to give another, unless the words give it."""
    from charlstm.data.corpora import resolve

    try:
        return replace(data, corpus=resolve(data.corpus))
    except InputError as error:
        moved = "; if the text was moved, give its new place: --data.corpus FILE"
        raise InputError(f"{error}{moved if value_of(words, '--data.corpus') is None else ''}") from None


def _folder(words: list[str], path: Path | None) -> Path | None:
    """The folder that is typed as --run-dir, or as what to continue."""
    typed = value_of(words, "--run-dir")
    folder = None if typed is None else user_path(typed)
    if path is None or not path.is_dir():
        return folder
    if folder and folder.absolute() != path.absolute() and not (folder.exists() and folder.samefile(path)):
        file = next(each for each in ("grid.json", "config.json") if (path / each).exists())
        raise InputError(f"{path} goes on in its own folder; to repeat it in {folder}, give {path / file} instead")
    return path
