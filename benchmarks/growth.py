"""Sizes that grow along one axis, and how time and memory grew with them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from benchmarks.rounds import Measured
from benchmarks.shapes import Size, training_operations
from benchmarks.spreads import Spread, by_round, ratio
from benchmarks.table import NOTHING, megabytes, number, render, spread

Axis = Literal["T", "B", "H", "L"]
FIELDS: dict[Axis, str] = {"T": "time", "B": "batch", "H": "hidden", "L": "layers"}


def scaled(base: Size, axis: Axis, factor: int) -> Size:
    """The base with one of its counts multiplied."""
    return replace(base, **{FIELDS[axis]: getattr(base, FIELDS[axis]) * factor})


@dataclass(frozen=True)
class Growth:
    """A point of a sweep: one size against the base, measured in the same turns."""

    axis: Axis
    factor: int
    size: Size
    base: Size
    point: Measured
    beside: Measured
    """The base's."""

    @property
    def time(self) -> Spread | None:
        """How many times the base's time a training step takes, round by round."""
        return ratio(self.beside.seconds, self.point.seconds)

    @property
    def memory(self) -> float | None:
        """How many times the base's memory, above what the libraries took before anything was built."""
        above, base = memory_above_libraries(self.point), memory_above_libraries(self.beside)
        return above / base if above and base else None

    @property
    def operations(self) -> float:
        """How many times the base's operations of products."""
        return training_operations(self.size) / training_operations(self.base)

    def to_json(self) -> dict[str, Any]:
        """Everything raw."""
        parts = {"point": self.point, "base": self.beside}
        return {
            "axis": self.axis,
            "factor": self.factor,
            "size": str(self.size),
            **{
                name: {**part.built, "seconds": part.seconds, "peak_bytes": part.peak_bytes, "error": part.error}
                for name, part in parts.items()
            },
        }


def memory_above_libraries(measured: Measured) -> int | None:
    """Peak bytes of a process, but for those after its imports."""
    before = measured.built.get("import_bytes")
    return None if measured.peak_bytes is None or before is None else measured.peak_bytes - before


def growth_table(points: Sequence[Growth], *, markdown: bool = False) -> str:
    """A line for each point. Of linear: 1 is growth in proportion, below 1 is slower growth, above 1 faster."""
    lines = []
    for each in points:
        times, memory = Spread.of(by_round(each.point.seconds)), each.memory
        grown = each.time
        lines.append(
            [
                f"{each.axis} × {each.factor}",
                str(each.size),
                spread(times, 1e3),
                spread(grown),
                number(grown.median / each.factor) if grown else NOTHING,
                number(grown.median / each.operations) if grown else NOTHING,
                megabytes(memory_above_libraries(each.point)),
                number(memory),
                number(memory / each.factor) if memory else NOTHING,
            ]
        )
    titles = ["", "B×T×H×L", "ms a step", "× time", "of linear", "of operations", "MB", "× memory", "of linear"]
    return render(titles, lines, markdown=markdown)


def plot(points: Sequence[Growth], title: str, output: Any) -> None:
    """Draws growth of time and of memory against the factor, a line for each axis, on logarithmic axes.

    Args:
        points: of all axes; those that failed are left out.
        title: what was measured.
        output: the picture to write; its ending says the format.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    most = max((each.factor for each in points), default=1)
    for panel, name in zip(panels, ("time", "memory"), strict=True):
        for axis, marker in zip(FIELDS, "osD^", strict=True):
            of_axis = [each for each in points if each.axis == axis and each.time]
            grown = [(each.time.median if each.time else None) if name == "time" else each.memory for each in of_axis]
            line = [(1, 1.0), *((each.factor, value) for each, value in zip(of_axis, grown, strict=True) if value)]
            if len(line) > 1:
                panel.plot(*zip(*line, strict=True), marker=marker, label=axis, linewidth=1.3)
        panel.plot([1, most], [1, most], "--", color="gray", label="linear", linewidth=1)
        panel.plot([1, most], [1, most**2], ":", color="gray", label="quadratic", linewidth=1)
        panel.set(xscale="log", yscale="log", xlabel="factor", ylabel=f"× {name} of the base")
        ticks = sorted({1, *(each.factor for each in points)})
        panel.set_xticks(ticks, labels=list(map(str, ticks)))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(output, dpi=130)
    plt.close(figure)
