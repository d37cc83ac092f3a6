"""Curves keep what they show: means are means, ends stay, and no curve has more points than a screen."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.report import curves
from charlstm.report.curves import MAX_POINTS, WINDOW
from charlstm.support.errors import InputError

losses = st.lists(st.floats(0, 100), max_size=60)


def records(values: list[float]) -> list[dict[str, Any]]:
    """A training record a step, and after each third one a validation."""
    found: list[dict[str, Any]] = []
    for step, loss in enumerate(values, start=1):
        found.append({"step": step, "loss": loss})
        if step % 3 == 0:
            found.append({"step": step, "split": "validation", "loss": loss + 1})
    return found


@given(losses, st.integers(1, 80))
def test_each_smoothed_loss_is_the_mean_of_those_that_end_there(values: list[float], over: int) -> None:
    rows = curves.smooth(curves.points(records(values), validation=False), over)
    wide = min(over, len(values))
    expected = [(end, np.mean(values[end - wide : end])) for end in range(wide, len(values) + 1)] if values else []
    np.testing.assert_allclose(rows, np.array(expected).reshape(-1, 2), atol=1e-9)


@given(st.integers(0, 20_000))
def test_thinning_keeps_the_ends_and_the_order(length: int) -> None:
    kept = curves.thin(length)
    assert len(kept) == min(length, MAX_POINTS)
    assert (np.diff(kept) > 0).all()
    if length:
        assert (kept[0], kept[-1]) == (0, length - 1)
        assert np.diff(kept).max(initial=0) <= math.ceil(length / (MAX_POINTS - 1)) + 1


@given(st.lists(losses, min_size=1, max_size=4))
def test_seeds_become_a_mean_between_their_least_and_greatest_where_all_have_a_loss(seeds: list[list[float]]) -> None:
    curve = curves.validation([records(values) for values in seeds])
    shortest = min(map(len, seeds))
    if shortest < 3:
        assert curve is None
        return
    assert curve is not None
    steps = range(3, shortest + 1, 3)
    table = np.array([[values[step - 1] + 1 for step in steps] for values in seeds])
    np.testing.assert_array_equal(curve.step, steps)
    np.testing.assert_allclose(curve.loss, table.mean(0))
    if len(seeds) == 1:
        assert curve.low is curve.high is None
    else:
        np.testing.assert_array_equal(curve.low, table.min(0))
        np.testing.assert_array_equal(curve.high, table.max(0))


@pytest.mark.parametrize("steps", [1, 19, 20, 500, 3 * MAX_POINTS * WINDOW])
def test_a_long_training_leaves_no_loss_out(steps: int) -> None:
    """A single bad step is in the mean of some point, however much is thinned away."""
    for bad in {1, steps // 2 + 1, steps}:
        values = [1.0] * steps
        values[bad - 1] = 1000.0
        curve = curves.training([records(values)])
        assert curve is not None
        assert len(curve.step) <= MAX_POINTS
        assert curve.loss.max() > 1


@pytest.mark.parametrize("loss", ["<b>", None, True, [1], float("inf"), 10**400])
def test_a_loss_that_is_not_a_number_is_an_error(loss: object) -> None:
    with pytest.raises(InputError, match="where a finite number belongs"):
        curves.training([[{"step": 1, "loss": loss}]])
