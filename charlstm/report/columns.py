"""Exhibits become the cells of a table: what is read, what is sorted by, and what stands small below."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from charlstm.compare.results import Interval
from charlstm.core.loss import bits
from charlstm.report.entries import Exhibit
from charlstm.report.figures import unit

MISSING = "—"
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Cell(NamedTuple):
    """One value: as it is read, as it is sorted (None last), and a line below it."""

    text: str = MISSING
    value: float | str | None = None
    small: str = ""
    warning: str = ""


class Column(NamedTuple):
    """A title, the unit below it, whether it holds numbers, and a cell a row."""

    title: str
    unit: str
    number: bool
    cells: list[Cell]


def columns(exhibits: Sequence[Exhibit]) -> list[Column]:
    """The columns of the table, a row an exhibit; those that nothing can be known of are left out."""
    each = unit(exhibits)
    asked: list[tuple[str, str, Callable[[Exhibit], Cell]]] = [
        ("parameters", "", lambda shown: _count(shown.result.parameters)),
        ("validation", f"nats per {each}", lambda shown: _loss(shown.result.validation)),
        ("test", f"nats per {each}", lambda shown: _loss(shown.result.test)),
        ("difference", "test nats", _difference),
        ("published", "test nats", _published),
        ("speed", f"{each}s/s", lambda shown: _count(shown.result.chars_per_second)),
        ("training", "all seeds" if exhibits[0].compared else "", lambda shown: _duration(shown.result.seconds)),
        ("FLOPs", "one seed", lambda shown: _operations(shown.result.operations)),
        ("reach", f"{each}s", _reach),
    ]
    made = [Column("model", "", False, [_name(shown) for shown in exhibits])]
    for title, small, cell in asked:
        column = Column(title, small, True, [cell(shown) for shown in exhibits])
        if title in ("parameters", "validation", "test") or any(each.value is not None for each in column.cells):
            made.append(column)
    return made


def duration(seconds: float) -> str:
    """Seconds as people say them, in two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def power_of_ten(value: float) -> str:
    """Three digits and a power of ten, as in 1.20 × 10¹³."""
    digits, exponent = f"{value:.2e}".split("e")
    sign = "⁻" if exponent.startswith("-") else ""
    return f"{digits} × 10{sign}{str(abs(int(exponent))).translate(_SUPERSCRIPT)}"


def _name(shown: Exhibit) -> Cell:
    model = shown.result
    depth = f"{model.num_layers} {'layer' if model.num_layers == 1 else 'layers'}"
    diverged = [seed for seed in model.seeds if seed.diverged_after is not None]
    warning = ""
    if diverged:
        told = ", ".join(f"seed {seed.seed} after step {seed.diverged_after:,}" for seed in diverged)
        warning = f"{len(diverged)} of {shown.seeds or len(model.seeds)} seeds diverged: {told}"
    small = [f"{model.cell}, {depth} of {model.hidden_size:,}", shown.note]
    return Cell(model.name, model.name, "; ".join(filter(None, small)), warning)


def _count(value: float | None) -> Cell:
    return Cell() if value is None else Cell(f"{value:,.0f}", value)


def _loss(loss: Interval | None) -> Cell:
    if loss is None:
        return Cell()
    seeds = f", {loss.n} seeds" if loss.n > 1 else ""
    return Cell(f"{loss.mean:.4f}{_plus_minus(loss, '.4f')}", loss.mean, f"{bits(loss.mean):.4f} bits{seeds}")


def _difference(shown: Exhibit) -> Cell:
    gap = shown.result.difference
    if gap is None:
        return Cell()
    against = f"from {shown.result.baseline}" if shown.result.baseline else ""
    return Cell(f"{_signed(gap.mean)}{_plus_minus(gap, '.4f')}", gap.mean, against)


def _published(shown: Exhibit) -> Cell:
    published, test = shown.result.published, shown.result.test
    if published is None:
        return Cell()
    here = f"here {_signed(test.mean - published)}" if test else ""
    return Cell(f"{published:.4g}", published, here)


def _duration(seconds: float | None) -> Cell:
    return Cell() if seconds is None else Cell(duration(seconds), seconds)


def _operations(count: float | None) -> Cell:
    return Cell() if count is None else Cell(power_of_ten(count), count)


def _reach(shown: Exhibit) -> Cell:
    reach = shown.result.reach
    if reach is None:
        return Cell()
    if shown.result.reaches_beyond:  # no interval of what was cut off
        return Cell(f"≥ {reach.mean:.1f}", reach.mean)
    return Cell(f"{reach.mean:.1f}{_plus_minus(reach, '.1f')}", reach.mean)


def _plus_minus(interval: Interval, digits: str) -> str:
    half = interval.half
    return "" if half is None else f" ± {half:{digits}}"


def _signed(value: float) -> str:
    return f"{'−' if math.copysign(1, value) < 0 else '+'}{abs(value):.4f}"
