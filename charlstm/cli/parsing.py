"""From words to a command's dataclass, by tyro; what is wrong with them in one line."""

import contextlib
import io
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_origin

import tyro
from pydantic import ValidationError

from charlstm.config import Axes, Experiment
from charlstm.support.errors import InputError, did_you_mean
from charlstm.support.files import user_path
from charlstm.support.schema import flat

Command = TypeVar("Command")


def shown(name: str, default: str | None = None) -> Any:
    """What --help calls a value, in place of its type, and what it says of a default that depends on the rest."""
    return tyro.conf.arg(metavar=name, help_behavior_hint=None if default is None else f"(default: {default})")


TEXT = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="TEXT",
    instance_from_str=lambda words: words[0],  # "None" is a text too, where tyro would read nothing
    is_instance=lambda value: isinstance(value, str | None),
    str_from_instance=lambda value: [str(value) if str(value).isprintable() else repr(value)[1:-1]],  # in one line
)
_REGISTRY = tyro.constructors.ConstructorRegistry()
_PLAINER = {  # by what tyro says
    r"Missing from [^:]*: (\S+).*": r"\1 is missing",
    r"Missing value for argument '(.*)'\..*": r"\1 needs a value; one that is an option itself follows =, as in \1=--x",
    r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*)\)": r"\2 is \1; it must be one of \3",
    r"Unrecognized options: (.*)": r"there is one word too many: \1",
    r"Error parsing (\S+): invalid literal for int.*: (.*)": r"\1 is \2; it must be a whole number",
    r"Error parsing (\S+): (?:could not .* float: |no type .* from \[)('.*?')\]?": r"\1 is \2; it must be a number",
}


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
        str_from_instance=lambda value: [str(each) for pair in value.items() for each in pair] or ["none"],
    )


@_REGISTRY.primitive_rule
def _texts(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    return TEXT if info.type is str else None


def parse(kind: type[Command], words: list[str], default: Command | None = None) -> Command:
    """The command's dataclass from its words; raises InputError with what tyro says of them, in one line."""
    name, words = kind.__name__.lower(), join_values(kind, words)
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
        said = " ".join("\n".join(lines).strip().split("\n\n")[0].split()).removesuffix(".")
        for theirs, ours in _PLAINER.items():
            said = re.sub(f"{theirs}$", ours, said)
        raise InputError(f"{said}; see `charlstm {name} --help`") from None
    for name, value in vars(parsed).items():
        if isinstance(value, Path):
            setattr(parsed, name, user_path(value))
        elif isinstance(value, tuple):
            setattr(parsed, name, tuple(user_path(each) if isinstance(each, Path) else each for each in value))
    return parsed


def join_values(kind: type, words: Sequence[str]) -> list[str]:
    """The words with --option VALUE as --option=VALUE, so that a value may begin with dashes.

    Raises InputError for an option that the command does not have.
    """
    known, single, joined = {*options(kind), "--help", "-h"}, options(kind, single=True), list[str]()
    for word in words:
        if joined and option_of(joined[-1]) in single and "=" not in joined[-1] and option_of(word) not in known:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    name = kind.__name__.lower()
    for word in joined:
        if option_of(word) == "--import":
            raise InputError(f"--import stands before the command: charlstm --import FILE {name} ...")
        if word.startswith("--") and (option := option_of(word)) not in known:
            raise InputError(f"`charlstm {name}` has no option {word.split('=', 1)[0]}{did_you_mean(option, known)}")
    return joined


def option_of(word: str) -> str:
    """The option that a word gives, with dashes for underscores."""
    return word.split("=", 1)[0].replace("_", "-")


def options(kind: type, single: bool = False) -> list[str]:
    """The options of a command, such as --run-dir and --data.corpus; or those alone that take a single value."""
    parts: dict[str, Iterable[str]] = dict.fromkeys(("experiment", "run", "runs", "file"), ())
    parts |= {"config": flat(Experiment()), "axes": () if single else vars(Axes())}
    taken = [each for each in fields(kind) if not (single and isinstance(each.default, bool))]
    names = [name for each in taken for name in parts.get(each.name, [each.name])]
    return [f"--{name.replace('_', '-')}" for name in names]


def value_of(words: Sequence[str], option: str) -> str | None:
    """The value of an option among words that `join_values` joined, the last where it stands twice; None without it."""
    return next((word.partition("=")[2] for word in reversed(words) if option_of(word) == option), None)


def asks_for_help(words: Sequence[str]) -> bool:
    return not {"-h", "--help"}.isdisjoint(words)


def check_corpus_alone(words: Sequence[str]) -> None:
    """Raises InputError where a second text follows, as of a shell's pattern: it would be taken for an experiment."""
    for at, word in enumerate(words):
        if option_of(word) != "--data.corpus":
            continue
        text, *rest = [word.partition("=")[2], *words[at + 1 :]] if "=" in word else words[at + 1 :] or [""]
        if rest and not text.startswith("--") and not rest[0].startswith("-"):
            path = Path(text)
            pattern = shlex.quote(str(path.with_name(f"*{path.suffix}"))) if path.name else "'src/*.py'"
            what = f"--data.corpus takes one value, and after {text} follows {rest[0]}"
            raise InputError(f"{what}; quote a pattern, as in --data.corpus {pattern}, or put the EXPERIMENT first")
