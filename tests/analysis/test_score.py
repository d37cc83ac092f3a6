"""A line's score is its own: that of the line alone, whatever lies beside it."""

from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, random_ids, random_params, small_model

from charlstm.analysis import evaluate as module
from charlstm.analysis.evaluate import SCORED_ROWS, SCORED_WINDOW, all_nats, character_nats, evaluate, score

pytestmark = pytest.mark.slow

by_cell = pytest.mark.parametrize("cell", CELLS)
LENGTHS = st.lists(st.integers(0, 2 * SCORED_WINDOW + 3), min_size=1, max_size=2 * SCORED_ROWS)
MODEL = small_model("lstm", layers=2, dropout=0.5)
PARAMS = random_params(MODEL, 0)


def lines_of(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(MODEL.vocabulary_size, size=length, dtype=np.uint8) for length in lengths]


@by_cell
@pytest.mark.parametrize("recurrence", ["fast", "plain"])
def test_each_character_equals_numpy(cell: str, recurrence: Any):
    model = small_model(cell, layers=2, recurrence=recurrence)
    params, lines = (
        random_params(model, 0),
        lines_of([0, 1, SCORED_WINDOW - 1, SCORED_WINDOW, SCORED_WINDOW + 1, 3, *range(SCORED_ROWS)]),
    )
    found = all_nats(model, params, lines)
    assert [len(each) for each in found] == [len(line) for line in lines]
    for each, line in zip(found, lines, strict=True):
        if len(line):
            np.testing.assert_allclose(each, reference.text_nats(model, params, line), rtol=1e-5, atol=1e-6)


@settings(max_examples=10)
@given(LENGTHS)
def test_the_first_character_is_given_or_scored_after_another(lengths: list[int]):
    newline = 3
    lines = [np.where(line == newline, newline + 1, line) for line in lines_of(lengths)]
    whole = all_nats(MODEL, PARAMS, [np.concatenate([[newline], line]) for line in lines])
    for each, line in zip(all_nats(MODEL, PARAMS, lines)[:3], lines, strict=False):
        if len(line):
            assert each.mean() == pytest.approx(evaluate(MODEL, PARAMS, line, rows=1).loss, rel=1e-5)
    given_first, after = character_nats(MODEL, PARAMS, lines), character_nats(MODEL, PARAMS, lines, newline)
    for line, one, other, both in zip(lines, given_first, after, whole, strict=True):
        assert (len(one), len(other)) == (max(len(line) - 1, 0), len(line))
        np.testing.assert_allclose(other, both[1:], rtol=1e-5)
        np.testing.assert_array_equal(one, all_nats(MODEL, PARAMS, [line])[0][1:])
    for found, nats in ((score(MODEL, PARAMS, lines), given_first), (score(MODEL, PARAMS, lines, newline), after)):
        assert found == [(each.sum(), len(each)) for each in nats]


@settings(max_examples=10)
@given(LENGTHS, st.randoms(use_true_random=False))
def test_a_line_s_score_does_not_depend_on_the_lines_beside_it(lengths: list[int], random: Any):
    """To the bit: in any order, and alone."""
    lines = lines_of(lengths, 1)
    scores = score(MODEL, PARAMS, lines)
    order = list(range(len(lines)))
    random.shuffle(order)
    assert score(MODEL, PARAMS, [lines[number] for number in order]) == [scores[number] for number in order]
    assert score(MODEL, PARAMS, lines[-1:]) == scores[-1:]


def test_a_line_is_read_from_the_zero_carry_across_windows(monkeypatch: pytest.MonkeyPatch):
    lines = [random_ids(MODEL, 0, 150), random_ids(MODEL, 1, 20)]
    wanted = score(MODEL, PARAMS, lines)
    for window in (1, 7, 200):
        monkeypatch.setattr(module, "SCORED_WINDOW", window)
        for found, each in zip(score(MODEL, PARAMS, lines), wanted, strict=True):
            assert found.nats == pytest.approx(each.nats, rel=1e-6)


def test_no_lines_have_no_scores():
    assert score(MODEL, PARAMS, []) == []
    assert score(MODEL, PARAMS, [np.zeros(0, np.int32), np.zeros(1, np.int32)]) == [(0.0, 0), (0.0, 0)]
    empty = score(MODEL, PARAMS, [np.zeros(0, np.int32)])[0]
    assert (empty.nats_per_char, empty.bits_per_char, empty.bits) == (0, 0, 0)
