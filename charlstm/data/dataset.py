"""A text, read: its vocabulary, the ids of its three splits, and which text it was."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.config import DataConfig
from charlstm.data import corpora
from charlstm.data.vocabulary import Vocabulary
from charlstm.data.windows import WindowedText, check_length, split


@dataclass(frozen=True)
class Fingerprint:
    """Which text it is: what it is called, the SHA-256 of its UTF-8, and how many characters it has."""

    corpus: str
    sha256: str
    characters: int

    @classmethod
    def of(cls, corpus: str, text: str) -> "Fingerprint":
        """The fingerprint of a text as `corpora.load` gives it."""
        return cls(corpus, corpora.fingerprint(text), len(text))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A corpus as ids, cut in three."""

    vocabulary: Vocabulary
    train: WindowedText
    """What is trained on; `train.windows()` iterates over it."""
    validation: NDArray[Any]
    """Ids that choose between checkpoints."""
    test: NDArray[Any]
    """Ids for the number that is reported."""
    fingerprint: Fingerprint
    config: DataConfig

    @classmethod
    def read(cls, config: DataConfig) -> "Dataset":
        """The text of a config.

        Raises:
            InputError: it is not there, it is not text, or it is shorter than one window.
        """
        digest = hashlib.sha256()
        pieces = corpora.pieces(config.corpus, config.symbols)
        vocabulary = Vocabulary.of_all(pieces)
        ids = encode_pieces(vocabulary, pieces, digest)
        check_length(len(ids), config.batch_size, config.seq_length)  # before it is cut in absurdly many stretches
        train, validation, test = split(ids, config.validation_fraction, config.test_fraction, config.stretches)
        windows = WindowedText(train, config.batch_size, config.seq_length)
        fingerprint = Fingerprint(config.corpus, digest.hexdigest(), len(ids))
        return cls(vocabulary, windows, validation, test, fingerprint, config)

    def ids(self, split: str) -> NDArray[Any]:
        """The ids of "train", "validation" or "test", [N]."""
        return self.train.ids if split == "train" else getattr(self, split)


def read_text(corpus: str | os.PathLike[str], **fields: Any) -> Dataset:
    """Reads a text file or a named corpus, to train on.

    Args:
        corpus: the path of a UTF-8 text file, or a name that `charlstm corpora` lists.
        **fields: of `DataConfig`, such as ``batch_size=32`` (B) and ``seq_length=64`` (T).

    Returns:
        The vocabulary (``.vocabulary.size`` is V), ``.train`` with its endless ``.windows()`` of [B, T], and the ids
        ``.validation`` and ``.test``.

    Raises:
        InputError: there is no such text, it is not text, it is shorter than one window, or a field is wrong.
    """
    return Dataset.read(DataConfig(corpus=corpora.resolve(os.fspath(corpus)), **fields))


def encode_pieces(vocabulary: Vocabulary, pieces: Iterable[str], digest: Any = None) -> NDArray[Any]:
    """The ids of a text that comes in pieces, [N]: a large text is held once, as ids.

    Args:
        vocabulary: of the ids.
        pieces: of the text; they are gone through twice.
        digest: a hash of `hashlib` that is to become that of `corpora.fingerprint`.

    Raises:
        InputError: the text has a character that the vocabulary lacks.
    """
    ids, end = np.empty(sum(map(len, pieces)), vocabulary.dtype), 0
    for piece in pieces if digest is None else corpora.hashed(pieces, digest):
        if end + len(piece) <= len(ids):  # or the file grows, which its pieces say when they end
            ids[end : end + len(piece)] = vocabulary.encode(piece)
        end += len(piece)
    return ids
