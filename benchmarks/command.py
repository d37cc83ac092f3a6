"""What the commands of this package share: arguments whose errors are one line, and names that are checked."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from benchmarks.contenders import PACKAGES, installed
from benchmarks.floor import FLOORS
from charlstm.support.errors import InputError, did_you_mean

PEERS = [name for name in PACKAGES if name != "charlstm"]
Value = TypeVar("Value")


class Parser(argparse.ArgumentParser):
    """Wrong arguments end with exit code 2 and one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def in_turns(prog: str, description: str, seeds: int, experiment: Path) -> Parser:
    """The parser of a command that takes two ways of training an experiment in turns."""
    parser = Parser(prog=f"python -m benchmarks.{prog}", description=description)
    parser.add_argument(
        "experiment", nargs="?", type=Path, default=experiment, help=f"by default experiments/{experiment.name}"
    )
    parser.add_argument("--seeds", type=checked(count), default=seeds)
    parser.add_argument("--steps", type=checked(count), help="fewer than the experiment's, for a quick look")
    parser.add_argument("--rounds", type=checked(count), default=3, help="turns of both ways")
    parser.add_argument("--out", type=Path, default=Path(f"{prog}.json"), help="where the raw seconds are written")
    return parser


def interruptible(command: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """The exit code of a command, or that of Ctrl-C; the workers are gone by then."""
    try:
        return command(words)
    except KeyboardInterrupt:
        print("interrupted; rows that were done are in the file", file=sys.stderr)
        return 128 + signal.SIGINT


def checked(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """For `type=` of an argument: what is wrong, in the words of an InputError."""

    def read_or_complain(text: str) -> Value:
        try:
            return read(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_or_complain


def names(text: str, known: Iterable[str], what: str) -> list[str]:
    """Words between commas, each one of those that are known; "none" is no words."""
    words = [word.strip() for word in text.split(",") if word.strip() not in ("", "none")]
    known = list(known)
    for word in words:
        if word not in known:
            hint = did_you_mean(word, known) or f"; there are {', '.join(known)}"
            raise InputError(f"there is no {what} {word!r}{hint}")
    return words


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"it must be a whole number of at least 1, not {text!r}")
    return int(text)


def check_writable(argument: str, path: Path) -> None:
    """Raises InputError where no file can be written, before anything is measured."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{argument} {path} must be a file in a folder that exists")


def present(wanted: Sequence[str], *, insist: bool) -> list[str]:
    """Those contenders that are installed. The rest are an error where they were asked for by name, else a note."""
    missing = [name for name in wanted if not installed(name)]
    if missing:
        said = f"not installed: {', '.join(missing)}; pip install -e '.[bench]'"
        if insist:
            raise InputError(said)
        print(said, file=sys.stderr)
    return [name for name in wanted if name not in missing]


def present_floors() -> list[str]:
    """The libraries that can measure the machine's rates."""
    packages = {"floor-pytorch": "pytorch", "floor-jax": "charlstm"}
    return [name for name in FLOORS if installed(packages[name])]
