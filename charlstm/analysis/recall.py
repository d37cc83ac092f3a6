"""How far back a model remembers: its accuracy at a character that a name decides, a known distance before it.

Without a memory of that distance a reader is right one time in eight, whatever else it has learnt.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, islice
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from charlstm.analysis.reader import compiled, place, read_windows, windows
from charlstm.analysis.settings import under_settings
from charlstm.core.network import Carry, Model, Params
from charlstm.data import recall_text
from charlstm.data.vocabulary import Vocabulary, named

ROWS = 64  # texts that are read side by side
WARMUP = 2  # sentences at the start of each row that do not count
WINDOW = 128  # characters that a compiled call reads, T
INITIALS = tuple(language[0] for language in recall_text.LANGUAGES.values())  # one of them is right

# Rows of text, B of one length N, to the likeliest initial after each character: [B, N] places in `INITIALS`.
Reader = Callable[[Sequence[str]], NDArray[Any]]


class Recall(NamedTuple):
    """The accuracy at each distance, and of a guess; its standard error is √(accuracy (1 - accuracy) / sentences)."""

    distances: tuple[int, ...]
    accuracy: tuple[float, ...]
    chance: float
    sentences: int


def distances_of(corpus: str) -> tuple[int, ...]:
    """The distances in a `recall_N` corpus, ascending, and one twice as far; ValueError if it is not such a corpus."""
    trained = recall_text.distances(corpus)
    return *trained, 2 * trained[-1]


@under_settings
def accuracy(
    model: Model, params: Params, vocabulary: Vocabulary, distances: Sequence[int], *, sentences: int = 1024
) -> Recall:
    """`measure` of a model that was trained on a `recall_N` corpus, at `distances_of` it or at others."""
    return measure(as_reader(model, params, vocabulary), distances, sentences=sentences)


def measure(read: Reader, distances: Sequence[int], *, sentences: int = 1024) -> Recall:
    """Which of the languages' initials a reader finds likeliest, in sentences of each distance that no corpus has."""
    if sentences < 1:
        raise ValueError(f"sentences is {sentences}; it must be at least 1")
    right = tuple(_right(read, distance, sentences) for distance in distances)
    return Recall(tuple(distances), right, 1 / len(INITIALS), sentences)


def as_reader(model: Model, params: Params, vocabulary: Vocabulary) -> Reader:
    """A model as a reader, each row from the zero carry; ValueError if its vocabulary lacks characters of the texts."""
    every = "".join(recall_text.sentence(country, recall_text.FILLERS).text for country in recall_text.COUNTRIES)
    if lacking := vocabulary.unknown(every):
        what = ", ".join(map(named, lacking))
        raise ValueError(f"the model lacks {what}; measure one that was trained on a {recall_text.PATTERN} corpus")
    candidates = vocabulary.encode("".join(INITIALS)).astype(np.int32)

    def read(rows: Sequence[str]) -> NDArray[Any]:
        placed, on_devices, carry, sharding = place(model, params, len(rows))
        ids = np.stack([vocabulary.encode(row) for row in rows])
        padded = np.pad(ids, ((0, 0), (0, -ids.shape[1] % WINDOW)))  # one program reads all windows
        answer = partial(_answers(placed), on_devices, candidates)
        answers = [np.asarray(each) for each, _ in read_windows(answer, windows(padded, WINDOW), carry, sharding)]
        return np.concatenate(answers, 1)[:, : ids.shape[1]]

    return read


def _right(read: Reader, distance: int, count: int) -> float:
    """The fraction of `count` sentences of one distance whose language a reader predicts."""
    rows = min(ROWS, count)
    # The distance is the seed, so that errors are independent; no distance is the seed of the corpora.
    drawn = recall_text.sentences(distance, [distance])
    dealt = [list(islice(drawn, WARMUP + -(-count // rows))) for _ in range(rows)]
    texts = ["".join(each.text for each in row) for row in dealt]
    length = max(map(len, texts))
    found = []
    for answers, row in zip(read([text.ljust(length) for text in texts]), dealt, strict=True):
        starts = accumulate((len(each.text) for each in row), initial=0)
        for start, each in [*zip(starts, row, strict=False)][WARMUP:]:
            found.append(answers[start + each.decisive - 1] == recall_text.COUNTRIES.index(each.country))
    return int(np.sum(found[:count])) / count


@compiled
def _answers(model: Model, params: Params, candidates: Any, ids: Array, carry: Carry) -> tuple[Array, Carry]:
    hidden, carry = model.read(model.fuse(params), ids, carry)
    return jnp.argmax(model.head(params, hidden)[..., candidates], -1).T, carry
