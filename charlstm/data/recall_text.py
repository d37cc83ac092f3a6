"""A generated text in which the name of a country decides the name of a language, a known distance later:

    I grew up in Egypt. We hid. He ran. He sat. I still speak Arabic.

The distance is the number of characters between the two names. The country and the sentences in between are drawn
independently, so a model that predicts the language's first letter better than chance has remembered the country across
the distance. Hochreiter and Schmidhuber (1997, experiment 2) compare networks on such a task, with symbols.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from charlstm.support.errors import InputError

CHARACTERS = 1_000_000
"""Length of each corpus."""
LANGUAGES = {
    "Brazil": "Portuguese",
    "Denmark": "Danish",
    "Egypt": "Arabic",
    "France": "French",
    "Italy": "Italian",
    "Japan": "Japanese",
    "Mexico": "Spanish",
    "Russia": "Russian",
}
"""Of each country. No two countries share a last letter, no two languages a first one."""
COUNTRIES = tuple(LANGUAGES)
SHORTEST = 16
"""The distance with no filler."""
FILLERS = (" He ran.", " We ran.", " He sat.", " We sat.", " He ate.", " We ate.", " He hid.", " We hid.")
"""Equally long, so that some number of them makes any distance of a corpus."""
_STEP = len(FILLERS[0])
_LONGEST = tuple(SHORTEST * 2**times for times in range(1, 9))
"""For each corpus; with SHORTEST alone it would lack the characters of the fillers."""
_PREFIX = "recall_"
NAMES = tuple(f"{_PREFIX}{longest}" for longest in _LONGEST)
PATTERN = f"{_PREFIX}N"
"""The name of all of them together."""
DESCRIPTION = (
    f"A country decides a language up to N = {_LONGEST[0]}, {_LONGEST[1]}, ... {_LONGEST[-1]} characters later"
)
CORPUS_SEED = 0

_Option = TypeVar("_Option")


class Sentence(NamedTuple):
    """One signal and its answer."""

    text: str
    decisive: int
    """The place in the text where the language's name begins."""
    country: str


def is_named(corpus: str) -> bool:
    """Whether `corpus` is the name of such a text, and not another name or a path.

    Raises:
        InputError: it looks like one, but there is none for its distance.
    """
    if re.fullmatch(rf"{_PREFIX}[^./\\]*", corpus) is None:
        return False
    if corpus not in NAMES:
        choices = ", ".join(map(str, _LONGEST))
        raise InputError(
            f"there is no corpus {corpus!r}; N in {PATTERN} is one of {choices} (a file is {'./' + corpus!r})"
        )
    return True


def distances(corpus: str) -> tuple[int, ...]:
    """The distances in a named corpus, equally often: SHORTEST, twice that, and so on up to the corpus's own.

    Raises:
        InputError: it is not the name of such a text.
    """
    if not is_named(corpus):
        raise InputError(f"{corpus!r} is none of the {PATTERN} corpora; `charlstm corpora` tells of them")
    return SHORTEST, *_LONGEST[: NAMES.index(corpus) + 1]


def text(corpus: str) -> str:
    """The `CHARACTERS` characters of a named corpus, ASCII; the last sentence may be cut.

    Raises:
        InputError: it is not the name of such a text.
    """
    pieces, length = [], 0
    for each in sentences(CORPUS_SEED, distances(corpus)):
        pieces.append(each.text)
        length += len(each.text)
        if length >= CHARACTERS:
            break
    return "".join(pieces)[:CHARACTERS]


def sentences(seed: int, distances: Sequence[int]) -> Iterator[Sentence]:
    """Endless sentences, a function of the arguments alone; countries, distances and fillers are equally likely.

    Raises:
        InputError: no sentence has one of the distances.
    """
    for distance in distances:
        if distance < SHORTEST or (distance - SHORTEST) % _STEP:
            raise InputError(f"distance {distance} is not {SHORTEST} or a multiple of {_STEP} above it")
    fillers = _drawn(FILLERS, seed, 2)
    for country, distance in zip(_drawn(COUNTRIES, seed, 0), _drawn(distances, seed, 1), strict=True):
        yield sentence(country, list(islice(fillers, (distance - SHORTEST) // _STEP)))


def sentence(country: str, fillers: Sequence[str]) -> Sentence:
    """The sentence of a country, at distance `SHORTEST` plus the length of its fillers."""
    before = f"I grew up in {country}.{''.join(fillers)} I still speak "
    return Sentence(f"{before}{LANGUAGES[country]}.\n", len(before), country)


def _drawn(options: Sequence[_Option], seed: int, stream: int) -> Iterator[_Option]:
    # NumPy promises only the raw numbers of a bit generator to be the same in all versions.
    bits = np.random.PCG64([seed, stream])
    while True:
        for number in bits.random_raw(1024).tolist():
            yield options[number % len(options)]
