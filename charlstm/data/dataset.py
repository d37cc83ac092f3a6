"""A text, read: its vocabulary, the ids of its three splits, and which text it was."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as pydantic_dataclass

from charlstm.config import DataConfig
from charlstm.data import corpora
from charlstm.data.mapped import map_ids
from charlstm.data.vocabulary import Vocabulary
from charlstm.data.windows import WindowedText, check_length, split
from charlstm.support.schema import STRICT, Text, Whole

_SAMPLE = 64
"""Characters at the end of each piece of a text by which a file of its ids is checked."""


@pydantic_dataclass(frozen=True, config=STRICT)
class Fingerprint:
    """Which text it is: what it is called, the SHA-256 of its UTF-8, and how many characters it has."""

    corpus: Text
    sha256: Text
    characters: Whole

    @classmethod
    def of(cls, corpus: str, text: str) -> "Fingerprint":
        """The fingerprint of a text as `corpora.load` gives it."""
        return cls(corpus, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), len(text))

    @classmethod
    def read(cls, config: DataConfig) -> "Fingerprint":
        """The fingerprint of a config's text; InputError if it is not there, or is not text."""
        digest, ends = hashlib.sha256(), list[tuple[int, str]]()
        deque(_hashed(_pieces(config), digest, ends), maxlen=0)
        return cls(config.corpus, digest.hexdigest(), ends[-1][0])

    def is_of(self, other: "Fingerprint") -> bool:
        """Whether both are of one text, whatever it is called."""
        return (self.sha256, self.characters) == (other.sha256, other.characters)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A corpus as ids, cut in three."""

    vocabulary: Vocabulary
    train: WindowedText
    validation: NDArray[Any]  # ids that choose between checkpoints
    test: NDArray[Any]  # ids for the number that is reported
    fingerprint: Fingerprint
    config: DataConfig

    @classmethod
    def read(cls, config: DataConfig, tell: Callable[[str], object] = lambda line: None) -> "Dataset":
        """The text of a config; InputError if it is not there, is not text, or is shorter than one window.

        `tell` gets a line before ids are written to the disk.
        """
        digest, ends, pieces = hashlib.sha256(), list[tuple[int, str]](), _pieces(config)
        vocabulary = Vocabulary.of(_hashed(pieces, digest, ends))
        length = ends[-1][0]
        check_length(length, config.batch_size, config.seq_length)  # before it is cut in absurdly many stretches
        if config.cache:
            samples = ((end - len(tail), vocabulary.encode(tail)) for end, tail in ends)
            ids = map_ids(digest.hexdigest(), length, vocabulary.dtype, map(vocabulary.encode, pieces), samples, tell)
        else:
            ids = encode_pieces(vocabulary, pieces)
        train, validation, test = split(ids, config.validation_fraction, config.test_fraction, config.stretches)
        newline = vocabulary.newline(config.documents)
        windows = WindowedText(train, config.batch_size, config.seq_length, newline)
        fingerprint = Fingerprint(config.corpus, digest.hexdigest(), length)
        return cls(vocabulary, windows, validation, test, fingerprint, config)

    def ids(self, split: str) -> NDArray[Any]:
        """The ids of "train", "validation" or "test", [N]."""
        return self.train.ids if split == "train" else getattr(self, split)


def read_text(corpus: str | os.PathLike[str], **fields: Any) -> Dataset:
    """Reads text files or a named corpus, to train on.

    Args:
        corpus: the path of a UTF-8 text file, a folder of them or a glob, or a name that `charlstm corpora` lists.
        **fields: of `DataConfig`, such as ``batch_size=32`` (B) and ``seq_length=64`` (T).

    Returns:
        The vocabulary (``.vocabulary.size`` is V), ``.train`` with its endless ``.windows()`` of [B, T], and the ids
        ``.validation`` and ``.test``.

    Raises:
        InputError: there is no such text, it is not text, or it is shorter than one window.
        ValueError: there is no such field, or its value is out of bounds.
    """
    return Dataset.read(DataConfig(corpus=corpora.resolve(os.fspath(corpus)), **fields))


def encode_pieces(vocabulary: Vocabulary, pieces: Iterable[str], *, skip_unknown: bool = False) -> NDArray[Any]:
    """The ids of a text in pieces, [N], which are iterated over twice: a large text is held once, as ids."""
    ids, end = np.empty(sum(map(len, pieces)), vocabulary.dtype), 0
    for piece in pieces:
        found = vocabulary.encode(piece, skip_unknown=skip_unknown)
        if end + len(found) <= len(ids):  # or the file grows, which its pieces say when they end
            ids[end : end + len(found)] = found
        end += len(found)
    return ids[:end]


def _pieces(config: DataConfig) -> Iterable[str]:
    return corpora.pieces(config.corpus, config.symbols, config.separator, limited=not config.cache)


def _hashed(pieces: Iterable[str], digest: Any, ends: list[tuple[int, str]]) -> Iterator[str]:
    """The pieces of a text, each added to the hash of its UTF-8 as it passes; `ends` gets where it ends, and how."""
    length = 0
    for piece in pieces:
        digest.update(piece.encode("utf-8", "surrogatepass"))
        length += len(piece)
        ends.append((length, piece[-_SAMPLE:]))
        yield piece
