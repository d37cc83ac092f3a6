"""A comparison's table for people: on a terminal, as Markdown, as CSV; results.json has all of it."""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from charlstm.compare.results import RESULTS, Interval, ModelResult, Results, SeedResult
from charlstm.core.loss import bits
from charlstm.report.columns import duration, power_of_ten
from charlstm.support.files import write_atomic, write_json

NOTHING = "–"
_SCALARS = (
    *("name", "cell", "num_layers", "hidden_size", "size", "parameters", "learning_rate", "operations", "seconds"),
    *("chars_per_second", "baseline", "published"),
)
_LEFT_OUT_FIRST = (
    *(
        "FLOPs",
        "validation in bits",
        "seeds",
        "parameters",
        "characters/s",
        "test in bits",
        "validation",
        "time",
        "reach",
    ),
    *("difference", "published (ours minus it)", "test"),
)
"""Columns that a narrow terminal has no room for."""
_SPREADS = ("validation", "test", "difference", "reach")


def write_tables(table: Results, folder: Path) -> None:
    """Writes results.json, results.csv and results.md into a folder."""
    write_json(folder / RESULTS, asdict(table))
    write_atomic(folder / "results.csv", _csv(table).encode())
    write_atomic(folder / "results.md", markdown(table).encode())


def show(table: Results) -> None:
    """Prints the table on standard output."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    columns = _columns(table)
    while len(columns) > 2 and _width(columns) > (console.width if console.is_terminal else math.inf):
        del columns[next(title for title in _LEFT_OUT_FIRST if title in columns)]
    drawn = Table(box=None, pad_edge=False)
    for title in columns:
        drawn.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        drawn.add_row(*row)
    console.width = max(console.width, _width(columns))
    console.print(drawn)
    for note in notes(table):
        console.print(note)


def markdown(table: Results) -> str:
    """The table and its notes as Markdown."""
    columns = _columns(table)
    lines = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *zip(*columns.values(), strict=True)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *notes(table), ""])


def notes(table: Results) -> list[str]:
    """What must be known to read the table, and which runs diverged."""
    percent, unit = f"{table.confidence:.0%}", table.symbols.removesuffix("s")
    validated = any(row.validation and row.test for row in table.models)
    said = [
        f"nats per {unit}, ± the half width of a {percent} interval over seeds (Student's t)"
        + ("; the test loss is that of the step with the best validation loss" if validated else "")
    ]
    if any(row.difference for row in table.models):
        names = dict.fromkeys(row.baseline for row in table.models if row.baseline)
        said.append(f"difference: test nats minus those of {', '.join(names)}, paired by seed; below 0 is better")
    if any(row.reach for row in table.models):
        said.append(f"reach: the lag in {table.symbols} at which ∂loss(t)/∂h(t-k) has fallen to 1 % of its start")
    if any(row.seconds for row in table.models):
        said.append("time: of all seeds of a model together; FLOPs: of the products of one seed's training")
    for row in table.models:
        lost = [f"seed {run.seed} after step {run.diverged_after:,}" for run in _diverged(row)]
        if lost:
            said.append(f"{row.name}: DIVERGED with {', '.join(lost)}; its figures are of the other runs alone")
    return said


def _diverged(row: ModelResult) -> list[SeedResult]:
    return [run for run in row.seeds if run.diverged_after is not None]


def _columns(table: Results) -> dict[str, list[str]]:
    """By title, a word for each model; columns that would be empty are left out."""
    columns = {title: [of(row) for row in table.models] for title, of in _COLUMNS.items()}
    return {title: words for title, words in columns.items() if any(word != NOTHING for word in words)}


def _width(columns: dict[str, list[str]]) -> int:
    return sum(max(map(len, [title, *words])) + 2 for title, words in columns.items())


def _spread(values: Interval | None, digits: int = 4, sign: str = "", scale: float = 1) -> str:
    if values is None:
        return NOTHING
    mean = f"{values.mean * scale:{sign}.{digits}f}"
    return mean if values.half is None else f"{mean} ± {values.half * scale:.{digits}f}"


def _reach(row: ModelResult) -> str:
    if row.reach is not None and row.reaches_beyond:
        return f"≥ {row.reach.mean:.0f}"  # no interval of what was cut off
    return _spread(row.reach, digits=0)


def _published(row: ModelResult) -> str:
    if row.published is None or row.test is None:
        return NOTHING
    return f"{row.published:.3f} ({row.test.mean - row.published:+.3f})"


def _seeds(row: ModelResult) -> str:
    lost = len(_diverged(row))
    return f"{len(row.seeds)} ({lost} diverged)" if lost else str(len(row.seeds))


_COLUMNS: dict[str, Callable[[ModelResult], str]] = {
    "model": lambda row: row.name,
    "parameters": lambda row: f"{row.parameters:,}",
    "seeds": _seeds,
    "validation": lambda row: _spread(row.validation),
    "validation in bits": lambda row: _spread(row.validation, scale=bits(1)),
    "test": lambda row: _spread(row.test),
    "test in bits": lambda row: _spread(row.test, scale=bits(1)),
    "difference": lambda row: _spread(row.difference, sign="+"),
    "published (ours minus it)": _published,
    "reach": _reach,
    "characters/s": lambda row: f"{row.chars_per_second:,.0f}" if row.chars_per_second else NOTHING,
    "time": lambda row: duration(row.seconds) if row.seconds else NOTHING,
    "FLOPs": lambda row: power_of_ten(row.operations) if row.operations else NOTHING,
}


def _csv(table: Results) -> str:
    """A line for each model, with every figure in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ("mean", "low", "high", "n")
    writer.writerow([*_SCALARS, *(f"{name}_{part}" for name in _SPREADS for part in parts), "diverged"])
    for row in table.models:
        figures = [getattr(getattr(row, name), part, None) for name in _SPREADS for part in parts]
        writer.writerow([*(getattr(row, name) for name in _SCALARS), *figures, len(_diverged(row))])
    return out.getvalue()
