"""Metrics become a plot: training and validation loss of one run or several.

python -m charlstm.report RUN [RUN ...] OUTPUT.png   (or .svg; needs the extra `report`)
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from charlstm.errors import InputError
from charlstm.metrics import read

_SMOOTHED_OVER = 20  # training steps
_MARKERS = "osD^v"


def plot_curves(runs: Sequence[Path], output: Path) -> None:
    """Draws loss against step: a line for training, smoothed, and marks for validation.

    Args:
        runs: folders of runs; each is called by its folder's name.
        output: the picture to write; its ending says the format.

    Raises:
        InputError: a run has no metrics.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for number, folder in enumerate(runs):
        records = read(folder)
        training = np.array([(row["step"], row["loss"]) for row in records if "split" not in row])
        validation = np.array([(row["step"], row["loss"]) for row in records if "split" in row])
        if not len(training):
            raise InputError(f"{folder} has no metrics to draw; train it first")
        window = min(_SMOOTHED_OVER, len(training))
        smooth = np.convolve(training[:, 1], np.ones(window) / window, "valid")
        style = ("-", "--", "-.", ":")[number % 4]
        (line,) = axes.plot(training[window - 1 :, 0], smooth, style, label=f"{folder.name}: training", linewidth=1.3)
        if len(validation):
            marker = _MARKERS[number % len(_MARKERS)]
            label = f"{folder.name}: validation"
            axes.plot(*validation.T, marker, color=line.get_color(), label=label, markersize=6, markeredgecolor="black")
    axes.set(xlabel="step", ylabel="nats per character")
    axes.set_ylim(top=min(axes.get_ylim()[1], 3.0))
    axes.secondary_yaxis("right", functions=(_bits, _nats)).set_ylabel("bits per character")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(output, dpi=130)
    plt.close(figure)


def _bits(nats: ArrayLike) -> ArrayLike:
    return np.asarray(nats) / np.log(2)


def _nats(bits: ArrayLike) -> ArrayLike:
    return np.asarray(bits) * np.log(2)


if __name__ == "__main__":
    *folders, picture = map(Path, sys.argv[1:])
    plot_curves(folders, picture)
