"""What reaches a terminal is plain text, whatever is in it."""

import io
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.cli.progress import GridProgress
from charlstm.cli.terminal import Reporter, write
from charlstm.compare.comparison import Work
from charlstm.support.files import printable


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(each.isprintable() or each in "\n\t" for each in shown)
    assert printable(shown) == shown


def test_readable_text_is_left_alone() -> None:
    text = "Ελλάδα, 日本語,\tthe end…\n"
    assert printable(text) == text


def test_a_file_gets_the_sample_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, expected in ((io.StringIO(), "a\x1b[31mb"), (Screen(), "a\ufffd[31mb")):
        monkeypatch.setattr(sys, "stdout", stream)
        write("a\x1b[31mb")
        assert stream.getvalue() == expected


def test_markup_in_a_message_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.line("text [bold]x[/bold] \x1b[31m")
    assert capsys.readouterr().err == "text [bold]x[/bold] \ufffd[31m\n"
    with reporter.bar(0, 10):
        reporter.advance(3, "loss [bold]1.0[/bold]")
    assert capsys.readouterr().err == "step 3 of 10: loss [bold]1.0[/bold]\n"


def test_a_log_gets_a_line_now_and_then_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps of an earlier process count as done, and say nothing about the speed of this one."""
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("charlstm.support.clock._PAUSE", math.inf)  # a second of this clock is none
    reporter = Reporter()
    with reporter.bar(0, 3000):
        reporter.skip_to(1000)
        for step in range(1010, 1100, 10):  # of half a second each
            now += 5
            reporter.advance(step, "loss 1.0")
    assert capsys.readouterr().err.splitlines() == [
        "step 1,010 of 3,000: loss 1.0",
        "step 1,050 of 3,000: loss 1.0; 0:16:15 left",
        "step 1,090 of 3,000: loss 1.0; 0:15:55 left",
    ]


def test_a_task_names_no_step_before_it_knows_where_it_goes_on() -> None:
    progress = GridProgress()
    progress._steps, progress._unit = 400, "char"
    assert progress._state(Work(0, None, 0.0, "node")) == "starting  on node"
    assert progress._state(Work(60, None, 0.0, "")) == "step 60 of 400"
