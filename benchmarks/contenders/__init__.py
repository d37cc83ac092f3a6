"""The libraries that are compared: one file each, and each offers the same three kinds of work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from benchmarks.shapes import Size

Weights = list[np.ndarray]
"""Of each layer in turn the input kernel [D, 4H], the recurrent kernel [H, 4H] and the bias [4H], with the gates in the
order i, f, g, o; then the head's kernel [H, V] and bias [V]. Every library's parameters can be brought to this form."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "charlstm": ("charlstm",),
    "flax-scan": ("flax",),
    "flax-rnn": ("flax",),
    "haiku": ("haiku",),
    "keras": ("keras",),
    "pytorch": ("torch",),
}
"""Contenders, and what each must be able to import."""
BASELINE = "pytorch"
"""Whom the others are compared with."""
JAX_LIBRARIES = [name for name in PACKAGES if name != BASELINE]
VARIANTS: dict[str, dict[str, str]] = {
    "charlstm": {},
    "charlstm-fast": {"recurrence": "fast"},
    "charlstm-cudnn": {"recurrence": "cudnn"},
    "charlstm-plain": {"recurrence": "plain"},
}
"""charlstm as it is, and, for `benchmarks.card`, with other fields of its model."""


@dataclass(frozen=True)
class Work:
    """Something to be timed. A run of it ends when its results are there, not when they are queued."""

    amount: int
    """What a run gets done: characters that it trains on, scores or draws; of a floor, operations or bytes."""
    ways: Mapping[str, Callable[[], float]]
    """Runs of the same work by the ways that a library offers; the fastest counts.

    Each returns the mean loss in nats, or, where nothing has a loss, how much was done. What a way needs is made
    when it is first run.
    """
    weights: Mapping[str, Callable[[], Weights]] = field(default_factory=dict)
    """Of training, by the same ways: the weights as they are now."""


class Contender(Protocol):
    """A library with the model built: V one-hot symbols, L LSTM layers of H, a dense layer to V."""

    def train(self, size: Size, weights: Weights | None = None) -> Work:
        """Whole updates: loss, gradient, clipping, Adam, and the carry handed on.

        Args:
            size: what is trained.
            weights: what the model begins with, in place of the library's own initialization.
        """
        ...

    def evaluate(self, size: Size) -> Work:
        """The mean loss of a window, and the carry handed on."""
        ...

    def sample(self, size: Size, streams: int, length: int) -> Work:
        """Read the prime, and draw `length` characters in each of `streams` texts; B and T play no part."""
        ...


def installed(name: str) -> bool:
    """Whether a contender's library is there; imports none."""
    return all(find_spec(package) is not None for package in PACKAGES[name])


def make(name: str) -> Contender:
    """A contender by its name; imports its library and no other."""
    match name:
        case _ if name in VARIANTS:
            from benchmarks.contenders.charlstm_ import Charlstm

            return Charlstm(**VARIANTS[name])
        case "flax-scan":
            from benchmarks.contenders.flax_ import Flax

            return Flax(layer_by_layer=False)
        case "flax-rnn":
            from benchmarks.contenders.flax_ import Flax

            return Flax(layer_by_layer=True)
        case "haiku":
            from benchmarks.contenders.haiku_ import Haiku

            return Haiku()
        case "keras":
            from benchmarks.contenders.keras_ import Keras

            return Keras()
        case "pytorch":
            from benchmarks.contenders.pytorch_ import PyTorch

            return PyTorch()
    raise ValueError(f"there is no contender {name!r}")
