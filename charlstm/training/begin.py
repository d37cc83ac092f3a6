"""What a training begins with: a text in three parts, and a state, new or from the newest whole checkpoint."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from charlstm.cli import summary
from charlstm.cli.terminal import Reporter
from charlstm.config import Experiment
from charlstm.core.network import Model
from charlstm.core.sharding import Layout
from charlstm.core.step import TrainState, initial_state
from charlstm.data import corpora
from charlstm.data.vocabulary import Vocabulary
from charlstm.data.windows import Splits, refuse_too_few, split
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import Fingerprint


@dataclass(frozen=True)
class Text:
    """A corpus, read: its characters' ids in three parts."""

    vocabulary: Vocabulary
    splits: Splits
    fingerprint: Fingerprint

    @classmethod
    def read(cls, config: Experiment) -> "Text":
        """The text of a config.

        Raises:
            InputError: it is not there, it is no text, or it is shorter than one window.
        """
        data, digest = config.data, hashlib.sha256()
        pieces = corpora.pieces(data.corpus, data.symbols)
        vocabulary = Vocabulary.of_all(pieces)
        ids = encoded(vocabulary, pieces, digest)
        refuse_too_few(len(ids), data.batch_size, data.seq_length)  # before it is cut: there may be absurdly many rows
        splits = split(ids, data.validation_fraction, data.test_fraction, data.stretches)
        return cls(vocabulary, splits, Fingerprint(data.corpus, digest.hexdigest(), len(ids)))


def encoded(vocabulary: Vocabulary, pieces: Iterable[str], digest: Any = None) -> NDArray[Any]:
    """The ids of a text that comes in pieces, [N]: a large text is held once, as ids.

    Args:
        vocabulary: of the ids.
        pieces: of the text; they are gone through twice.
        digest: a hash of `hashlib` that is to become that of `corpora.fingerprint`.

    Raises:
        InputError: the text has a character that the vocabulary has not.
    """
    ids, end = np.empty(sum(map(len, pieces)), vocabulary.dtype), 0
    for piece in pieces if digest is None else corpora.hashed(pieces, digest):
        if end + len(piece) <= len(ids):  # or the file grows, which its pieces say when they end
            ids[end : end + len(piece)] = vocabulary.encode(piece)
        end += len(piece)
    return ids


def first_state(
    config: Experiment, model: Model, checkpoints: Checkpoints, layout: Layout, reporter: Reporter
) -> TrainState:
    """The state to go on from, not yet on the devices of a layout; what is odd about it is told.

    Raises:
        InputError: there are checkpoints, and none can be used.
    """
    if not checkpoints.steps():
        return initial_state(config, model)
    restored = checkpoints.restore_newest(jax.eval_shape(lambda: initial_state(config, model)))
    assert restored is not None  # there are checkpoints, and were none of them whole, it would have raised
    for note in restored.notes:
        reporter.line(note, "yellow")
    if restored.devices not in (None, layout.devices):
        reporter.line(summary.other_devices(restored.step, restored.devices, layout.devices), "yellow")
    return restored.state
