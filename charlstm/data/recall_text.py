"""A generated text in which the name of a country decides the name of a language, a known distance later:

    I grew up in Egypt. We hid. He ran. He sat. I still speak Arabic.

The country and the sentences in between are drawn independently, so a model that predicts the language's first letter
better than chance remembers the country. Hochreiter and Schmidhuber (1997, experiment 2) test networks on such a task.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import numpy as np

from charlstm.support.errors import InputError

CHARACTERS = 1_000_000  # of each corpus
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
SHORTEST = 16  # the distance with no filler
FILLERS = (" He ran.", " We ran.", " He sat.", " We sat.", " He ate.", " We ate.", " He hid.", " We hid.")
_STEP = len(FILLERS[0])  # of all of them, so that some number of them makes any distance of a corpus
_LONGEST = tuple(SHORTEST * 2**times for times in range(1, 9))  # with SHORTEST alone a corpus would have no fillers
NAMES = tuple(f"recall_{longest}" for longest in _LONGEST)
PATTERN = "recall_N"
DESCRIPTION = (
    f"A country decides a language up to N = {SHORTEST * 2}, {SHORTEST * 4}, ... {_LONGEST[-1]} characters later"
)

_Option = TypeVar("_Option")


class Sentence(NamedTuple):
    """One signal and its answer."""

    text: str
    decisive: int  # the place in the text where the language's name begins
    country: str


def is_named(corpus: str) -> bool:
    """Whether `corpus` is the name of such a text; InputError if it is like one, but there is none for its distance."""
    if corpus not in NAMES and re.fullmatch(r"recall_[^./\\]*", corpus):
        choices = f"{', '.join(map(str, _LONGEST))} (a file is {'./' + corpus!r})"
        raise InputError(f"there is no corpus {corpus!r}; N in {PATTERN} is one of {choices}")
    return corpus in NAMES


def distances(corpus: str) -> tuple[int, ...]:
    """The distances in a named corpus, equally often: SHORTEST, twice that, and so on up to the corpus's own."""
    if not is_named(corpus):
        raise InputError(f"{corpus!r} is none of the {PATTERN} corpora; `charlstm corpora` tells of them")
    return SHORTEST, *_LONGEST[: NAMES.index(corpus) + 1]


def text(corpus: str) -> str:
    """The `CHARACTERS` characters of a named corpus, ASCII; the last sentence may be cut."""
    every = (each.text for each in sentences(0, distances(corpus)))
    return "".join(islice(chain.from_iterable(every), CHARACTERS))


def sentences(seed: int, distances: Sequence[int]) -> Iterator[Sentence]:
    """Endless sentences, a function of the arguments alone; countries, distances and fillers are equally likely."""
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
    bits = np.random.PCG64([seed, stream])  # of which NumPy promises the raw numbers alone in all versions
    while True:
        for number in bits.random_raw(1024).tolist():
            yield options[number % len(options)]
