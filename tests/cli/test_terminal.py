"""What reaches a terminal is plain text, whatever is in it."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.cli.terminal import Reporter, write
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
        reporter.advance(3, "loss 1.0")
