"""What a program can tell of each character of a text: its kind, its word, and features that a unit may have learnt.

All but the speaker's name and quotes by apostrophes follow from the text up to the character, or the one after it.
Bytes are read as Latin-1.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = ("letter", "capital", "digit", "punctuation", "blank", "newline")
"""`punctuation` is whatever is none of the others."""
_BLANK_LINE = r"\n[ \t]*\n"
_WORD = re.compile(r"\w+(?:['’]\w+)*")
# An apostrophe opens only where no word is before it, and closes in its line. A blank line ends what was left open.
_QUOTED = re.compile(
    r'"""[\s\S]*?(?:"""|\Z)|'
    r"'''[\s\S]*?(?:'''|\Z)|"
    r'"(?:\\.|[^"\\\n]|\\?\n(?![ \t]*\n))*"?|'
    r"“(?:[^”\n]|\n(?![ \t]*\n))*”?|"
    r"(?:(?<!\w)|(?<=\b[bBrRfFuU]))'(?:\\.|[^'\\\n])*'(?!\w)"
)
_SENTENCE = re.compile(rf"(?:\A|[.!?][\"'”’)\]]*\s|{_BLANK_LINE})\W*?(\w)")
_SPEAKER = re.compile(r"(?:\A|\n[ \t]*\n)([A-Z][^\n:]{0,40}:)(?=\n)")


class Words(NamedTuple):
    """The words of a text: letters, digits, underscores, and apostrophes between them."""

    place: NDArray[np.int64]
    """[N], of a character in its word, from 1; 0 outside of words."""
    number: NDArray[np.int64]
    """[N], which of `texts` it belongs to; -1 outside of words."""
    texts: list[str]


def features(text: str) -> dict[str, NDArray[Any]]:
    """The features by name, [N] numbers each: what holds once a character is read, 1 or 0 unless it says otherwise."""
    place = words(text).place
    newlines = _each(text, "\n".__eq__)
    at = np.arange(len(text))
    return {
        "inside quotes": _inside(text, _quoted(text)),
        "inside brackets": np.minimum(_depth(text, "([", ")]", reset=True), 1),
        "depth of braces": _depth(text, "{", "}", reset=False),  # how many are open
        "position in the line": at - np.maximum.accumulate(np.where(newlines, at, -1)),  # characters since the newline
        "indentation": _indentation(text),  # blanks at the start of the line so far
        "position in the word": place,
        "start of a word": place == 1,
        "start of a sentence": _inside(text, (found.span(1) for found in _SENTENCE.finditer(text))),
        "upper case": _each(text, str.isupper),
        "digit": _each(text, str.isdigit),
        "speaker's name": _inside(text, (found.span(1) for found in _SPEAKER.finditer(text))),
    }


def kinds(text: str) -> NDArray[Any]:
    """The kind of each character, [N] places in `KINDS`."""
    found = np.full(len(text), KINDS.index("punctuation"))
    tests = {"blank": str.isspace, "letter": str.isalpha, "capital": str.isupper, "digit": str.isdigit}
    for kind, test in (tests | {"newline": "\n".__eq__}).items():
        found[_each(text, test)] = KINDS.index(kind)
    return found


def word_texts(text: str) -> list[str]:
    """`Words.texts`, of a text that may be long."""
    return _WORD.findall(text)


def words(text: str) -> Words:
    """The words, and where they are."""
    place, number, texts = np.zeros(len(text), np.int64), np.full(len(text), -1), []
    for found in _WORD.finditer(text):
        start, end = found.span()
        place[start:end] = np.arange(1, end - start + 1)
        number[start:end] = len(texts)
        texts.append(found[0])
    return Words(place, number, texts)


def _each(text: str, test: Any) -> NDArray[Any]:
    return np.fromiter(map(test, text), bool, len(text))


def _inside(text: str, spans: Iterable[tuple[int, int]]) -> NDArray[Any]:
    found = np.zeros(len(text), bool)
    for start, end in spans:
        found[start:end] = True
    return found


def _quoted(text: str) -> Iterator[tuple[int, int]]:
    """From each opening quote up to the last character of what closes it, which is outside again."""
    for found in _QUOTED.finditer(text):
        closed = len(found[0]) > 1 and found[0][-1] in "\"'”"
        yield found.start(), found.end() - closed


def _depth(text: str, opening: str, closing: str, *, reset: bool) -> NDArray[Any]:
    """How many brackets are open; a closing one too many counts for nothing, and a blank line may close all."""
    found, depth, last = np.zeros(len(text), np.int64), 0, 0
    for event in re.finditer(rf"[{re.escape(opening + closing)}]{'|' + _BLANK_LINE if reset else ''}", text):
        found[last : event.start()] = depth
        last = event.start()
        if event[0] in opening:
            depth += 1
        else:
            depth = max(depth - 1, 0) if event[0] in closing else 0
    found[last:] = depth
    return found


def _indentation(text: str) -> NDArray[Any]:
    found, start = np.zeros(len(text), np.int64), 0
    for line in text.split("\n"):
        width = len(line) - len(line.lstrip(" \t"))
        found[start : start + len(line)] = np.minimum(np.arange(1, len(line) + 1), width)
        start += len(line) + 1
    return found
