"""Records of metrics become curves: smoothed, thinned, and over several seeds a mean with a band."""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.runs.metrics import finite

POINTS = 400
"""More than these of a curve are not drawn: a screen has hardly more columns."""
SMOOTHED_OVER = 20
"""Training steps."""

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """Loss against step, each [N]: of one run, or the mean of several with their least and greatest."""

    step: Floats
    loss: Floats
    low: Floats | None = None
    high: Floats | None = None


def points(records: Iterable[dict[str, Any]], *, validation: bool) -> Floats:
    """[N, 2]: step and loss of the training records, or of those of the validation split.

    Raises:
        InputError: a loss is no finite number.
    """
    rows = [(float(row["step"]), finite(row.get("loss"))) for row in records if ("split" in row) == validation]
    return np.array(rows, float).reshape(-1, 2)


def smoothed(rows: Floats, over: int) -> Floats:
    """[N - over + 1, 2]: each loss is the mean of the `over` that end there; over fewer where there are fewer."""
    over = min(over, len(rows))
    if over == 0:
        return rows
    return np.stack([rows[over - 1 :, 0], np.convolve(rows[:, 1], np.ones(over) / over, "valid")], 1)


def training(seeds: Sequence[Sequence[dict[str, Any]]]) -> Curve | None:
    """The smoothed training loss of a model's seeds, given the records of each; None where there is none."""
    rows = [points(records, validation=False) for records in seeds]
    longest = max(map(len, rows), default=0)
    over = max(SMOOTHED_OVER, math.ceil(longest / POINTS))  # what is thinned away is in the mean at least
    return _together([smoothed(each, over) for each in rows])


def validation(seeds: Sequence[Sequence[dict[str, Any]]]) -> Curve | None:
    """The validation losses of a model's seeds, given the records of each; None where there is none."""
    return _together([points(records, validation=True) for records in seeds])


def thinned(length: int) -> NDArray[np.int64]:
    """Places of at most POINTS of `length` values, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, POINTS)).round().astype(np.int64))


def _together(seeds: Sequence[Floats]) -> Curve | None:
    """The mean at the steps that all seeds have."""
    common = reduce(np.intersect1d, [rows[:, 0] for rows in seeds]) if seeds else np.zeros(0)
    if not len(common):
        return None
    step = common[thinned(len(common))]
    # The last record of a step counts.
    losses = np.stack([rows[np.searchsorted(rows[:, 0], step, "right") - 1, 1] for rows in map(_sorted, seeds)])
    if len(losses) == 1:
        return Curve(step, losses[0])
    return Curve(step, losses.mean(0), losses.min(0), losses.max(0))


def _sorted(rows: Floats) -> Floats:
    return rows[np.argsort(rows[:, 0], kind="stable")]
