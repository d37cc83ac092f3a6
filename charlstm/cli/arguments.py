"""What a person can type after each command, and an experiment's CONFIG or GRID. No JAX here, so --help is quick."""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin

import tyro
from pydantic import ValidationError

from charlstm.cli.experiments import check_path, load_experiment, load_grid
from charlstm.config import Axes, Experiment, Grid, check_cell
from charlstm.support.errors import InputError, did_you_mean
from charlstm.support.schema import flat

_DEFAULT_NAME = "king_james"  # experiments/king_james.py is config.Experiment as it stands

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
    """A Python file that defines CONFIG. Without one, the King James Bible is read."""
    run_dir: Annotated[Path | None, _shown("DIR")] = None
    """The run's folder; by default runs/ and the experiment's name."""
    config: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=Experiment)


@dataclass(kw_only=True)
class Compare:
    """Train a grid of cells, depths, sizes and seeds, and tabulate their losses. The same command goes on with it."""

    experiment: Annotated[tyro.conf.Positional[Path], _shown("EXPERIMENT")]  # A Python file that defines GRID.
    run_dir: Annotated[Path | None, _shown("DIR")] = None
    """The comparison's folder; by default runs/ and the experiment's name."""
    axes: Annotated[Axes, tyro.conf.arg(name="")] = field(default_factory=Axes)
    config: Annotated[Experiment, tyro.conf.arg(name="")] = field(default_factory=Experiment)


@dataclass(kw_only=True)
class _OnRun:
    run: Annotated[tyro.conf.Positional[Path], _shown("RUN")]  # The run's folder.
    checkpoint: str = "best"  # best by validation, latest, a step, or fresh for the parameters before training.


@dataclass(kw_only=True)
class Eval(_OnRun):
    """The exact loss over all of a split, or over a text of your own."""

    split: Literal["train", "validation", "test"] = "validation"  # Which part of the run's text.
    text: Annotated[Path | None, _shown("FILE")] = None  # A file to evaluate on instead of the run's own text.
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


def train_arguments(words: list[str]) -> tuple[str, Train]:
    """The name of the experiment, and the train command with the experiment's CONFIG under what was typed."""
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
    for option in map(_option, words):  # of which every model has its own
        if option in instead:
            raise InputError(f"{option} is not for all models of a comparison; use {instead[option]}")
    axes = Axes(**{each.name: getattr(grid, each.name) for each in fields(Axes)})
    default = Compare(experiment=path, axes=axes, config=grid.base)
    parsed = parse(Compare, words, default)
    for cell in (*parsed.axes.cells, *parsed.axes.learning_rates, parsed.axes.baseline_cell):
        check_cell(cell)
    return path.stem, parsed.run_dir, replace(grid, base=parsed.config, **vars(parsed.axes))


def parse(kind: type[Command], words: list[str], default: Command | None = None) -> Command:
    """The command's dataclass from its words; raises InputError with what tyro says of them, in one line."""
    name, known = kind.__name__.lower(), _options(kind)
    for word in words:
        if _option(word) == "--import":
            raise InputError(f"--import stands before the command: charlstm --import FILE {name} ...")
        if word.startswith("--") and (option := _option(word)) not in (*known, "--help"):
            raise InputError(f"`charlstm {name}` has no option {word.split('=', 1)[0]}{did_you_mean(option, known)}")
    box = io.StringIO()
    # --train.tensorboard False, like every other field; the commands' own switches take no value.
    flags = tyro.conf.FlagConversionOff if kind in (Train, Compare) else tyro.conf.FlagCreatePairsOff
    how: Any = {"prog": f"charlstm {name}", "default": default, "registry": _REGISTRY, "config": (flags,)}
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
    for value in vars(parsed).values():
        for each in value if isinstance(value, tuple) else [value]:
            if isinstance(each, Path):
                check_path(each)
    return parsed


def _option(word: str) -> str:
    return word.split("=", 1)[0].replace("_", "-")


def _options(kind: type) -> list[str]:
    """The options of a command, such as --run-dir and --data.corpus."""
    parts = {"config": flat(Experiment()), "axes": vars(Axes()), "experiment": (), "run": (), "runs": ()}
    names = [name for each in fields(kind) for name in parts.get(each.name, [each.name])]
    return [f"--{name.replace('_', '-')}" for name in names]


def _positional(words: Sequence[str]) -> str | None:
    """The experiment among a train command's words, where every option takes one value."""
    for before, word in pairwise(["", *words]):
        is_value = before.startswith("--") and "=" not in before and before != "--help"
        if not is_value and not word.startswith("-"):
            return word
    return None
