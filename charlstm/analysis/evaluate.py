"""The exact loss of a text: every character is predicted once, the first one from the zero carry."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from charlstm.analysis.reader import compiled, compiled_nats, keep_rows, place, read_all, read_windows, windows
from charlstm.core.loss import bits
from charlstm.core.network import Carry, Model, Params

WARMUP = 512  # characters that a row reads before the first one it predicts, when a text is cut into several rows
MAX_ROWS = 64


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
    model: Model, params: Params, ids: np.ndarray, *, rows: int | None = None, window: int = 128
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
    """
    characters = len(ids)
    if characters == 0:
        return Evaluation(float("nan"), 0)
    rows = default_rows(characters) if rows is None else min(rows, max(characters // WARMUP, 1))
    length = -(-characters // rows)
    rows = -(-characters // length)  # ceilings can leave whole rows empty
    rows += -rows % min(rows, jax.local_device_count())  # rows past the text's end, so that all devices have as many
    starts = np.arange(rows) * length
    placed, params, carry, sharding = place(model, params, rows)
    if rows > 1:
        warm = min(WARMUP, length)
        before, _ = _rows(ids, starts - warm, warm)
        carry = read_all(partial(_compiled_read(placed), params), windows(before, window), carry, sharding)
        carry = keep_rows(carry, np.arange(rows) > 0)  # nothing stands before the first row
    targets, counted = _rows(ids, starts, length)
    predictions = read_windows(partial(compiled_nats(placed), params), windows(targets, window), carry, sharding)
    total = 0.0
    for (losses, _), inside in zip(predictions, windows(counted, window), strict=True):
        total += float(np.asarray(losses, np.float64)[inside].sum())
    return Evaluation(total / characters, characters)


def _rows(ids: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """[R, length] ids from each start on, and which of them lie inside the text."""
    at = starts[:, None] + np.arange(length)
    inside = (at >= 0) & (at < len(ids))
    return ids[np.clip(at, 0, len(ids) - 1)], inside


@compiled
def _compiled_read(model: Model, params: Params, ids: Array, carry: Carry) -> tuple[None, Carry]:
    return None, model.apply(params, ids, carry)[1]
