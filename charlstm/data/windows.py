"""Ids -> contiguous [B, T] windows, at any cursor.

The ids are laid out as B rows, one below the other, and a window is the next T columns of all of them:

    row 0   ids[0 : T]   ids[T : 2T]         ...   ids[.. : R]
    row 1   ids[R : R+T] ids[R+T : R+2T]     ...   ids[.. : 2R]

so the carry of a row at the end of a window is its carry at the start of the next. A cursor, the count of windows since
the start of training, is all that must be remembered to go on.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.data.mapped import forget
from charlstm.support.errors import InputError

_ALL = slice(None)


class Splits(NamedTuple):
    """Views of one row of ids, in the order of the text."""

    train: NDArray[Any]
    validation: NDArray[Any]
    test: NDArray[Any]


class Window(NamedTuple):
    """What one step reads and predicts: ids [B, T], and those one character later."""

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    starts_epoch: np.bool_
    """Whether the rows start anew, so that no carry belongs to them."""
    resets: NDArray[np.bool_] | None = None
    """[B, T], whether a row's carry is zero before it reads an input; None where no document begins inside a row."""


def split(ids: NDArray[Any], validation_fraction: float, test_fraction: float, stretches: int = 1) -> Splits:
    """Cuts a row of ids, [N], in three: train, then validation, then test at the end, at the nearest characters.

    Each of several stretches is cut on its own; a split is then its parts of all stretches, in order, as a copy. Cuts
    of one stretch are views. Fractions are below 1 together.
    """
    stretches = min(stretches, max(len(ids), 1))  # more would be empty, and may be more than memory holds
    ends = np.array([1 - test_fraction - validation_fraction, 1 - test_fraction])
    cuts = [np.split(part, np.rint(len(part) * ends).astype(int)) for part in np.array_split(ids, stretches)]
    return Splits(*(cuts[0] if stretches == 1 else map(np.concatenate, zip(*cuts, strict=True))))


def check_length(characters: int, batch_size: int, seq_length: int) -> None:
    """Raises InputError if a text is too short to train on."""
    if characters < (needed := batch_size * seq_length + 1):
        need = f"{batch_size} rows of {seq_length} need {needed:,}; lower --data.batch-size or --data.seq-length"
        raise InputError(f"the text to train on has {characters:,} characters, but {need}")


@dataclass(frozen=True, eq=False)
class WindowedText:
    """Windows of B rows and T columns over ids [N], which are never copied as a whole; InputError if there is not one.

    In an epoch every character but the first is predicted at most once; fewer than B * T are left out, all at the end.
    Of documents the first is predicted too: each of them is read from the zero carry, after the id `newline`, which is
    what ended the one before it. A row may begin inside of one.
    """

    ids: NDArray[Any]
    batch_size: int
    seq_length: int
    newline: int | None = None

    def __post_init__(self) -> None:
        check_length(len(self.ids), self.batch_size, self.seq_length)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def windows_per_epoch(self) -> int:
        """(N - 1) // (B * T), at least 1; the 1 is the last target, which is no input. N // (B * T) for documents."""
        return (len(self.ids) - (self.newline is None)) // (self.batch_size * self.seq_length)

    def windows(self, start: int = 0, steps: int | None = None, rows: slice = _ALL) -> Iterator[Window]:
        """The windows from cursor `start` on, or some of their rows: `steps` of them, or without end."""
        cursors = itertools.count(start) if steps is None else range(start, start + steps)
        return (self.window(cursor, rows) for cursor in cursors)

    def window(self, cursor: int, rows: slice = _ALL) -> Window:
        """The window that follows `cursor` windows since the start of training, at the same cost for any cursor.

        Where only some `rows` are asked for, nothing else of the text is read.
        """
        if cursor < 0:
            raise ValueError(f"a cursor counts windows from 0, not {cursor}")
        row_length = self.windows_per_epoch * self.seq_length
        column = cursor % self.windows_per_epoch * self.seq_length
        at = row_length * np.arange(self.batch_size)[rows, None] + np.arange(column, column + self.seq_length)
        if self.newline is None:
            found = Window(self._take(at), self._take(at + 1), np.bool_(column == 0))
        else:
            inputs = np.where(at > 0, self._take(at - 1), np.int32(self.newline))
            found = Window(inputs, self._take(at), np.bool_(column == 0), inputs == self.newline)
        forget(self.ids)
        return found

    def _take(self, at: NDArray[np.int64]) -> NDArray[np.int32]:
        return self.ids[at].astype(np.int32)
