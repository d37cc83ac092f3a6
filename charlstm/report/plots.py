"""Draw figures for print, as PNG and SVG: text stays text, and nothing depends on colour alone."""

import io
import math
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from charlstm.report.entries import gather
from charlstm.report.figures import Figure, Series, Style, figures
from charlstm.support.errors import extra
from charlstm.support.files import write_atomic

# "High-contrast" and "bright" of Paul Tol, Colour Schemes (2021); the first three differ in grey as well.
_COLOURS = ("#004488", "#BB5566", "#DDAA33", "#228833", "#66CCEE", "#AA3377")
_MARKERS = ("o", "s", "D", "^", "v", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))
_COLUMNS = 3
_PANEL, _ALONE = (3.6, 3.1), (6.4, 3.8)  # inches
_MARKS = 12  # on a line


def plots(folders: Sequence[Path], output: Path) -> list[Path]:
    """Draws the figures of runs or comparisons, each as NAME.png and NAME.svg in the folder `output`; gives the paths.

    Raises:
        InputError: a folder is neither, a file in it is malformed, or matplotlib is not installed.
    """
    _import_matplotlib()
    output.mkdir(parents=True, exist_ok=True)
    return [path for figure in figures(gather(folders)) for path in _draw(figure, output)]


def _import_matplotlib() -> None:
    """Imports it where it reads an empty matplotlibrc, and not one in the current folder, such as a stranger's."""
    if "matplotlib" in sys.modules:
        return
    with extra("report"), TemporaryDirectory() as folder, chdir(folder):
        Path("matplotlibrc").touch()
        import matplotlib  # noqa: F401


def _draw(figure: Figure, output: Path) -> list[Path]:
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.figure import Figure as Picture

    panels = {name: [each for each in figure.series if each.panel == name] for name in figure.panels}
    columns = min(len(panels), _COLUMNS)
    rows = math.ceil(len(panels) / columns)
    width, height = _ALONE if len(panels) == 1 else (_PANEL[0] * columns, _PANEL[1] * rows)
    names = max(len({each.name for each in series}) for series in panels.values())
    height += 0.2 * rows * math.ceil(names / _COLUMNS)  # legends stand below, where they cover nothing
    # With the salt and without a date, the same figure gives the same file.
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": figure.name, "font.size": 9, "axes.titlesize": 10}
    style |= {"lines.linewidth": 1.4, "lines.markersize": 5}
    defaults = {name: value for name, value in rcParamsDefault.items() if name != "backend"}
    with rc_context(defaults | style):  # whatever a matplotlibrc says
        picture = Picture((width, height + 0.4), layout="constrained")
        grid = picture.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for place, (title, series) in enumerate(panels.items()):
            axes, lowest = grid.flat[place], place + columns >= len(panels)
            _panel(axes, figure, series)
            axes.set(title=title, xlabel=figure.x_title if lowest else "")
            axes.tick_params(labelbottom=lowest)
            if place % columns == 0:
                axes.set_ylabel(figure.y_title)
            if figure.losses and (place % columns == columns - 1 or place == len(panels) - 1):
                bits = axes.secondary_yaxis("right", functions=(lambda y: y / np.log(2), lambda y: y * np.log(2)))
                bits.set_ylabel(figure.y_title.replace("nats", "bits"))
        picture.supxlabel(figure.caption, fontsize=8, color="0.3", wrap=True)
        paths = [output / f"{figure.name}.{ending}" for ending in ("png", "svg")]
        for path in paths:
            drawn, metadata = io.BytesIO(), {"Date": None} if path.suffix == ".svg" else None
            picture.savefig(drawn, format=path.suffix[1:], dpi=200, metadata=metadata)
            write_atomic(path, drawn.getvalue())  # which follows no link
    return paths


def _panel(axes: Any, figure: Figure, series: Sequence[Series]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

    for each in series:
        _plot(axes, each)
    for name, level in figure.levels.items():
        axes.axhline(level, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(f" {name}", (1, level), xycoords=("axes fraction", "data"), va="center", color="0.4", fontsize=8)
    if figure.x_log:
        axes.set_xscale("log")
        decades = np.log10(max(each.x.max() for each in figure.series) / min(each.x.min() for each in figure.series))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1,)))
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
    marked = {each.name for each in series if each.marks}
    looks = {each.name: _look(each.style, marks=each.name in marked, line=True) for each in series}
    # A dollar would begin mathematics.
    handles = [Line2D([], [], label=name.replace("$", r"\$"), **look) for name, look in looks.items()]
    below: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": _COLUMNS, "columnspacing": 0.8}
    axes.legend(handles=handles, frameon=False, handlelength=3.8, fontsize=7, markerscale=0.7, **below)


def _plot(axes: Any, series: Series) -> None:
    look = _look(series.style, marks=series.marks, line=series.line)
    if series.line:
        look["markevery"] = math.ceil(len(series.x) / _MARKS)
    if series.faint:
        look |= {"linestyle": ":", "linewidth": 0.8, "alpha": 0.7}
    if series.spread == "bars" and series.low is not None and series.high is not None:
        # Some versions take the float of an array's row, of which NumPy warns; lists have none.
        errors = [(series.y - series.low).tolist(), (series.high - series.y).tolist()]
        axes.errorbar(series.x, series.y, errors, capsize=3, **look)
        return
    axes.plot(series.x, series.y, **look)
    if series.low is not None and series.high is not None:
        axes.fill_between(series.x, series.low, series.high, color=look["color"], alpha=0.2, linewidth=0)


def _look(style: Style, *, marks: bool, line: bool) -> dict[str, Any]:
    dash, marker = _DASHES[style.dash] if line else "none", _MARKERS[style.colour] if marks else "none"
    edge = {"markeredgecolor": "black", "markeredgewidth": 0.6}
    return {"color": _COLOURS[style.colour], "linestyle": dash, "marker": marker, **edge}
