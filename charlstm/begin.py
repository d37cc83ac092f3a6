"""What a training begins with: a text in three parts, and a state, new or from the newest whole checkpoint."""

from dataclasses import dataclass
from typing import Any

import jax
from numpy.typing import NDArray

from charlstm import corpora, summary
from charlstm.batches import Splits, split
from charlstm.checkpoint import Checkpoints
from charlstm.config import DataConfig, Experiment
from charlstm.model import Model
from charlstm.runs import Fingerprint
from charlstm.sharding import Layout
from charlstm.step import TrainState, initial_state
from charlstm.terminal import Reporter
from charlstm.vocabulary import Vocabulary


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
            InputError: it is not there, or it is no text.
        """
        text = corpora.load(config.data.corpus, config.data.symbols)
        vocabulary = Vocabulary.of(text)
        return cls(vocabulary, split_as(config.data, vocabulary.encode(text)), Fingerprint.of(config.data.corpus, text))


def split_as(data: DataConfig, ids: NDArray[Any]) -> Splits:
    """A text's ids in the three parts that a config asks for."""
    return split(ids, data.validation_fraction, data.test_fraction, data.stretches)


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
