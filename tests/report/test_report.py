"""The plot of a run's losses is drawn from its metrics, in print and on screen."""

from pathlib import Path

import pytest

from charlstm.report.curve_plot import plot_curves
from charlstm.runs.metrics import Metrics
from charlstm.support.errors import InputError

pytest.importorskip("matplotlib", reason="the extra `report` is not installed")


def make_metrics(folder: Path, steps: int) -> Path:
    folder.mkdir()
    with Metrics(folder / "metrics.jsonl") as metrics:
        for step in range(1, steps + 1):
            metrics.append({"step": step, "loss": 3.0 / step})
            if step % 5 == 0:
                metrics.append({"step": step, "split": "validation", "loss": 3.1 / step})
    return folder


@pytest.mark.parametrize("ending", ["png", "svg"])
@pytest.mark.parametrize("steps", [1, 7, 60])
def test_runs_become_one_picture(tmp_path: Path, ending: str, steps: int) -> None:
    runs = [make_metrics(tmp_path / "one", steps), make_metrics(tmp_path / "two", 2 * steps)]
    picture = tmp_path / f"curves.{ending}"
    plot_curves(runs, picture)
    assert picture.stat().st_size > 5_000


def test_a_run_without_metrics_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no metrics"):
        plot_curves([tmp_path / "empty"], tmp_path / "curves.png")
