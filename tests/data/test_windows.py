"""Law 2: rows continue across windows, and every character but the tail is predicted once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.data.windows import WindowedText, split
from charlstm.support.errors import InputError


@st.composite
def texts(draw: st.DrawFn) -> WindowedText:
    """Windows over ids that equal their own positions, so that a window says where it was cut."""
    batch_size, seq_length = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    length = draw(st.integers(batch_size * seq_length + 1, 400))
    return WindowedText(np.arange(length, dtype=np.uint16), batch_size, seq_length)


@given(texts())
def test_targets_are_inputs_one_character_later_across_edges_too(each: WindowedText):
    for cursor in range(2 * each.windows_per_epoch):
        inputs, targets, *_ = each.window(cursor)
        np.testing.assert_array_equal(targets, inputs + 1)


@given(texts())
def test_rows_continue_the_window_before(each: WindowedText):
    for cursor in range(each.windows_per_epoch - 1):
        np.testing.assert_array_equal(each.window(cursor + 1).inputs[:, 0], each.window(cursor).targets[:, -1])


@given(texts())
def test_every_character_is_predicted_once_but_the_tail(each: WindowedText):
    windows = [each.window(cursor) for cursor in range(each.windows_per_epoch)]
    predicted = np.sort(np.concatenate([window.targets.ravel() for window in windows]))
    np.testing.assert_array_equal(predicted, np.arange(1, len(predicted) + 1))
    left_out = len(each.ids) - 1 - len(predicted)
    assert 0 <= left_out < each.batch_size * each.seq_length


@given(texts(), st.integers(0, 10**12))
def test_any_cursor_depends_on_its_place_in_the_epoch_alone(each: WindowedText, cursor: int):
    window, again = each.window(cursor), each.window(cursor % each.windows_per_epoch)
    np.testing.assert_array_equal(window.inputs, again.inputs)
    assert bool(window.starts_epoch) == (cursor % each.windows_per_epoch == 0)


@given(texts(), st.integers(0, 50), st.integers(0, 6))
def test_rows_that_are_cut_apart_are_those_of_the_window(each: WindowedText, cursor: int, cut: int):
    """As processes share them."""
    whole = each.window(cursor)
    parts = [each.window(cursor, rows) for rows in (slice(cut), slice(cut, None))]
    for name in ("inputs", "targets"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(whole, name))
    assert {bool(part.starts_epoch) for part in parts} == {bool(whole.starts_epoch)}


@given(texts())
def test_window_has_the_shapes_and_types_that_a_step_is_compiled_for(each: WindowedText):
    window = each.window(0)
    assert window.inputs.shape == window.targets.shape == (each.batch_size, each.seq_length)
    assert window.inputs.dtype == window.targets.dtype == np.int32
    assert isinstance(window.starts_epoch, np.bool_)
    assert window.inputs.flags.c_contiguous and window.inputs.flags.owndata


def test_fault_of_the_book_last_target_is_the_windows_own_first_character():
    """The book shifts within a window, ``y[:, -1] = x[:, 0]``: one target in T is wrong."""
    each = WindowedText(np.arange(1001), batch_size=10, seq_length=10)
    for cursor in range(each.windows_per_epoch):
        inputs, targets, *_ = each.window(cursor)
        assert (targets[:, -1] != inputs[:, 0]).all()
        np.testing.assert_array_equal(targets[:, -1], inputs[:, -1] + 1)


@given(texts(), st.integers(0, 50), st.integers(0, 20))
def test_iterated_windows_are_those_of_their_cursors(each: WindowedText, start: int, steps: int):
    windows = list(each.windows(start, steps))
    assert len(windows) == steps
    for found, endless, cursor in zip(windows, each.windows(start), range(start, start + steps), strict=False):
        for window in (found, endless):
            assert window.resets is None
            assert all(map(np.array_equal, window[:3], each.window(cursor)[:3]))


def test_text_of_exactly_one_window():
    each = WindowedText(np.arange(13), batch_size=3, seq_length=4)
    assert each.windows_per_epoch == 1
    assert each.window(0).targets[-1, -1] == 12


def test_text_that_is_too_short_says_how_much_is_needed():
    with pytest.raises(InputError, match=r"12 characters.*need 13; lower --data\.batch-size or --data\.seq-length"):
        WindowedText(np.arange(12), batch_size=3, seq_length=4)


def test_negative_cursor_raises():
    with pytest.raises(ValueError, match="not -1"):
        WindowedText(np.arange(13), 3, 4).window(-1)


def test_corpus_is_not_copied():
    ids = np.arange(1000, dtype=np.uint8)
    assert WindowedText(ids, 4, 5).ids is ids
    assert all(np.shares_memory(part, ids) for part in split(ids, 0.2, 0.1))


@given(st.integers(0, 5000), st.floats(0, 0.999), st.floats(0, 0.999))
def test_splits_join_to_the_whole_in_order(length: int, validation_fraction: float, test_fraction: float):
    if validation_fraction + test_fraction >= 1:
        validation_fraction, test_fraction = validation_fraction / 2, test_fraction / 2
    ids = np.arange(length)
    parts = split(ids, validation_fraction, test_fraction)
    np.testing.assert_array_equal(np.concatenate(parts), ids)
    assert abs(len(parts.validation) - validation_fraction * length) <= 1
    assert abs(len(parts.test) - test_fraction * length) <= 1
    assert len(parts.validation) == 0 or validation_fraction > 0
    assert len(parts.test) == 0 or test_fraction > 0


def test_splits_of_round_fractions_are_exact():
    assert [len(part) for part in split(np.arange(100), 0.05, 0.05)] == [90, 5, 5]
    assert [len(part) for part in split(np.arange(100), 0.29, 0.0)] == [71, 29, 0]


@given(st.integers(0, 3000), st.integers(1, 40), st.floats(0, 0.5), st.floats(0, 0.4))
def test_each_of_several_stretches_holds_out_its_own_end(
    length: int, stretches: int, validation_fraction: float, test_fraction: float
):
    """Every id lies in one split, in the order of the text, and each stretch gives its share to each of them."""
    parts = split(np.arange(length), validation_fraction, test_fraction, stretches)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(length))
    for part in parts:
        assert (np.diff(part) > 0).all()
    for stretch in np.array_split(np.arange(length), stretches):
        counts = [np.isin(stretch, part).sum() for part in parts]
        expected = [len(part) for part in split(stretch, validation_fraction, test_fraction)]
        assert counts == expected
        assert len(stretch) == 0 or counts[2] == 0 or stretch[-1] in parts.test


# Documents: a line and the newline, here 0, that ends it.

lines = st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=40)


@given(lines, st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_every_character_of_a_document_is_predicted_from_what_stands_before_it_there(
    texts: list[list[int]], batch_size: int, seq_length: int, cut: bool
):
    """Law 2 for each document: a carry that is zero at `resets` has read a newline and what follows it, and no more."""
    ids = np.array([each for text in texts for each in (*text, 0)][: -1 if cut else None], np.uint8)
    if len(ids) < batch_size * seq_length + 1:
        return
    text = WindowedText(ids, batch_size, seq_length, newline=0)
    assert text.windows_per_epoch == len(ids) // (batch_size * seq_length)
    windows: list[Any] = list(text.windows(steps=text.windows_per_epoch))
    inputs, targets, resets = (np.concatenate([each[part] for each in windows], 1) for part in (0, 1, 3))
    np.testing.assert_array_equal(targets.ravel(), ids[: targets.size])
    assert len(ids) - targets.size < batch_size * seq_length
    np.testing.assert_array_equal(inputs.ravel(), np.concatenate([[0], ids])[: targets.size])
    np.testing.assert_array_equal(resets, inputs == 0)
    assert inputs.dtype == targets.dtype == np.int32 and resets.dtype == np.bool_
    assert resets[0, 0]
