"""Choose how each model looks: whatever a colour distinguishes, the shape of the marks distinguishes too."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from charlstm.report.entries import Entry

COLOURS, DASHES = 6, 5  # how many plots and page have; each colour has a symbol of its own
_BUILT_IN = ("lstm", "gru", "rnn")


@dataclass(frozen=True)
class Style:
    """The number of a colour and its symbol, and that of a dash."""

    colour: int
    dash: int


def cell_colours(cells: Iterable[str]) -> dict[str, int]:
    """A colour for each cell: a built-in cell always has its own, and the name of another one decides its colour.

    Where several cells want one colour, the later ones by name take the next that is free.
    """
    colours = {cell: _BUILT_IN.index(cell) for cell in cells if cell in _BUILT_IN}
    others = [*range(len(_BUILT_IN), COLOURS)]
    for cell in sorted(set(cells) - colours.keys()):
        first = zlib.crc32(cell.encode("utf-8", "backslashreplace")) % len(others)
        wanted = [*others[first:], *others[:first], *range(len(_BUILT_IN))]
        colours[cell] = next((each for each in wanted if each not in colours.values()), wanted[0])
    return colours


def styles(entries: Sequence[Entry]) -> list[Style]:
    """In a comparison, the colour gives the cell, and the dash its size, or its depth where all have one size."""
    models = [(entry.result.cell, entry.result.num_layers, entry.result.size) for entry in entries]
    cells, depths, sizes = (sorted({*column}) for column in zip(*models, strict=True))
    if not all(entry.compared for entry in entries) or len({*models}) < len(models) or len(cells) > COLOURS:
        return [Style(number % COLOURS, number // COLOURS % DASHES) for number in range(len(entries))]
    colours = cell_colours(cells)
    dashes = [sizes.index(size) if len(sizes) > 1 else depths.index(depth) for _, depth, size in models]
    return [Style(colours[cell], dash % DASHES) for (cell, *_), dash in zip(models, dashes, strict=True)]
