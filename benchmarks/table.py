"""Cells become a table: aligned for a terminal, or Markdown."""

from collections.abc import Sequence

from benchmarks.spreads import Spread

NOTHING = "–"
"""Where there is no number."""


def render(titles: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Lines of a table whose first column is to the left and whose others are to the right.

    Args:
        titles: one for each column.
        rows: cells, as many in each row as there are titles.
        markdown: with bars, as GitHub shows them.
    """
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |" if markdown else "  ".join([first, *others]).rstrip()

    rule = [("-" * (width - 1) + ":") if number and markdown else "-" * width for number, width in enumerate(widths)]
    return "\n".join(map(line, [titles, rule, *rows]))


def number(value: float | None, digits: int = 3) -> str:
    """Rounded to significant digits, with separators and without an exponent: 1,230,000 or 0.0123."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    magnitude = int(f"{rounded:e}".split("e")[1])
    return f"{rounded:,.{max(digits - 1 - magnitude, 0)}f}"


def spread(value: Spread | None, scale: float = 1, digits: int = 3) -> str:
    """The median, and the least and the most in brackets."""
    if value is None:
        return NOTHING
    low, high = number(value.low * scale, digits), number(value.high * scale, digits)
    return f"{number(value.median * scale, digits)} [{low}, {high}]"


def megabytes(value: int | None) -> str:
    """Bytes in 10⁶."""
    return NOTHING if value is None else f"{value / 1e6:,.0f}"
