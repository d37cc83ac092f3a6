"""Ids -> contiguous [B, T] windows, at any cursor.

The ids are laid out as B rows, one below the other, and a window is the next T columns of all of them:

    row 0   ids[0 : T]   ids[T : 2T]         ...   ids[.. : R]
    row 1   ids[R : R+T] ids[R+T : R+2T]     ...   ids[.. : 2R]

so the carry of a row at the end of a window is its carry at the start of the next. Nothing is shuffled, and a
cursor, the count of windows since the start of training, is all that must be remembered to go on.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.support.errors import InputError


class Splits(NamedTuple):
    """Views of one row of ids, in the order of the text."""

    train: NDArray[Any]
    validation: NDArray[Any]
    test: NDArray[Any]


class Window(NamedTuple):
    """What one step reads and predicts."""

    inputs: NDArray[np.int32]
    """Ids, [B, T]."""
    targets: NDArray[np.int32]
    """The ids one character later, [B, T]."""
    starts_epoch: np.bool_
    """Whether the rows start anew, so that no carry belongs to them."""


def split(ids: NDArray[Any], validation_fraction: float, test_fraction: float, stretches: int = 1) -> Splits:
    """Cuts a row of ids, [N], in three: train, then validation, then test at the end.

    Each of several stretches is cut on its own; a split is then its parts of all stretches, in order, as a copy. Cuts
    of one stretch are views. Fractions are below 1 together; a cut falls on the nearest character.
    """
    stretches = min(stretches, max(len(ids), 1))  # more would be empty, and may be more than memory holds
    cuts = [_cut(part, validation_fraction, test_fraction) for part in np.array_split(ids, stretches)]
    return cuts[0] if stretches == 1 else Splits(*map(np.concatenate, zip(*cuts, strict=True)))


def _cut(ids: NDArray[Any], validation_fraction: float, test_fraction: float) -> Splits:
    validation = round(len(ids) * (1 - test_fraction - validation_fraction))
    test = round(len(ids) * (1 - test_fraction))
    return Splits(ids[:validation], ids[validation:test], ids[test:])


def check_length(characters: int, batch_size: int, seq_length: int) -> None:
    """Raises InputError if a text is too short to train on."""
    if characters < (needed := batch_size * seq_length + 1):
        raise InputError(
            f"the text to train on has {characters:,} characters, but {batch_size} rows of"
            f" {seq_length} need {needed:,}; lower --data.batch-size or --data.seq-length"
        )


@dataclass(frozen=True, eq=False)
class WindowedText:
    """Windows of B rows and T columns over ids [N], which are kept as they are and never copied as a whole.

    In an epoch every character but the first is predicted at most once, and those left out are fewer than B * T,
    all at the end.

    Raises:
        InputError: there are fewer than B * T + 1 ids, so not even one window.
    """

    ids: NDArray[Any]
    batch_size: int
    seq_length: int

    def __post_init__(self) -> None:
        check_length(len(self.ids), self.batch_size, self.seq_length)

    def __len__(self) -> int:
        """N, the characters to train on."""
        return len(self.ids)

    @property
    def windows_per_epoch(self) -> int:
        """(N - 1) // (B * T), at least 1; the 1 is the last target, which is no input."""
        return (len(self.ids) - 1) // (self.batch_size * self.seq_length)

    def windows(self, start: int = 0, steps: int | None = None) -> Iterator[Window]:
        """The windows from cursor `start` on: `steps` of them, or without end.

        Raises:
            ValueError: `start` is negative.
        """
        cursors = itertools.count(start) if steps is None else range(start, start + steps)
        return map(self.window, cursors)

    def window(self, cursor: int) -> Window:
        """The window that follows `cursor` windows since the start of training, at the same cost for any cursor.

        Raises:
            ValueError: `cursor` is negative.
        """
        if cursor < 0:
            raise ValueError(f"a cursor counts windows from 0, not {cursor}")
        column = cursor % self.windows_per_epoch * self.seq_length
        return Window(self._columns(column), self._columns(column, later=1), np.bool_(column == 0))

    def _columns(self, start: int, later: int = 0) -> NDArray[np.int32]:
        row_length = self.windows_per_epoch * self.seq_length
        rows = self.ids[later : later + self.batch_size * row_length].reshape(self.batch_size, row_length)
        return rows[:, start : start + self.seq_length].astype(np.int32)
