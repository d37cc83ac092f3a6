"""What a person can type after each command, and an experiment's CONFIG or GRID. No JAX here, so --help is quick."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import tyro

from charlstm.cli.experiments import load_experiment, load_grid
from charlstm.cli.parsing import TEXT, join_values, option_of, parse, shown
from charlstm.config import Axes, Experiment, Grid, check_cell
from charlstm.support.errors import InputError

_DEFAULT_NAME = "king_james"  # experiments/king_james.py is config.Experiment as it stands
_AS_TRAINED = "as in the run's config"


@dataclass(kw_only=True)
class Train:
    """Train on a text. A run whose folder exists already goes on where it stopped."""

    experiment: Annotated[tyro.conf.Positional[Path | None], shown("[EXPERIMENT]", "none")] = None
    """A Python file that defines CONFIG. Without one, the King James Bible is read."""
    run_dir: Annotated[Path | None, shown("DIR", "runs/ and the experiment's name")] = None  # The run's folder.
    config: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=Experiment)


@dataclass(kw_only=True)
class Compare:
    """Train a grid of cells, depths, sizes and seeds, and tabulate their losses. The same command goes on with it."""

    experiment: Annotated[tyro.conf.Positional[Path], shown("EXPERIMENT")]  # A Python file that defines GRID.
    run_dir: Annotated[Path | None, shown("DIR", "runs/ and the experiment's name")] = None
    """The comparison's folder."""
    axes: Annotated[Axes, tyro.conf.arg(name="")] = field(default_factory=Axes)
    config: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=Experiment)


@dataclass(kw_only=True)
class _OnRun:
    run: Annotated[tyro.conf.Positional[Path], shown("RUN")]  # The run's folder.
    checkpoint: str = "best"  # best by validation, latest, a step, or fresh for the parameters before training.


@dataclass(kw_only=True)
class Eval(_OnRun):
    """The exact loss over all of a split, or over a text of your own."""

    split: Literal["train", "validation", "test"] = "validation"  # Which part of the run's text.
    text: Annotated[Path | None, shown("FILE", "the run's own text")] = None  # A text of your own to evaluate on.
    exact: bool = False  # Read the text as one row: slower, and a function of text and parameters alone.
    lags: bool = False
    """Measure too how the gradient of a loss falls with the lag to the hidden state that it is taken in."""
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
    """A file, or - for standard input, that holds the prime, byte for byte."""
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
    skip_unknown: bool = False  # Drop characters of the prime that the model does not know, instead of refusing them.
    json: bool = False  # Print one JSON object for each text: prime, text, seed, characters and nats.


@dataclass(kw_only=True)
class Export(_OnRun):
    """A trained model as one safetensors file, for others to load without charlstm."""

    output: Annotated[Path | None, shown("FILE", "model.safetensors in the run's folder")] = None
    """The file, which ends in .safetensors."""


@dataclass(kw_only=True)
class Report:
    """One HTML page about runs or comparisons, that needs nothing but itself."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], shown("RUN ...", "none")]
    """Folders of runs or of comparisons."""
    output: Annotated[Path | None, shown("FILE", "report.html in the folder, or here where there are several")] = None
    """The page."""


@dataclass(kw_only=True)
class Corpora:
    """List what can be trained on, and where each text is."""

    json: bool = False  # Print one JSON array.


def train_arguments(words: list[str]) -> tuple[str, Train]:
    """The name of the experiment, and the train command with the experiment's CONFIG under what was typed."""
    words = join_values(Train, words)
    path = _positional(words)
    name, config = (_DEFAULT_NAME, Experiment()) if path is None else (Path(path).stem, load_experiment(Path(path)))
    parsed = parse(Train, words, Train(experiment=None, config=config))
    check_cell(parsed.config.model.cell)
    return name, parsed


def compare_arguments(words: list[str]) -> tuple[str, Path | None, Grid]:
    """The name of the experiment, the folder that was asked for, and its GRID under what was typed."""
    if words and words[0] in ("-h", "--help"):
        parse(Compare, words)
    if not words or words[0].startswith("-"):
        raise InputError("`charlstm compare` needs an experiment's file first; see `charlstm compare --help`")
    path = Path(words[0])
    grid = load_grid(path)
    instead = {"--model.cell": "--cells", "--model.num-layers": "--layers", "--model.hidden-size": "--sizes"}
    if not grid.learning_rates.keys().isdisjoint(grid.cells):
        instead["--optimizer.learning-rate"] = "--learning-rates"
    for option in map(option_of, words):  # of which every model has its own
        if option in instead:
            raise InputError(f"{option} is not for all models of a comparison; use {instead[option]}")
    axes = Axes(**{each.name: getattr(grid, each.name) for each in fields(Axes)})
    default = Compare(experiment=path, axes=axes, config=grid.base)
    parsed = parse(Compare, _with_rates(words, grid.learning_rates), default)
    for cell in (*parsed.axes.cells, *parsed.axes.learning_rates, parsed.axes.baseline_cell):
        check_cell(cell)
    return path.stem, parsed.run_dir, replace(grid, base=parsed.config, **vars(parsed.axes))


def _with_rates(words: list[str], rates: Mapping[str, float]) -> list[str]:
    """Replaces the older --rnn-learning-rate and its like, where 0 is the optimizer's rate, with --learning-rates."""
    old = {f"--{cell}-learning-rate": cell for cell in ("rnn", "gru", "lstm")}
    rest, now, waiting = list[str](), {cell: str(rate) for cell, rate in rates.items()}, iter(words)
    for word in waiting:
        if cell := old.get(option_of(word)):
            now[cell] = word.partition("=")[2] or next(waiting, "")
        else:
            rest.append(word)
    pairs = [word for pair in now.items() if pair[1] not in ("0", "0.0") for word in pair]
    return words if len(rest) == len(words) else [*rest, "--learning-rates", *pairs]


def _positional(words: Sequence[str]) -> str | None:
    """The experiment among a train command's words, where every option takes one value."""
    for before, word in pairwise(["", *words]):
        is_value = before.startswith("--") and "=" not in before and before != "--help"
        if not is_value and not word.startswith("-"):
            return word
    return None
