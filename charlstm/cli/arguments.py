"""What a person can type after each command, and an experiment's CONFIG or GRID. No JAX here, so --help is quick."""

import contextlib
import io
import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin

import tyro
from pydantic import ValidationError

from charlstm.cli.experiments import load_experiment, load_grid
from charlstm.cli.words import asks_for_help, check_corpus_alone, option_of, positional, value_of
from charlstm.config import Axes, Experiment, Grid, check_cell
from charlstm.support.errors import InputError, did_you_mean
from charlstm.support.files import user_path
from charlstm.support.schema import flat

Command = TypeVar("Command")


def _shown(name: str) -> Any:
    """What --help calls a value, in place of its type."""
    return tyro.conf.arg(metavar=name)


_TEXT = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="TEXT",
    instance_from_str=lambda words: words[0],  # "None" is a text too, where tyro would read nothing
    is_instance=lambda value: isinstance(value, str | None),
    str_from_instance=lambda value: [str(value)],
)
_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _rates(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """One option for all of learning_rates, where tyro would make one for each cell of the default."""

    def read(words: list[str]) -> dict[str, float]:
        if len(words) % 2:
            raise ValueError("each cell needs its rate, as in rnn 0.01 lstm 0.04")
        return dict(zip(words[::2], map(float, words[1::2]), strict=True))

    if get_origin(info.type) is not dict:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[CELL RATE ...]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [str(each) for pair in value.items() for each in pair],
    )


@dataclass(kw_only=True)
class Train:
    """Train on a text. A run whose folder exists already goes on where it stopped."""

    experiment: Annotated[tyro.conf.Positional[Path | None], _shown("[EXPERIMENT]")] = None
    """A Python file that defines CONFIG, a run's folder, which continues it, or its config.json, which repeats it.
    Without one, the King James Bible is read."""
    run_dir: Annotated[Path | None, _shown("DIR")] = None
    """The run's folder, by default runs/ and the experiment's or the text's name. One that holds a run continues it."""
    allow_change: bool = False
    """Let a run continue with another learning rate, schedule, dropout and such, and record it."""
    config: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(
        default_factory=Experiment
    )


@dataclass(kw_only=True)
class Compare:
    """Train a grid of cells, depths, sizes and seeds, and tabulate their losses. The same command goes on with it."""

    experiment: Annotated[tyro.conf.Positional[Path], _shown("EXPERIMENT")]
    """A Python file that defines GRID, a comparison's folder, which continues it, or its grid.json."""
    run_dir: Annotated[Path | None, _shown("DIR")] = None
    """The comparison's folder; by default runs/ and the experiment's name."""
    axes: Annotated[Axes, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=Axes)
    config: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(
        default_factory=Experiment
    )


@dataclass(kw_only=True)
class _OnRun:
    run: Annotated[tyro.conf.Positional[Path], _shown("RUN")]  # The run's folder.
    checkpoint: str = "best"  # best by validation, latest, a step, or fresh for the parameters before training.


@dataclass(kw_only=True)
class Eval(_OnRun):
    """The exact loss over all of a split, or over a text of your own."""

    split: Literal["train", "validation", "test"] = "validation"  # Which part of the run's text.
    text: Annotated[Path | None, _shown("FILE")] = None  # A file to evaluate on instead of the run's own text.
    corpus: Annotated[str | None, _shown("FILE")] = None  # Where the run's own text is now, if it was moved.
    exact: bool = False  # Read the text as one row: slower, and a function of text and parameters alone.
    lags: bool = False
    """Measure too how the gradient of a loss falls with the lag to the hidden state that it is taken in."""
    json: bool = False  # Print one JSON object.


@dataclass(kw_only=True)
class Sample(_OnRun):
    """Text from a trained model. What is not given here is as in the run's config."""

    prime: Annotated[str | None, _TEXT] = None  # Text that the model reads first.
    length: Annotated[int | None, _shown("N")] = None  # Characters to draw after the prime.
    temperature: Annotated[float | None, _shown("X")] = None
    """Below 1 is bolder, above 1 is wilder, 0 takes the likeliest character each time."""
    top_n: Annotated[int | None, _shown("K")] = None  # Draw among the n likeliest characters only; 0 means among all.
    seed: Annotated[int | None, _shown("S")] = None  # Same checkpoint, settings and seed, same text.
    num: int = 1  # How many texts; the i-th is the text of seed + i - 1 alone.
    stream: bool = False  # Show characters as they are drawn.
    skip_unknown: bool = False  # Drop characters of the prime that the model does not know, instead of refusing them.


@dataclass(kw_only=True)
class Export(_OnRun):
    """A trained model as one safetensors file, for others to load without charlstm."""

    output: Annotated[Path | None, _shown("FILE")] = None
    """The file, which ends in .safetensors; by default model.safetensors in the run's folder."""


