"""The loss of a text, of which every character is predicted once, and of each of many lines, whose first is given.

Of documents the first is predicted too, after a `newline`, as in `reader`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from charlstm.analysis.reader import (
    Placed,
    compiled_nats,
    compiled_read,
    keep_rows,
    place,
    read_all,
    read_windows,
    windows,
)
from charlstm.analysis.settings import under_settings
from charlstm.core.loss import bits
from charlstm.core.network import Model, Params

WARMUP = 512  # characters that a row reads before the first one it predicts, when a text is cut into several rows
MAX_ROWS = 64
SCORED_ROWS = 32  # lines side by side, always in one program, so that no line's score depends on those beside it
SCORED_WINDOW = 64  # characters of them that a compiled call reads, T


class Evaluation(NamedTuple):
    """A mean over every character of a text: nats per character, and how many there are."""

    loss: float
    characters: int

    @property
    def bits_per_char(self) -> float:
        return bits(self.loss)


def default_rows(characters: int) -> int:
    """As many rows as keep the warm-up under a quarter of the work."""
    return int(np.clip(characters // (4 * WARMUP), 1, MAX_ROWS))


@under_settings
def evaluate(
    model: Model,
    params: Params,
    ids: np.ndarray,
    *,
    rows: int | None = None,
    window: int = 128,
    newline: int | None = None,
) -> Evaluation:
    """The mean loss over a text, with no dropout.

    With one row the loss is a function of the text and the parameters alone. More rows run side by side and are faster;
    each reads the `WARMUP` characters before its part first, which moves the mean by less than 1e-3 nats for a model
    that forgets what lies further back, as trained ones do and a chaotic vanilla RNN does not. Devices share the rows.

    Args:
        model, params: what predicts.
        ids: [N] the text.
        rows: parts of the text that run side by side, fewer where one would be shorter than its warm-up.
        window: characters a compiled call reads, T; it changes speed and memory, not the loss.
        newline: the id that ends each of the text's documents, so that the loss is that of each of them alone; None
            where the text is one.
    """
    characters = len(ids)
    if characters == 0:
        return Evaluation(float("nan"), 0)
    (placed, params, carry, sharding), starts, length = warmed_rows(model, params, ids, rows, window, newline)
    targets, counted = rows_of(ids, starts, length)
    predict = partial(compiled_nats(placed), params, newline=newline)
    predictions = read_windows(predict, windows(targets, window), carry, sharding)
    total = 0.0
    for (losses, _), inside in zip(predictions, windows(counted, window), strict=True):
        total += float(np.asarray(losses, np.float64)[inside].sum())
    return Evaluation(total / characters, characters)


def evaluate_cold(model: Model, params: Params, ids: np.ndarray, length: int) -> Evaluation:
    """The mean loss over a text in windows of `length` characters, each read from the zero carry.

    So models without a state are scored: a window's first character is given, and its last one predicts the first of
    the next. The text's own first character is not predicted.
    """
    lines = [ids[start : start + length + 1] for start in range(0, len(ids) - 1, length)]
    losses = np.concatenate([np.zeros(0), *character_nats(model, params, lines)])
    return Evaluation(float(losses.mean()) if len(losses) else float("nan"), len(losses))


def warmed_rows(
    model: Model, params: Params, ids: np.ndarray, rows: int | None, window: int, newline: int | None
) -> tuple[Placed, np.ndarray, int]:
    """A text cut into rows, as `evaluate` says: the carry before each, where each starts, [R], and their length."""
    characters = len(ids)
    rows = default_rows(characters) if rows is None else min(rows, max(characters // WARMUP, 1))
    length = -(-characters // rows)
    rows = -(-characters // length)  # ceilings can leave whole rows empty
    rows += -rows % min(rows, jax.local_device_count())  # rows past the text's end, so that all devices have as many
    starts = np.arange(rows) * length
    placed = place(model, params, rows, newline)
    if rows > 1:
        warm = min(WARMUP, length)
        before, _ = rows_of(ids, starts - warm, warm)
        read = partial(compiled_read(placed.model), placed.params, newline=newline)
        carry = read_all(read, windows(before, window), placed.carry, placed.rows)
        # Nothing stands before the first row.
        placed = placed._replace(carry=keep_rows(carry, np.arange(rows) > 0, placed.carry))
    return placed, starts, length


def rows_of(ids: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """[R, length] ids from each start on, and which of them lie inside the text."""
    at = starts[:, None] + np.arange(length)
    inside = (at >= 0) & (at < len(ids))
    return ids[np.clip(at, 0, len(ids) - 1)], inside


class Score(NamedTuple):
    """Of one line: -log of the probability of its scored characters, and how many those are."""

    nats: float
    characters: int

    @property
    def bits(self) -> float:
        return bits(self.nats)

    @property
    def nats_per_char(self) -> float:
        """Their quotient; 0 for a line without scored characters."""
        return self.nats / max(self.characters, 1)

    @property
    def bits_per_char(self) -> float:
        return bits(self.nats_per_char)

    @classmethod
    def of(cls, nats: np.ndarray) -> "Score":
        """The score of a line whose scored characters have so many nats each, [N]."""
        return cls(float(nats.sum()), len(nats))


def score(model: Model, params: Params, lines: Sequence[np.ndarray], newline: int | None = None) -> list[Score]:
    """Scores lines, [N] ids each, with no dropout: sums of `character_nats`."""
    return [Score.of(each) for each in character_nats(model, params, lines, newline)]


def character_nats(
    model: Model, params: Params, lines: Sequence[np.ndarray], newline: int | None = None
) -> list[np.ndarray]:
    """The nats of the scored characters of each line: -log of the probability after those before it, float64.

    Args:
        model, params: what predicts.
        lines: [N] ids each; a line's nats do not depend on the lines beside it.
        newline: the id that is read before each line where lines are documents, so that all [N] characters are scored.
            With None the first is given, as nothing stands before it: [N - 1] are scored.
    """
    found = all_nats(model, params, lines, newline)
    return found if newline is not None else [each[1:] for each in found]


@under_settings
def all_nats(model: Model, params: Params, lines: Sequence[np.ndarray], newline: int | None = None) -> list[np.ndarray]:
    """The nats of every character of each line, [N] float64, the first from the zero carry or after a `newline`."""
    found = [np.zeros(len(line)) for line in lines]
    by_length = sorted(range(len(lines)), key=lambda number: len(lines[number]))
    start = place(model, params, SCORED_ROWS, newline)
    predict = partial(compiled_nats(start.model), start.params, newline=newline)
    for at in range(0, len(lines), SCORED_ROWS):
        block = by_length[at : at + SCORED_ROWS]
        columns = _windows([lines[number] for number in block])
        for place_of, (losses, _) in enumerate(read_windows(predict, columns, start.carry, start.rows)):
            wide = np.asarray(losses, np.float64)
            for row, number in enumerate(block):
                part = found[number][place_of * SCORED_WINDOW :][:SCORED_WINDOW]
                part[:] = wide[row, : len(part)]
    return found


def _windows(lines: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """[SCORED_ROWS, SCORED_WINDOW] ids of up to SCORED_ROWS lines at a time, with 0 where a line has ended."""
    for start in range(0, max(map(len, lines)), SCORED_WINDOW):
        window = np.zeros((SCORED_ROWS, SCORED_WINDOW), np.int32)
        for row, line in enumerate(lines):
            part = line[start : start + SCORED_WINDOW]
            window[row, : len(part)] = part
        yield window
