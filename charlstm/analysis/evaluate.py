"""The loss of a text, and of each of many lines: every character is predicted once, the first from the zero carry.

Of documents the first is predicted after a `newline`, as in `reader`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from charlstm.analysis.reader import compiled_nats, compiled_read, keep_rows, place, read_all, read_windows, windows
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
    rows = default_rows(characters) if rows is None else min(rows, max(characters // WARMUP, 1))
    length = -(-characters // rows)
    rows = -(-characters // length)  # ceilings can leave whole rows empty
    rows += -rows % min(rows, jax.local_device_count())  # rows past the text's end, so that all devices have as many
    starts = np.arange(rows) * length
    placed, params, first, sharding = place(model, params, rows, newline)
    carry = first
    if rows > 1:
        warm = min(WARMUP, length)
        before, _ = _rows(ids, starts - warm, warm)
        read = partial(compiled_read(placed), params, newline=newline)
        carry = read_all(read, windows(before, window), carry, sharding)
        carry = keep_rows(carry, np.arange(rows) > 0, first)  # nothing stands before the first row
    targets, counted = _rows(ids, starts, length)
    predict = partial(compiled_nats(placed), params, newline=newline)
    predictions = read_windows(predict, windows(targets, window), carry, sharding)
    total = 0.0
    for (losses, _), inside in zip(predictions, windows(counted, window), strict=True):
        total += float(np.asarray(losses, np.float64)[inside].sum())
    return Evaluation(total / characters, characters)


def _rows(ids: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """[R, length] ids from each start on, and which of them lie inside the text."""
    at = starts[:, None] + np.arange(length)
    inside = (at >= 0) & (at < len(ids))
    return ids[np.clip(at, 0, len(ids) - 1)], inside


class Score(NamedTuple):
    """Of one line: -log of its probability, the sum over its characters."""

    nats: float
    characters: int

    @property
    def nats_per_char(self) -> float:
        """Their quotient; 0 for an empty line."""
        return self.nats / max(self.characters, 1)


def score(model: Model, params: Params, lines: Sequence[np.ndarray], newline: int | None = None) -> list[Score]:
    """Scores lines, [N] ids each, with no dropout; a line's nats per character are its `evaluate(..., rows=1).loss`."""
    return [Score(float(each.sum()), len(each)) for each in character_nats(model, params, lines, newline)]


def character_nats(
    model: Model, params: Params, lines: Sequence[np.ndarray], newline: int | None = None
) -> list[np.ndarray]:
    """The nats of each character of each line, [N] float64: -log of its probability after those before it.

    With the id of a `newline`, each line is a document, and the nats of the first are those after a newline.
    """
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
