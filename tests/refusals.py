"""Commands of the benchmarks that refuse what they are given."""

from typing import Any

import pytest


def assert_refused(command: Any, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = command(words)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert len(captured.err.splitlines()) == 1 and said in captured.err
