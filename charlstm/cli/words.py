"""What can be told of a command's words before they are parsed, which needs the config that they are typed over."""

import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from charlstm.support.errors import InputError

_SWITCHES = ("--allow-change", "--help")
"""The options of train that take no value."""


def option_of(word: str) -> str:
    """The option in a word such as --run_dir=DIR."""
    return word.split("=", 1)[0].replace("_", "-")


def positional(words: Sequence[str]) -> str | None:
    """The experiment among a train command's words."""
    for before, word in pairwise(["", *words]):
        is_value = before.startswith("--") and "=" not in before and option_of(before) not in _SWITCHES
        if not is_value and not word.startswith("-"):
            return word
    return None


def value_of(words: Sequence[str], option: str) -> str | None:
    """The value of an option, the last where it stands twice; None without it."""
    found = None
    for word, after in pairwise([*words, ""]):
        if word.startswith("--") and option_of(word) == option:
            found = word.partition("=")[2] if "=" in word else after
    return found


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
