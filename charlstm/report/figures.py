"""Describe figures as data, which `plots` draws for print and `page` on a screen."""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np

from charlstm.analysis.gradient_reach import reach
from charlstm.compare.results import Interval
from charlstm.report.curves import Curve, Floats, thin
from charlstm.report.entries import Entry
from charlstm.support.errors import InputError

COLOURS, DASHES = 6, 5  # how many plots and page have; each colour has a symbol of its own
_BUILT_IN = ("lstm", "gru", "rnn")
_SMALLEST = 1e-6  # of a gradient's start; float32 resolves nothing below
_FIRST_FALL = 0.1  # of a training, whose losses need not fit into the picture


@dataclass(frozen=True)
class Style:
    """The number of a colour and its symbol, and that of a dash."""

    colour: int
    dash: int


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values [N] of one model, and their range [N] where there is one."""

    name: str
    style: Style
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    line: bool = True
    marks: bool = False  # whether points are marked; on a line, only as many as tell it from others
    faint: bool = False
    spread: Literal["band", "bars"] = "band"
    panel: str = ""  # series of one panel share a pair of axes


@dataclass(frozen=True)
class Figure:
    """One picture; `losses` are in nats, and a second axis gives bits."""

    name: str
    title: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    caption: str
    _: KW_ONLY
    losses: bool = False
    x_log: bool = False
    y_log: bool = False
    x_whole: bool = False  # whether ticks stand at whole numbers only
    y_range: tuple[float, float] | None = None
    levels: dict[str, float] = field(default_factory=dict)  # labelled horizontal lines

    @property
    def panels(self) -> list[str]:
        return [*dict.fromkeys(each.panel for each in self.series)]


def figures(entries: Sequence[Entry]) -> list[Figure]:
    """The figures that there is data for; a number to draw that is not finite is an InputError."""
    styled, symbol = list(zip(entries, styles(entries), strict=True)), symbol_of(entries)
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        drawn = [draw(styled, symbol) for draw in (_by_step, _by_depth, _by_compute, _by_lag, _by_distance)]
    found = [figure for figure in drawn if figure and figure.series]
    for each in (series for figure in found for series in figure.series):
        if not all(values is None or np.isfinite(values).all() for values in (each.x, each.y, each.low, each.high)):
            raise InputError("the results hold numbers too large to be drawn; put back the comparison's own")
    return found


def symbol_of(entries: Sequence[Entry]) -> str:
    """What the models predict at each step: "character" or "byte", or "symbol" where they differ."""
    kinds = {entry.corpus.symbols for entry in entries}
    return kinds.pop().removesuffix("s") if len(kinds) == 1 else "symbol"


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


_Styled = Sequence[tuple[Entry, Style]]


def _series(entry: Entry, style: Style, curve: Curve, **how: Any) -> Series:
    """One panel for each depth in a comparison; runs that nobody set side by side share one."""
    depth, (x, y, low, high) = entry.result.num_layers, curve
    how.setdefault("panel", f"{depth} {'layer' if depth == 1 else 'layers'}" if entry.compared else "")
    return Series(name=entry.name, style=style, x=x, y=y, low=low, high=high, **how)


def _by_step(styled: _Styled, symbol: str) -> Figure | None:
    series = []
    for entry, style in styled:
        if entry.training:
            series.append(_series(entry, style, entry.training))
        if entry.validation:
            mean = Curve(*entry.validation[:2])
            series.append(_series(entry, style, mean, line=False, marks=True))
    if not series:
        return None
    caption = f"Lines: training loss, averaged over steps. Marks: validation loss.{_about_seeds(series, styled)}"
    y_range = _loss_range(series, max(entry.corpus.vocabulary for entry, _ in styled))
    titles = "Loss by step", "training step", f"nats per {symbol}"
    return Figure("loss_vs_step", *titles, series, caption, losses=True, y_range=y_range)


def _by_depth(styled: _Styled, symbol: str) -> Figure | None:
    kind = "test" if any(entry.result.test for entry, _ in styled) else "validation"
    measured = [(entry, loss) for entry, _ in styled if (loss := getattr(entry.result, kind))]
    rows: dict[tuple[str, int, str], dict[int, Interval]] = {}  # of a cell, size and corpus: the best loss by depth
    for entry, loss in measured:
        row = rows.setdefault((entry.result.cell, entry.result.size, entry.corpus.name), {})
        row[entry.result.num_layers] = min(row.get(entry.result.num_layers, loss), loss, key=lambda each: each.mean)
    if max(map(len, rows.values()), default=0) < 2:
        return None
    cells, sizes, corpora = ({*column} for column in zip(*rows, strict=True))
    colours, settings = cell_colours(cells), sorted({(size, corpus) for _, size, corpus in rows})
    series = []
    for (cell, size, corpus), row in rows.items():
        name = cell + (f", size {size:,}" if len(sizes) > 1 else "") + (f" ({corpus})" if len(corpora) > 1 else "")
        losses = [row[depth] for depth in sorted(row)]
        x, y = np.array(sorted(row), float), np.array([loss.mean for loss in losses])
        half = np.array([loss.half or 0 for loss in losses])
        low, high = (y - half, y + half) if half.any() else (None, None)
        style = Style(colours[cell], settings.index((size, corpus)) % DASHES)
        series.append(Series(name=name, style=style, x=x, y=y, low=low, high=high, marks=True, spread="bars"))
    caption = f"{'Test' if kind == 'test' else 'Best validation'} loss of each cell."
    if len(measured) > sum(map(len, rows.values())):
        caption += " Of runs with the same cell, size and depth, the best."
    if any(each.low is not None for each in series):
        caption += f" Bars: {styled[0][0].confidence:.0%} confidence intervals over seeds."
    titles = "Loss by depth", "layers", f"{kind} nats per {symbol}"
    return Figure("loss_vs_depth", *titles, series, caption, losses=True, x_whole=True)


def _by_compute(styled: _Styled, symbol: str) -> Figure:
    # Where dashes tell sizes apart, depths need panels of their own.
    panel = {} if len({entry.result.size for entry, _ in styled}) > 1 else {"panel": ""}
    series = []
    for entry, style in styled:
        if (curve := entry.validation) and (operations := entry.result.operations):
            so_far = curve._replace(step=curve.step * (operations / entry.runs[0].config.train.steps))
            series.append(_series(entry, style, so_far, marks=True, **panel))
    caption = f"Validation loss by the operations that training one seed took so far.{_about_seeds(series, styled)}"
    titles = "Loss by compute", "floating-point operations", f"validation nats per {symbol}"
    return Figure("loss_vs_compute", *titles, series, caption, losses=True, x_log=True)


def _by_lag(styled: _Styled, symbol: str) -> Figure | None:
    series = []
    for entry, style in styled:
        for norms, faint in ((entry.result.gradient, False), (entry.result.fresh_gradient, True)):
            layers = [np.array(layer) for layer in norms or () if layer[0] > 0]
            if layers:
                furthest = max(layers, key=lambda layer: math.inf if (lag := reach(layer)) is None else lag)
                fall, lags = furthest / furthest[0], thin(len(furthest))
                lags = lags[fall[lags] > 0]
                curve = Curve(lags.astype(float), fall[lags])
                series.append(_series(entry, style, curve, marks=not faint, faint=faint))
    if not series:
        return None
    caption = "Norm of ∂loss(t)/∂h(t−k) relative to that at k = 0, in the layer where it reaches furthest: the median"
    caption += " over t, and the mean over seeds."
    caption += " Thin dotted lines: before training." if any(each.faint for each in series) else ""
    least, most = (pick(float(pick(each.y)) for each in series) for pick in (min, max))
    y_range = max(least, _SMALLEST) / 1.5, max(1, most) * 1.5
    titles = "Gradient by lag", f"lag k in {symbol}s", "gradient relative to its start"
    return Figure("gradient_vs_lag", *titles, series, caption, y_log=True, y_range=y_range, levels={"reach": 0.01})


def _by_distance(styled: _Styled, symbol: str) -> Figure:
    series, levels = [], {}
    for entry, style in styled:
        recall = entry.result.recall
        if recall is not None and recall.distances and len(recall.distances) == len(recall.accuracy):
            curve = Curve(np.array(recall.distances), np.array(recall.accuracy))
            series.append(_series(entry, style, curve, marks=True))
            levels["chance"] = recall.chance
    caption = "How often the model predicts correctly what depends on something it read that far back."
    titles = "Recall by distance", f"distance in {symbol}s", "accuracy"
    return Figure("accuracy_vs_distance", *titles, series, caption, y_range=(0, 1.05), levels=levels)


def _about_seeds(series: Sequence[Series], styled: _Styled) -> str:
    text = " Over seeds: the mean, and the range as a band." if any(each.low is not None for each in series) else ""
    diverged = any(seed.diverged_after is not None for entry, _ in styled for seed in entry.result.seeds)
    return text + (" Seeds that diverged are left out." if diverged else "")


def _loss_range(series: Sequence[Series], vocabulary: int) -> tuple[float, float]:
    """A range without the first fall, which would flatten all that follows."""
    low = min(float((each.y if each.low is None else each.low).min()) for each in series)
    high = max(float(each.y[each.x >= _FIRST_FALL * each.x[-1]].max()) for each in series)
    high = min(high, max(math.log(vocabulary), low))  # a model that knows nothing gets log V
    margin = 0.04 * (high - low) or 0.1
    return low - margin, high + margin
