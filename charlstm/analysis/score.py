"""How likely a model finds each of many lines: every line on its own, from the zero carry."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from charlstm.analysis.reader import compiled_nats, place, read_windows
from charlstm.core.network import Model, Params

ROWS = 32  # lines side by side, always in one program, so that no line's score depends on those beside it
WINDOW = 64  # characters that a compiled call reads, T


class Score(NamedTuple):
    """Of one line: -log of its probability, the sum over its characters."""

    nats: float
    characters: int

    @property
    def nats_per_char(self) -> float:
        """Their quotient; 0 for an empty line."""
        return self.nats / max(self.characters, 1)


def score(model: Model, params: Params, lines: Sequence[np.ndarray]) -> list[Score]:
    """Scores lines, [N] ids each, with no dropout; a line's nats per character are its `evaluate(..., rows=1).loss`."""
    return [Score(float(each.sum()), len(each)) for each in character_nats(model, params, lines)]


def character_nats(model: Model, params: Params, lines: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The nats of each character of each line, [N] float64: -log of its probability after those before it."""
    found = [np.zeros(len(line)) for line in lines]
    by_length = sorted(range(len(lines)), key=lambda number: len(lines[number]))
    start = place(model, params, ROWS)
    predict = partial(compiled_nats(start.model), start.params)
    for at in range(0, len(lines), ROWS):
        block = by_length[at : at + ROWS]
        columns = _windows([lines[number] for number in block])
        for place_of, (losses, _) in enumerate(read_windows(predict, columns, start.carry, start.rows)):
            wide = np.asarray(losses, np.float64)
            for row, number in enumerate(block):
                part = found[number][place_of * WINDOW :][:WINDOW]
                part[:] = wide[row, : len(part)]
    return found


def _windows(lines: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """[ROWS, WINDOW] ids of up to ROWS lines at a time, with 0 where a line has ended."""
    for start in range(0, max(map(len, lines)), WINDOW):
        window = np.zeros((ROWS, WINDOW), np.int32)
        for row, line in enumerate(lines):
            part = line[start : start + WINDOW]
            window[row, : len(part)] = part
        yield window