@dataclass(kw_only=True)
class Report:
    """One HTML page about runs or comparisons, that needs nothing but itself."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], _shown("RUN ...")]  # Folders of runs or of comparisons.
    output: Annotated[Path | None, _shown("FILE")] = None
    """The page, which ends in .html; by default report.html in the folder, or here where there are several."""


@dataclass(kw_only=True)
class Corpora:
    """List what can be trained on, and where each text is."""


def train_arguments(words: list[str]) -> tuple[Path, Train, list[str]]:
    """The run's folder; the train command, whose config is under what was typed; and lines worth telling.

    The config is the experiment's or, without one, that of the run which the folder holds.
    """
    check_corpus_alone(words)
    typed, corpus, notes = positional(words), value_of(words, "--data.corpus"), list[str]()
    path = None if typed is None else user_path(typed)
    config = load_experiment(path) if path else Experiment()
    if asks_for_help(words):
        parse(Train, words, Train(config=config))
    if (folder := _folder(words, path)) is None:
        from charlstm.cli.places import choose_folder, experiment_name, text_name
        from charlstm.data.corpora import resolve
        from charlstm.runs.folder import CONFIG

        text = resolve(config.data.corpus if corpus is None else corpus)
        own = corpus is not None and os.path.isabs(text)
        folder, notes = choose_folder(experiment_name(path) if path and not own else text_name(text), text, CONFIG)
    if path is None:
        from charlstm.runs.folder import Run

        config = Run.open(folder).config if Run.exists(folder) else config
    parsed = parse(Train, words, Train(config=config))
    check_cell(parsed.config.model.cell)
    return folder, parsed, notes


def compare_arguments(words: list[str]) -> tuple[Path, Grid, list[str]]:
    """The comparison's folder; its grid under what was typed; and lines worth telling."""
    if words and words[0] in ("-h", "--help"):
        parse(Compare, words)
    if not words or words[0].startswith("-"):
        raise InputError("`charlstm compare` needs an experiment's file first; see `charlstm compare --help`")
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
    for cell in (*parsed.axes.cells, *parsed.axes.learning_rates, parsed.axes.baseline_cell):
        check_cell(cell)
    grid, folder = replace(grid, base=parsed.config, **vars(parsed.axes)), _folder(words, path)
    if folder is None:
        from charlstm.cli.places import choose_folder, experiment_name
        from charlstm.data.corpora import resolve
        from charlstm.runs.folder import GRID

        folder, notes = choose_folder(experiment_name(path), resolve(grid.base.data.corpus), GRID)
    return folder, grid, notes


def parse(kind: type[Command], words: list[str], default: Command | None = None) -> Command:
    """The command's dataclass from its words; raises InputError with what tyro says of them, in one line."""
    name, known = kind.__name__.lower(), _options(kind)
    for word in words:
        if option_of(word) == "--import":
            raise InputError(f"--import stands before the command: charlstm --import FILE {name} ...")
        if word.startswith("--") and (option := option_of(word)) not in (*known, "--help"):
            raise InputError(f"`charlstm {name}` has no option {word.split('=', 1)[0]}{did_you_mean(option, known)}")
    box = io.StringIO()
    # The commands' own switches take no value; a field does, as in --train.tensorboard False.
    flags = (tyro.conf.FlagCreatePairsOff,)
    how: Any = {"prog": f"charlstm {name}", "default": default, "registry": _REGISTRY, "config": flags}
    try:
        with contextlib.redirect_stderr(box):
            parsed = tyro.cli(kind, args=words, **how)
    except SystemExit as stop:
        if not stop.code:
            raise
        error: BaseException | None = stop
        while error := error.__context__:
            if isinstance(error, ValidationError):
                raise error from None
        # A box: its title, and what is wrong; more help follows under a rule or an empty line.
        lines = [line.strip("│| ") if re.search(r"\w", line) else "" for line in box.getvalue().splitlines()[1:]]
        said = " ".join("\n".join(lines).strip().split("\n\n")[0].split())
        raise InputError(f"{said.removesuffix('.')}; see `charlstm {name} --help`") from None
    for name, value in vars(parsed).items():
        if isinstance(value, Path):
            setattr(parsed, name, user_path(value))
        elif isinstance(value, tuple):
            setattr(parsed, name, tuple(map(user_path, value)))
    return parsed


def _options(kind: type) -> list[str]:
    """The options of a command, such as --run-dir and --data.corpus."""
    parts = {"config": flat(Experiment()), "axes": vars(Axes()), "experiment": (), "run": (), "runs": ()}
    names = [name for each in fields(kind) for name in parts.get(each.name, [each.name])]
    return [f"--{name.replace('_', '-')}" for name in names]


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
