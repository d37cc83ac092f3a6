"""Lay results out as a table, with the same columns on a terminal, in Markdown and on a page; CSV has every number."""

import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from charlstm.compare.results import NGRAM_CELL, Interval, ModelResult, Results
from charlstm.core.loss import bits
from charlstm.support.files import write_atomic

MISSING = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Cell(NamedTuple):
    """A value as text, what it sorts by (None last), small print below it, and a warning."""

    text: str = MISSING
    value: float | str | None = None
    small: str = ""
    warning: str = ""


class Column(NamedTuple):
    """A title, the units of the values and of the small print, and one cell per model."""

    title: str
    unit: str
    small_unit: str
    cells: list[Cell]


def make_table(models: Sequence[ModelResult], symbol: str, notes: Sequence[str] = ()) -> list[Column]:
    """The columns that are not empty, the most important first; `symbol` is what a model predicts at each step."""
    values: list[tuple[str, str, str, Callable[[ModelResult], Cell]]] = [
        ("test", "nats", "bits", lambda model: _loss(model.test)),
        ("difference", "nats", "", lambda model: _interval(model.difference, f"from {model.baseline}", sign="+")),
        ("published", "nats", "ours minus it", _published),
        ("reach", f"{symbol}s", "", _reach),
        ("validation", "nats", "bits", lambda model: _loss(model.validation)),
        ("calibration", "error", "", lambda model: _interval(model.calibration)),
        ("saturated", "of gates", "", lambda model: _interval(model.saturated, digits=3)),
        ("found", "units", "", lambda model: _interval(model.found_units, digits=1)),
        ("parameters", "", "", lambda model: _number(model.parameters, "{:,}".format)),
        ("time", "", "", lambda model: _number(model.seconds, duration)),
        ("speed", f"{symbol}s/s", "", lambda model: _number(model.chars_per_second, "{:,.0f}".format)),
        ("seeds", "", "diverged", _seeds),
        ("FLOPs", "", "", lambda model: _number(model.operations, power_of_ten)),
    ]
    names = map(_name, models, notes or [""] * len(models))
    columns = [Column("model", "", "", [*names])]
    for title, unit, small_unit, cell in values:
        cells = [cell(model) for model in models]
        if any(each.value is not None for each in cells):
            columns.append(Column(title, unit, small_unit if any(each.small for each in cells) else "", cells))
    return columns


def explain(models: Sequence[ModelResult], symbol: str, confidence: float) -> list[str]:
    """Sentences that a reader of `make_table` needs."""
    known = {name for model in models for name, value in vars(model).items() if value is not None}
    lines = [f"Losses are in nats and bits per {symbol}."]
    if any(loss and loss.half is not None for model in models for loss in (model.validation, model.test)):
        lines[0] += f" ± is half the width of a {confidence:.0%} confidence interval over seeds (Student's t)."
    if {"validation", "test"} <= known:
        lines.append("The test loss is that of the step with the best validation loss.")
    if "difference" in known:
        names = ", ".join(dict.fromkeys(model.baseline for model in models if model.baseline))
        lines.append(
            f"Difference: test loss minus the baseline's ({names}), with Welch's interval; negative is better."
        )
    if "published" in known:
        lines.append("Published: the test loss that a paper reports, and ours minus it; negative is better.")
    if "reach" in known:
        reach = f"Reach: the lag, in {symbol}s, from which on the gradient ∂loss(t)/∂h(t−k) is at most 1% of its start;"
        lines.append(f"{reach} ≥ if it is larger at the last lag measured.")
    if "calibration" in known:
        lines.append(
            "Calibration: the mean gap between the likeliest character's probability and how often it is right."
        )
    if "found_units" in known:
        found = "Found: units that follow a feature of the text, such as quotes, beyond what random directions reach."
        lines.append(f"Saturated: how much of the time a gate is below 0.1 or above 0.9. {found}")
    if any(model.cell == NGRAM_CELL for model in models):
        lines.append("N-gram: interpolated Kneser-Ney, of the order that is best on the validation split.")
    if any(len(model.seeds) > 1 for model in models):
        lines.append("Time is the training time of all seeds of a model; FLOPs are the matrix products of one seed.")
    return lines


def notes(results: Results) -> list[str]:
    """What a reader of a comparison's table must know, and which seeds diverged."""
    lines = explain(results.rows, results.symbols.removesuffix("s"), results.confidence)
    for model in results.models:
        if lost := _diverged(model):
            lines.append(f"{model.name}: DIVERGED with {', '.join(lost)}; its numbers are those of the other seeds")
    return lines


def write_tables(results: Results, folder: Path) -> None:
    """Writes results.csv and results.md into a comparison's folder."""
    write_atomic(folder / "results.csv", _csv(results).encode())
    write_atomic(folder / "results.md", markdown(results).encode())


