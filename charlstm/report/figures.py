"""Describe figures as data, which `plots` draws for print and `page` on a screen."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np

from charlstm.analysis.gradient_reach import reach
from charlstm.compare.results import Interval
from charlstm.report.curves import Floats, thin
from charlstm.report.entries import Entry
from charlstm.report.styles import DASHES, Style, cell_colours, styles
from charlstm.support.errors import InputError

_SMALLEST = 1e-6  # of a gradient's start; float32 resolves nothing below
_FIRST_FALL = 0.1  # of a training, whose losses need not fit into the picture


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
    styled = list(zip(entries, styles(entries), strict=True))
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        drawn = [draw(styled, symbol_of(entries)) for draw in (_by_step, _by_depth, _by_compute, _by_lag, _by_distance)]
    found = [figure for figure in drawn if figure and figure.series]
    for each in (series for figure in found for series in figure.series):
        if not all(values is None or np.isfinite(values).all() for values in (each.x, each.y, each.low, each.high)):
            raise InputError("the results hold numbers too large to be drawn; put back the comparison's own")
    return found


def symbol_of(entries: Sequence[Entry]) -> str:
    """What the models predict at each step: "character" or "byte", or "symbol" where they differ."""
    kinds = {entry.corpus.symbols for entry in entries}
    return kinds.pop().removesuffix("s") if len(kinds) == 1 else "symbol"


_Styled = Sequence[tuple[Entry, Style]]


def _series(entry: Entry, style: Style, x: Floats, y: Floats, *spread: Floats | None, **how: Any) -> Series:
    """One panel for each depth in a comparison; runs that nobody set side by side share one."""
    depth = entry.result.num_layers
    how.setdefault("panel", f"{depth} {'layer' if depth == 1 else 'layers'}" if entry.compared else "")
    low, high = spread or (None, None)
    return Series(name=entry.name, style=style, x=x, y=y, low=low, high=high, **how)


def _by_step(styled: _Styled, symbol: str) -> Figure | None:
    series = []
    for entry, style in styled:
        if (curve := entry.training) is not None:
            series.append(_series(entry, style, *curve))
        if (curve := entry.validation) is not None:
            series.append(_series(entry, style, curve.step, curve.loss, line=False, marks=True))
    if not series:
        return None
    caption = f"Lines: training loss, averaged over steps. Marks: validation loss.{_about_seeds(series, styled)}"
    y_range = _loss_range(series, max(entry.corpus.vocabulary for entry, _ in styled))
    titles = "Loss by step", "training step", f"nats per {symbol}"
    return Figure("loss_vs_step", *titles, series, caption, losses=True, y_range=y_range)


def _by_depth(styled: _Styled, symbol: str) -> Figure | None:
    tested = any(entry.result.test for entry, _ in styled)
    losses: dict[tuple[str, int, str], dict[int, list[Interval]]] = {}
    for entry, _ in styled:
        model = entry.result
        if (loss := model.test if tested else model.validation) is not None:
            row = losses.setdefault((model.cell, model.size, entry.corpus.name), {})
            row.setdefault(model.num_layers, []).append(loss)
    if max(map(len, losses.values()), default=0) < 2:
        return None
    cells, sizes, corpora = ({*column} for column in zip(*losses, strict=True))
    colours, settings = cell_colours(cells), sorted({setting[1:] for setting in losses})
    series = []
    for (cell, size, corpus), row in losses.items():
        name = cell + (f", size {size:,}" if len(sizes) > 1 else "") + (f" ({corpus})" if len(corpora) > 1 else "")
        best = [min(row[depth], key=lambda loss: loss.mean) for depth in sorted(row)]
        bounds = np.array([[loss.mean] * 2 if loss.half is None else [loss.low, loss.high] for loss in best], float).T
        low, high = bounds if any(loss.half is not None for loss in best) else (None, None)
        style = Style(colours[cell], settings.index((size, corpus)) % DASHES)
        x, y = np.array(sorted(row), float), np.array([loss.mean for loss in best])
        series.append(Series(name=name, style=style, x=x, y=y, low=low, high=high, marks=True, spread="bars"))
    caption = f"{'Test' if tested else 'Best validation'} loss of each cell."
    if any(len(same) > 1 for row in losses.values() for same in row.values()):
        caption += " Of runs with the same cell, size and depth, the best."
    if any(each.low is not None for each in series):
        caption += f" Bars: {styled[0][0].confidence:.0%} confidence intervals over seeds."
    titles = "Loss by depth", "layers", f"{'test' if tested else 'validation'} nats per {symbol}"
    return Figure("loss_vs_depth", *titles, series, caption, losses=True, x_whole=True)


def _by_compute(styled: _Styled, symbol: str) -> Figure:
    # Where dashes tell sizes apart, depths need panels of their own.
    panel = {} if len({entry.result.size for entry, _ in styled}) > 1 else {"panel": ""}
    series = [
        _series(entry, style, curve.step * (operations / entry.steps), *curve[1:], marks=True, **panel)
        for entry, style in styled
        if (curve := entry.validation) is not None and (operations := entry.result.operations) and entry.steps
    ]
    caption = f"Validation loss by the operations that training one seed took so far.{_about_seeds(series, styled)}"
    titles = "Loss by compute", "floating-point operations", f"validation nats per {symbol}"
    return Figure("loss_vs_compute", *titles, series, caption, losses=True, x_log=True)


def _by_lag(styled: _Styled, symbol: str) -> Figure | None:
    series = []
    for entry, style in styled:
        for norms, faint in ((entry.result.gradient, False), (entry.result.fresh_gradient, True)):
            layers = [np.array(layer) for layer in norms or () if layer and layer[0] > 0]
            if layers:
                furthest = max(layers, key=lambda layer: math.inf if (lag := reach(layer)) is None else lag)
                fall, lags = furthest / furthest[0], thin(len(furthest))
                lags = lags[fall[lags] > 0]
                series.append(_series(entry, style, lags.astype(float), fall[lags], marks=not faint, faint=faint))
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
            series.append(_series(entry, style, np.array(recall.distances), np.array(recall.accuracy), marks=True))
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
