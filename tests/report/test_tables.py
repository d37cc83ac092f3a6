"""The table of results has one source: whatever the page shows, the terminal and Markdown show as well."""

import re
import sys
from pathlib import Path

import pytest
from folders import make_comparison

from charlstm.compare.results import Results, read
from charlstm.report import tables
from charlstm.report.tables import duration, make_table, markdown, power_of_ten


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder: Path = tmp_path_factory.mktemp("comparison")
    make_comparison(folder, depths=(1, 2), seeds=2)
    return read(folder)


def test_plain_text_has_every_value_of_the_page(comparison: Results) -> None:
    text = markdown(comparison)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    for column in make_table(comparison.models, "character"):
        for row, cell in zip(rows[2:], column.cells, strict=True):
            assert cell.text in row
            assert not column.small_unit or (cell.small or tables.MISSING) in row
            assert cell.warning.removeprefix("diverged: ") in text


def test_a_column_sorts_by_what_it_shows(comparison: Results) -> None:
    for column in make_table(comparison.models, "character"):
        for cell in column.cells:
            assert (cell.text == tables.MISSING) == (cell.value is None)
            if column.title in ("test", "difference", "published", "reach", "validation", "parameters", "speed"):
                shown = re.match(r"[+−]?[\d.,]+", cell.text)
                number = shown and float(shown[0].replace(",", "").replace("−", "-"))
                assert number == (None if cell.value is None else pytest.approx(cell.value, abs=0.5))


@pytest.mark.parametrize("width", [20, 60, 80, 120, 400])
def test_a_narrow_terminal_gets_the_first_columns_that_fit(
    comparison: Results, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    tables.show(comparison)  # into a pipe: every column, each model in a line, whatever the environment says
    piped = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tables.show(comparison)
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    table = lines[: lines.index("")]
    assert len(table) == 2 + len(comparison.models)
    assert max(map(len, table)) <= max(width, 30)  # the models and their test losses always
    titles = [
        column.title
        for column in make_table(comparison.models, "character")
        for _ in range(2 if column.small_unit else 1)
    ]
    shown = table[0].split()
    assert shown == titles[: len(shown)]
    assert (shown == titles) == (width == 400)
    assert piped[0].split() == titles
    assert piped[len(table)] == ""
    for model, line in zip(comparison.models, table[2:], strict=True):
        assert line.startswith(model.name)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.4, "59.4 s"),
        (59.6, "1 min 0 s"),
        (301.2, "5 min 1 s"),
        (3599.7, "1 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(1.2e13, "1.20 × 10¹³"), (9.999, "1.00 × 10¹"), (0.05, "5.00 × 10⁻²")])
def test_large_numbers_are_powers_of_ten(value: float, text: str) -> None:
    assert power_of_ten(value) == text
