"""Turn metrics into curves: smoothed, thinned to what a screen can show, averaged over seeds."""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.runs.metrics import finite

MAX_POINTS = 400  # of a drawn curve; a screen has hardly more columns
WINDOW = 20  # training steps that a point of a training curve averages, at least

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """Loss [N] by step [N], of one run or averaged over seeds, with the seeds' minimum and maximum."""

    step: Floats
    loss: Floats
    low: Floats | None = None
    high: Floats | None = None


def points(records: Iterable[dict[str, Any]], *, validation: bool) -> Floats:
    """Steps and losses [N, 2] of the training or the validation records; a loss that is not finite is an InputError."""
    rows = [(float(row["step"]), finite(row.get("loss"))) for row in records if ("split" in row) == validation]
    return np.array(rows, float).reshape(-1, 2)


def smooth(rows: Floats, window: int) -> Floats:
    """Replaces each loss with the mean of the `window` losses that end there (of all, where there are fewer)."""
    if not (window := min(window, len(rows))):
        return rows
    return np.stack([rows[window - 1 :, 0], np.convolve(rows[:, 1], np.ones(window) / window, "valid")], 1)


def training(seeds: Sequence[Sequence[dict[str, Any]]]) -> Curve | None:
    """The smoothed training loss, given each seed's records; None where no step has a loss from every seed."""
    rows = [points(records, validation=False) for records in seeds]
    longest = max(map(len, rows), default=0)
    window = max(WINDOW, math.ceil(longest / MAX_POINTS))  # so that every loss counts in some point that is kept
    return _average([smooth(each, window) for each in rows])


def validation(seeds: Sequence[Sequence[dict[str, Any]]]) -> Curve | None:
    """The validation loss, given each seed's records; None where no step has a loss from every seed."""
    return _average([points(records, validation=True) for records in seeds])


def thin(length: int) -> NDArray[np.int64]:
    """At most MAX_POINTS evenly spread indices into `length` values, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, MAX_POINTS)).round().astype(np.int64))


def _average(seeds: Sequence[Floats]) -> Curve | None:
    common = reduce(np.intersect1d, [rows[:, 0] for rows in seeds]) if seeds else np.zeros(0)
    if not len(common):
        return None
    step = common[thin(len(common))]
    # Of several records of a step, the last counts.
    ordered = [rows[np.argsort(rows[:, 0], kind="stable")] for rows in seeds]
    losses = np.stack([rows[np.searchsorted(rows[:, 0], step, "right") - 1, 1] for rows in ordered])
    return Curve(step, losses[0]) if len(losses) == 1 else Curve(step, losses.mean(0), losses.min(0), losses.max(0))
