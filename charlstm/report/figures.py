"""Exhibits become figures as data, which `plots` draws for print and `page` for a screen.

Colour is never alone: what a colour tells, the shape of the marks tells too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from charlstm.compare.results import Interval
from charlstm.report.curves import Curve, Floats, thinned
from charlstm.report.entries import Exhibit, Text
from charlstm.support.errors import InputError

COLOURS, DASHES, SYMBOLS = 6, 5, 6
"""How many of each there are; plots and page say which."""
_LEAST = 1e-6  # of a gradient's start; float32 has nothing to tell below
_REACHED = 0.01  # of a gradient's start, as a comparison's reach is defined
_SETTLED = 0.1  # the part of a training after which its losses must fit in the picture


@dataclass(frozen=True)
class Style:
    """Numbers of a colour, a dash and a symbol."""

    colour: int
    dash: int
    symbol: int


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values [N] of one model, and their spread [N] where there is one."""

    name: str
    style: Style
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    line: bool = True
    marks: bool = False
    """On a line, as many as tell it from others."""
    faint: bool = False
    spread: Literal["band", "bars"] = "band"
    panel: str = ""
    """Series of one panel are drawn together where there is room for several pictures."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One picture: `losses` are in nats, which a second axis gives in bits."""

    name: str
    title: str
    caption: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    losses: bool = False
    x_log: bool = False
    y_log: bool = False
    x_whole: bool = False
    """Ticks at whole numbers only."""
    y_range: tuple[float, float] | None = None
    levels: dict[str, float] = field(default_factory=dict)
    """Named horizontal lines."""

    @property
    def panels(self) -> list[str]:
        """The panels of its series, in order."""
        return [*dict.fromkeys(each.panel for each in self.series)]


def figures(exhibits: Sequence[Exhibit]) -> list[Figure]:
    """The figures that there is data for.

    Raises:
        InputError: a quotient or a product of what was found is not finite.
    """
    styles = _styles(exhibits)
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of that is refused
        made = [draw(exhibits, styles) for draw in (_steps, _depth, _compute, _lags, _distances)]
    found = [figure for figure in made if figure is not None]
    for each in (series for figure in found for series in figure.series):
        if not all(np.isfinite(values).all() for values in (each.x, each.y, each.low, each.high) if values is not None):
            raise InputError("the results hold numbers too large to be drawn; put back the comparison's own")
    return found


def unit(exhibits: Sequence[Exhibit]) -> str:
    """What one step of all these models predicts: a character, a byte, or a symbol where they differ."""
    kinds = {exhibit.text.symbols for exhibit in exhibits}
    return {"characters": "character", "bytes": "byte"}[kinds.pop()] if len(kinds) == 1 else "symbol"