def markdown(results: Results) -> str:
    """The table and its notes as Markdown."""
    columns = _plain(results)
    titles = [f"{title} ({unit})" if unit else title for title, unit in columns]
    rows = [titles, ["---", *["---:"] * (len(columns) - 1)], *zip(*columns.values(), strict=True)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(results)), ""])


def show(results: Results) -> None:
    """Prints the table and its notes on standard output, with as many columns as a terminal is wide."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    columns = _plain(results)
    while sys.stdout.isatty() and len(columns) > 2 and _width(columns) > console.width:
        columns.popitem()
    drawn = Table(box=None, pad_edge=False, width=_width(columns))
    for title, unit in columns:
        drawn.add_column(f"{title}\n{unit}", justify="left" if title == "model" else "right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        drawn.add_row(*row)
    with console.capture() as text:  # rich ends the process where it prints into a pipe that is closed
        for each in (drawn, "", *notes(results)):
            console.print(each)
    print(text.get(), end="")


def duration(seconds: float) -> str:
    """Seconds in the one or two units that people use: "59.4 s", "5 min 1 s", "25 h 1 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def power_of_ten(value: float) -> str:
    """Three digits and a power of ten: "1.20 × 10¹³"."""
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def _plain(results: Results) -> dict[tuple[str, str], list[str]]:
    """The table's text by title and unit; small print that has a unit is a column of its own."""
    plain = {}
    for title, unit, small_unit, cells in make_table(results.rows, results.symbols.removesuffix("s")):
        plain[title, unit] = [cell.text for cell in cells]
        if small_unit:
            plain[title, small_unit] = [cell.small or MISSING for cell in cells]
    return plain


def _width(columns: dict[tuple[str, str], list[str]]) -> int:
    return sum(max(map(cell_len, [*titles, *words])) + 2 for titles, words in columns.items()) - 2


def _name(model: ModelResult, note: str) -> Cell:
    layers = "1 layer" if model.num_layers == 1 else f"{model.num_layers} layers"
    shape = "Kneser-Ney" if model.cell == NGRAM_CELL else f"{model.cell}, {layers} of {model.hidden_size:,}"
    small = shape + (f"; {note}" if note else "")
    diverged = ", ".join(_diverged(model))
    return Cell(model.name, model.name, small, f"diverged: {diverged}" if diverged else "")


def _diverged(model: ModelResult) -> list[str]:
    lost = [seed for seed in model.seeds if seed.diverged_after is not None]
    return [f"seed {seed.seed} after step {seed.diverged_after:,}" for seed in lost]


def _number(value: float | None, text: Callable[[float], str], small: str = "") -> Cell:
    return Cell() if value is None else Cell(text(value), value, small)


def _interval(values: Interval | None, small: str = "", **how: Any) -> Cell:
    return Cell() if values is None else Cell(_spread(values, **how), values.mean, small)


def _loss(loss: Interval | None) -> Cell:
    return _interval(loss, _spread(loss, scale=bits(1)) if loss else "")


def _seeds(model: ModelResult) -> Cell:
    return _number(len(model.seeds) or None, str, str(len(_diverged(model)) or ""))


def _published(model: ModelResult) -> Cell:
    gap = model.test.mean - model.published if model.test and model.published is not None else None
    return _number(model.published, "{:.4g}".format, "" if gap is None else f"{gap:+.4f}".replace("-", "−"))


def _reach(model: ModelResult) -> Cell:
    cell = _interval(model.reach, digits=1)
    if model.reach and model.reaches_beyond:  # the curve was cut off, and an interval would mean nothing
        cell = cell._replace(text=f"≥ {model.reach.mean:.1f}")
    return cell


def _spread(values: Interval, digits: int = 4, sign: str = "", scale: float = 1) -> str:
    """Such as "1.2500 ± 0.0500"; the mean alone where there is no interval."""
    mean = f"{values.mean * scale:{sign}.{digits}f}".replace("-", "−")
    return mean if values.half is None else f"{mean} ± {values.half * scale:.{digits}f}"


def _csv(results: Results) -> str:
    """One line per model, with every number in full."""
    names = ["name", "cell", "num_layers", "hidden_size", "size", "parameters", "learning_rate", "operations"]
    names += ["seconds", "chars_per_second", "baseline", "published"]
    intervals = "validation", "test", "difference", "reach", "calibration", "saturated", "found_units"
    parts = [(name, part) for name in intervals for part in ("mean", "low", "high", "n")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *map("_".join, parts), "diverged"])
    for model in results.rows:
        numbers = [getattr(getattr(model, name), part, None) for name, part in parts]
        writer.writerow([*(getattr(model, name) for name in names), *numbers, len(_diverged(model))])
    return out.getvalue()
