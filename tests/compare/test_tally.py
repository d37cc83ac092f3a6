"""A table and its statistics: means, intervals and differences, against their textbook formulas."""

import csv
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from charlstm.compare.results import RESULTS, Interval, ModelResult, Results, SeedResult, read
from charlstm.compare.statistics import difference, interval
from charlstm.report.tables import markdown, notes, write_tables
from charlstm.support.files import write_json

LOSSES = st.lists(st.floats(0.5, 4.0), min_size=2, max_size=8)
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Student's t at 97.5 % with n - 1 degrees of freedom, from a printed table."""


@given(LOSSES)
def test_an_interval_is_that_of_the_textbook(values: list[float]) -> None:
    found = interval(values)
    assert found is not None
    assert found.half is not None
    half = T_95[len(values)] * np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.half == pytest.approx(half, rel=1e-3, abs=1e-9)
    assert found.high == pytest.approx(found.mean + found.half)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert interval([1.5]) == Interval(mean=1.5, n=1)
    assert interval([]) is None


@given(LOSSES, LOSSES)
def test_the_interval_of_a_difference_is_welch_s(ours: list[float], theirs: list[float]) -> None:
    found = difference(ours, theirs)
    assert found is not None and found.half is not None
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-12)
    assert found.n == min(len(ours), len(theirs))
    if min(np.ptp(ours), np.ptp(theirs)) > 1e-3:  # SciPy warns of less
        wanted = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-9)


def test_the_order_of_seeds_changes_no_difference() -> None:
    one, other = difference([1.0, 2.0, 4.0], [3.0, 1.0]), difference([4.0, 1.0, 2.0], [1.0, 3.0])
    assert one and other
    assert asdict(one) == pytest.approx(asdict(other))


def test_a_difference_needs_both_models_and_an_interval_two_seeds_of_each() -> None:
    assert difference([], [1.0]) is None
    assert difference([1.0, 3.0], [1.5]) == Interval(mean=0.5, n=1)
    assert difference([2.0, 2.0], [1.5, 1.5]) == Interval(mean=0.5, low=0.5, high=0.5, n=2)


SPREAD = Interval(mean=1.25, low=1.2, high=1.3, n=5)
RUN = SeedResult(seed=0, run="rnn-1x8/seed-0", best_step=3, validation=1.0, test=1.0)
ROW = ModelResult(
    name="rnn-1x8",
    cell="rnn",
    num_layers=1,
    hidden_size=8,
    size=8,
    parameters=1234,
    operations=2.5e12,
    seconds=61.0,
    chars_per_second=123456.0,
    validation=SPREAD,
    test=SPREAD,
    seeds=(RUN,),
)


def table(*rows: ModelResult) -> Results:
    return Results(name="t", corpus="c", symbols="characters", vocabulary=9, confidence=0.95, models=rows)


def test_a_table_names_every_model_and_leaves_empty_columns_out() -> None:
    other = replace(ROW, name="lstm-1x8", difference=SPREAD, baseline="rnn-1x8", published=1.3)
    text = markdown(table(ROW, other))
    assert "| rnn-1x8 | 1.2500 ± 0.0500 | 1.8034 ± 0.0721 |" in text
    assert "| +1.2500 ± 0.0500 | 1.3 | −0.0500 |" in text
    assert "minus the baseline's (rnn-1x8), with Welch's interval" in text
    assert "published" not in markdown(table(ROW))
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_a_run_that_diverged_is_said_loudly() -> None:
    lost = table(replace(ROW, seeds=(replace(RUN, diverged_after=1234),), validation=None, test=None))
    assert any("DIVERGED with seed 0 after step 1,234" in note for note in notes(lost))
    header, _, row, *_ = (line.split(" | ") for line in markdown(lost).splitlines())
    assert row[header.index("seeds")] == row[header.index("seeds (diverged)")] == "1"


@pytest.mark.parametrize("rows", [(ROW,), (ROW, replace(ROW, reach=SPREAD, difference=SPREAD, baseline="a"))])
def test_a_table_is_read_back_from_its_files(rows: tuple[ModelResult, ...], tmp_path: Path) -> None:
    write_json(tmp_path / RESULTS, asdict(table(*rows)))
    assert read(tmp_path) == table(*rows)
    write_tables(table(*rows), tmp_path)
    lines = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [line["name"] for line in lines] == [row.name for row in rows]
    assert float(lines[0]["test_mean"]) == 1.25
    assert lines[0]["difference_mean"] == ""