def _styles(exhibits: Sequence[Exhibit]) -> list[Style]:
    """In a comparison colour and symbol tell the cell, and the dash its size or, where all have one size, its depth."""
    told = [(each.result.cell, each.result.num_layers, each.result.size) for each in exhibits]
    if not all(each.compared for each in exhibits) or len(set(told)) < len(told):
        return [Style(k % COLOURS, k // COLOURS % DASHES, k % SYMBOLS) for k in range(len(exhibits))]
    cells, depths, sizes = (sorted(set(column)) for column in zip(*told, strict=True))
    dashes = [sizes.index(size) if len(sizes) > 1 else depths.index(depth) for _, depth, size in told]
    colours = [_cell(cell, cells) for cell, _, _ in told]
    return [Style(colour, dash % DASHES, colour) for colour, dash in zip(colours, dashes, strict=True)]


def _cell(cell: str, cells: Sequence[str]) -> int:
    """A cell's colour and symbol, the same in every comparison."""
    known = ("lstm", "gru", "rnn")
    return known.index(cell) if cell in known else (len(known) + cells.index(cell)) % COLOURS


def _panel(exhibit: Exhibit) -> str:
    """Models of one depth are drawn together, and runs that nobody set side by side all in one panel."""
    depth = exhibit.result.num_layers
    return f"{depth} {'layer' if depth == 1 else 'layers'}" if exhibit.compared else ""


def _steps(exhibits: Sequence[Exhibit], styles: Sequence[Style]) -> Figure | None:
    series, drawn = [], []
    for exhibit, style in zip(exhibits, styles, strict=True):
        for curve, measured in ((exhibit.training, False), (exhibit.validation, True)):
            if curve is not None:
                series.append(
                    Series(
                        name=exhibit.name,
                        style=style,
                        x=curve.step,
                        y=curve.loss,
                        low=None if measured else curve.low,
                        high=None if measured else curve.high,
                        line=not measured,
                        marks=measured,
                        panel=_panel(exhibit),
                    )
                )
                drawn.append(curve)
    if not series:
        return None
    return Figure(
        name="loss_vs_step",
        title="Loss against step",
        caption=f"Lines: training, each point a mean over steps. Marks: validation.{_seeds(series, exhibits)}",
        x_title="training step",
        y_title=f"nats per {unit(exhibits)}",
        series=tuple(series),
        losses=True,
        y_range=_fitting(drawn, max(exhibit.text.vocabulary for exhibit in exhibits)),
    )


def _depth(exhibits: Sequence[Exhibit], _: Sequence[Style]) -> Figure | None:
    tested = any(exhibit.result.test for exhibit in exhibits)
    rows: dict[tuple[Text, str, int], dict[int, Interval]] = {}
    shared = False
    for exhibit in exhibits:
        model = exhibit.result
        loss = model.test if tested else model.validation
        if loss is not None:
            row = rows.setdefault((exhibit.text, model.cell, model.size), {})
            known = row.setdefault(model.num_layers, loss)
            shared |= known is not loss
            row[model.num_layers] = min(known, loss, key=lambda each: each.mean)
    if max(map(len, rows.values()), default=0) < 2:
        return None
    texts, cells, sizes = ([*dict.fromkeys(column)] for column in zip(*rows, strict=True))
    sizes.sort()
    series = []
    for (text, cell, size), row in rows.items():
        depths = sorted(row)
        low, high = _ends([row[depth] for depth in depths])
        name = f"{cell}, size {size:,}" if len(sizes) > 1 else cell
        colour = _cell(cell, cells)
        series.append(
            Series(
                name=f"{name} ({text.corpus})" if len(texts) > 1 else name,
                style=Style(colour, (sizes.index(size) + texts.index(text)) % DASHES, colour),
                x=np.array(depths, float),
                y=np.array([row[depth].mean for depth in depths]),
                marks=True,
                spread="bars",
                low=low,
                high=high,
            )
        )
    lowest = " Of runs that share a place, the lowest." if shared else ""
    bars = any(each.low is not None for each in series)
    level = f" Bars: {exhibits[0].confidence:.0%} intervals over seeds." if bars else ""
    return Figure(
        name="loss_vs_depth",
        title="Loss against depth",
        caption=f"{'Test' if tested else 'Best validation'} loss of each cell.{lowest}{level}",
        x_title="layers",
        y_title=f"{'test' if tested else 'validation'} nats per {unit(exhibits)}",
        series=tuple(series),
        losses=True,
        x_whole=True,
    )


def _compute(exhibits: Sequence[Exhibit], styles: Sequence[Style]) -> Figure | None:
    series = []
    many_sizes = len({exhibit.result.size for exhibit in exhibits}) > 1  # a dash is a size's then, and no depth's
    for exhibit, style in zip(exhibits, styles, strict=True):
        curve, operations = exhibit.validation, exhibit.result.operations
        if curve is not None and operations and exhibit.steps:
            series.append(
                Series(
                    name=exhibit.name,
                    style=style,
                    x=curve.step * (operations / exhibit.steps),
                    y=curve.loss,
                    low=curve.low,
                    high=curve.high,
                    marks=True,
                    panel=_panel(exhibit) if many_sizes else "",
                )
            )
    if not series:
        return None
    return Figure(
        name="loss_vs_compute",
        title="Loss against compute",
        caption="Validation loss against the floating-point operations of one seed's training so far."
        + _seeds(series, exhibits),
        x_title="floating-point operations",
        y_title=f"validation nats per {unit(exhibits)}",
        series=tuple(series),
        losses=True,
        x_log=True,
    )


def _lags(exhibits: Sequence[Exhibit], styles: Sequence[Style]) -> Figure | None:
    series = []
    for exhibit, style in zip(exhibits, styles, strict=True):
        for norms, faint in ((exhibit.result.gradient, False), (exhibit.result.fresh_gradient, True)):
            if norms and (falls := [_relative(layer) for layer in norms if layer and layer[0] > 0]):
                furthest = max(falls, key=_reach)
                kept = thinned(len(furthest))
                kept = kept[furthest[kept] > 0]
                series.append(
                    Series(
                        name=exhibit.name,
                        style=style,
                        x=kept.astype(float),
                        y=furthest[kept],
                        marks=not faint,
                        faint=faint,
                        panel=_panel(exhibit),
                    )
                )
    if not series:
        return None
    least = min(float(each.y.min(initial=1)) for each in series)
    untrained = " Thin and dotted: before training." if any(each.faint for each in series) else ""
    return Figure(
        name="gradient_vs_lag",
        title="Gradient against lag",
        caption="Norm of ∂loss(t)/∂h(t−k) as part of what it is at k = 0: the median over t, and the mean over seeds,"
        f" in the layer where it reaches furthest.{untrained}",
        x_title=f"lag k in {unit(exhibits)}s",
        y_title="gradient, part of its start",
        series=tuple(series),
        y_log=True,
        y_range=(max(least, _LEAST) / 1.5, max(1.5, *(float(each.y.max(initial=1)) * 1.5 for each in series))),
        levels={"reach": _REACHED},
    )


def _distances(exhibits: Sequence[Exhibit], styles: Sequence[Style]) -> Figure | None:
    series, levels = [], {}
    for exhibit, style in zip(exhibits, styles, strict=True):
        recall = exhibit.result.recall
        if recall is not None and recall.distances and len(recall.distances) == len(recall.accuracy):
            series.append(
                Series(
                    name=exhibit.name,
                    style=style,
                    x=np.array(recall.distances),
                    y=np.array(recall.accuracy),
                    marks=True,
                    panel=_panel(exhibit),
                )
            )
            levels["chance"] = recall.chance
    if not series:
        return None
    return Figure(
        name="accuracy_vs_distance",
        title="Accuracy against distance",
        caption="How often the model recalls what it read so far back.",
        x_title=f"distance in {unit(exhibits)}s",
        y_title="accuracy",
        series=tuple(series),
        y_range=(0, 1.05),
        levels=levels,
    )


def _relative(norms: Sequence[float]) -> Floats:
    return np.array(norms) / norms[0]


def _reach(fall: Floats) -> int:
    return int(np.flatnonzero(fall >= _REACHED)[-1])


def _ends(intervals: Sequence[Interval]) -> tuple[Floats, Floats] | tuple[None, None]:
    """Low and high of intervals, at the mean where one has none; None where none has."""
    if all(each.half is None for each in intervals):
        return None, None
    known = [(each.low, each.high) if each.half is not None else (each.mean, each.mean) for each in intervals]
    low, high = np.array(known, float).T
    return low, high


def _seeds(series: Sequence[Series], exhibits: Sequence[Exhibit]) -> str:
    many = any(each.low is not None for each in series)
    diverged = any(seed.diverged_after is not None for exhibit in exhibits for seed in exhibit.result.seeds)
    band = " Over seeds: the mean, and a band from the least to the greatest." if many else ""
    return band + (" Seeds that diverged are left out." if diverged else "")


def _fitting(drawn: Sequence[Curve], vocabulary: int) -> tuple[float, float]:
    """A range for losses that leaves out the first fall, which would press all else together."""
    low = min(float((curve.loss if curve.low is None else curve.low).min()) for curve in drawn)
    settled = [curve.loss[curve.step >= _SETTLED * curve.step[-1]].max() for curve in drawn]
    high = min(float(max(settled)), max(math.log(vocabulary), low))  # no model need be worse than knowing nothing
    room = 0.04 * (high - low) or 0.1
    return low - room, high + room
