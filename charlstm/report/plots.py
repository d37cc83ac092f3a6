"""Figures become pictures for print: PNG and SVG, with text as text, and readable without colour."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from charlstm.compare.results import Results
from charlstm.report import entries as exhibits
from charlstm.report.figures import Figure, Series, Style, figures
from charlstm.support.errors import extra
from charlstm.support.files import write_atomic

# "High-contrast" and "bright" of Paul Tol, Colour Schemes (2021); the first three differ in grey as well.
_COLOURS = ("#004488", "#BB5566", "#DDAA33", "#228833", "#66CCEE", "#AA3377")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))
_MARKERS = ("o", "s", "D", "^", "v", "X")
_COLUMNS = 3
_PANEL = (3.6, 3.1)  # inches
_ALONE = (6.4, 3.8)
_MARKED = 12  # marks on a line
_INSIDE = 4
"""More names than these would cover the lines."""


def plots(found: Results, folder: Path, output: Path) -> list[Path]:
    """Draws the figures of a comparison that there is data for, each as NAME.png and NAME.svg.

    Args:
        found: what it found.
        folder: of the comparison, with its runs.
        output: the folder of the pictures, made when missing.

    Returns:
        The pictures' paths.

    Raises:
        InputError: a run's files are malformed, or matplotlib is not installed.
    """
    with extra("report"):
        import matplotlib
    matplotlib.use("Agg")
    output.mkdir(parents=True, exist_ok=True)
    made = []
    for figure in figures(exhibits.of_comparison(found, folder)):
        made += _draw(figure, output)
    return made


def add_bits_axis(axes: Any, title: str) -> None:
    """A second axis, on the right, for losses in nats."""
    axes.secondary_yaxis("right", functions=(_bits, _nats)).set_ylabel(title)


def _draw(figure: Figure, output: Path) -> list[Path]:
    import matplotlib.pyplot as plt

    panels = figure.panels
    columns = min(len(panels), _COLUMNS)
    rows = math.ceil(len(panels) / columns)
    width, height = _ALONE if len(panels) == 1 else (_PANEL[0] * columns, _PANEL[1] * rows)
    most = max(len({each.name for each in figure.series if each.panel == panel}) for panel in panels)
    height += 0.2 * rows * math.ceil(most / _COLUMNS) if most > _INSIDE else 0
    # SVG keeps text as text, which can be read and searched, and the same figure gives the same file.
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": figure.name, "font.size": 9, "axes.titlesize": 10}):
        picture, grid = plt.subplots(
            rows, columns, figsize=(width, height + 0.4), layout="constrained", sharex=True, sharey=True, squeeze=False
        )
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_visible(False)
                continue
            _panel(axes, figure, [each for each in figure.series if each.panel == panels[place]])
            axes.set_title(panels[place])
            last_in_row = place % columns == columns - 1 or place == len(panels) - 1
            axes.tick_params(labelbottom=place + columns >= len(panels))
            axes.set_xlabel(figure.x_title if place + columns >= len(panels) else "")
            axes.set_ylabel(figure.y_title if place % columns == 0 else "")
            if figure.losses and last_in_row:
                add_bits_axis(axes, figure.y_title.replace("nats", "bits"))
        picture.supxlabel(figure.caption, fontsize=8, color="0.3", wrap=True)
        paths = [output / f"{figure.name}.{ending}" for ending in ("png", "svg")]
        for path in paths:
            drawn, ending = io.BytesIO(), path.suffix[1:]
            picture.savefig(drawn, format=ending, dpi=200, metadata={"Date": None} if ending == "svg" else None)
            write_atomic(path, drawn.getvalue())  # which follows no link
        plt.close(picture)
    return paths


def _panel(axes: Any, figure: Figure, series: Sequence[Series]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

    for each in series:
        _series(axes, each)
    for name, level in figure.levels.items():
        axes.axhline(level, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="top", color="0.4")
    if figure.x_log:
        axes.set_xscale("log")
        decades = np.log10(max(each.x.max() for each in figure.series) / min(each.x.min() for each in figure.series))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1,)))  # all there is room for
        axes.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if figure.y_log:
        axes.set_yscale("log")
    if figure.x_whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if figure.y_range:
        axes.set_ylim(*figure.y_range)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top"]].set_visible(False)
    named = {each.name: each for each in sorted(series, key=lambda each: each.faint, reverse=True)}
    marked = {each.name for each in series if each.marks}
    handles = [
        Line2D([], [], label=_plain(name), **_look(each.style, marks=name in marked, line=True))
        for name, each in named.items()
    ]
    if len(handles) <= _INSIDE:
        axes.legend(handles=handles, frameon=False, handlelength=4.5, fontsize=8, markerscale=0.8)
    else:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": _COLUMNS, "columnspacing": 0.8}
        axes.legend(handles=handles, frameon=False, handlelength=3.8, fontsize=7, markerscale=0.7, **below)


def _series(axes: Any, each: Series) -> None:
    look = _look(each.style, marks=each.marks, line=each.line)
    if each.line:
        look["markevery"] = math.ceil(len(each.x) / _MARKED)
    if each.faint:
        look |= {"linestyle": ":", "linewidth": 0.8, "alpha": 0.7}
    if each.low is None or each.high is None:
        axes.plot(each.x, each.y, **look)
    elif each.spread == "bars":
        # Lists: some versions take the float of an array's row, of which NumPy then warns.
        errors = [(each.y - each.low).tolist(), (each.high - each.y).tolist()]
        axes.errorbar(each.x, each.y, errors, capsize=3, **look)
    else:
        axes.plot(each.x, each.y, **look)
        axes.fill_between(each.x, each.low, each.high, color=look["color"], alpha=0.2, linewidth=0)


def _look(style: Style, *, marks: bool, line: bool) -> dict[str, Any]:
    colour = _COLOURS[style.colour]
    return {
        "color": colour,
        "linestyle": _DASHES[style.dash] if line else "none",
        "linewidth": 1.4,
        "marker": _MARKERS[style.symbol] if marks else "none",
        "markersize": 5,
        "markeredgecolor": "black",
        "markeredgewidth": 0.6,
    }


def _plain(name: str) -> str:
    """A dollar sign in a name begins no mathematics."""
    return name.replace("$", r"\$")


def _bits(nats: ArrayLike) -> ArrayLike:
    return np.asarray(nats) / np.log(2)


def _nats(bits: ArrayLike) -> ArrayLike:
    return np.asarray(bits) * np.log(2)
