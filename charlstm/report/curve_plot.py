"""Metrics become a plot: training and validation loss of one run or several.

python -m charlstm.report.curve_plot RUN [RUN ...] OUTPUT.png   (or .svg; needs the extra `report`)
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from charlstm.report.curves import SMOOTHED_OVER, points, smoothed
from charlstm.report.plots import add_bits_axis
from charlstm.runs.metrics import read
from charlstm.support.errors import InputError, extra

_MARKERS = "osD^v"


def plot_curves(runs: Sequence[Path], output: Path) -> None:
    """Draws loss against step: a line for training, smoothed, and marks for validation.

    Args:
        runs: folders of runs; each is called by its folder's name.
        output: the picture to write; its ending says the format.

    Raises:
        InputError: a run has no metrics.
    """
    with extra("report"):
        import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for number, folder in enumerate(runs):
        records = read(folder)
        training, validation = (points(records, validation=split) for split in (False, True))
        if not len(training):
            raise InputError(f"{folder} has no metrics to draw; train it first")
        smooth = smoothed(training, SMOOTHED_OVER)
        style = ("-", "--", "-.", ":")[number % 4]
        (line,) = axes.plot(*smooth.T, style, label=f"{folder.name}: training", linewidth=1.3)
        if len(validation):
            marker = _MARKERS[number % len(_MARKERS)]
            label = f"{folder.name}: validation"
            axes.plot(*validation.T, marker, color=line.get_color(), label=label, markersize=6, markeredgecolor="black")
    axes.set(xlabel="step", ylabel="nats per character")
    axes.set_ylim(top=min(axes.get_ylim()[1], 3.0))
    add_bits_axis(axes, "bits per character")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(output, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    *folders, picture = map(Path, sys.argv[1:])
    plot_curves(folders, picture)
