"""What the version before the rebuild wrote still opens, draws the same text, goes on and is shown.

Its checkpoints hold a state as one item, its grids have a field for each cell's learning rate, and the seeds of a
comparison that was stopped share checkpoints in a folder of their model.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import unpack_before_rebuild

import charlstm
from charlstm import cli
from charlstm.runs.loading import load_run
from charlstm.runs.metrics import read

pytestmark = pytest.mark.slow

PRIME = "I grew up in "
STOPPED = ["--train.steps", "300", "--train.validate-every", "100", "--train.checkpoint-every", "10"]
"""The options that the stopped comparison was begun with."""

# Flax's cells trained `plain` in bfloat16; in the fast loop, which reads it now, a layer rounds once less.
each_run = pytest.mark.parametrize(("name", "of_loss", "of_losses"), [("run", 1e-6, 1e-5), ("plain", 1e-3, 1e-3)])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return unpack_before_rebuild(tmp_path)


@pytest.fixture
def expected(old: Path) -> dict[str, Any]:
    return json.loads((old / "expected.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> list[dict[str, Any]]:
    rows = json.loads((folder / "results.json").read_text())["models"]
    for seed in (seed for row in rows for seed in row["seeds"]):
        for later in ("seconds", "chars_per_second"):  # which were not told of each seed then
            seed.pop(later, None)
    # What was not measured then is None, and differences were paired by seed.
    return [{name: each for name, each in row.items() if name != "difference" and each is not None} for row in rows]


def test_every_run_opens(old: Path) -> None:
    runs = {path.parents[1] for path in old.rglob("checkpoints/*") if path.parents[1].name != "training"}
    assert len(runs) == 8
    for run in runs:
        opened = load_run(run)
        assert opened.step == max(int(path.name) for path in (run / "checkpoints").iterdir())
        assert not opened.notes


@each_run
def test_a_run_draws_the_same_text_and_has_the_same_loss(
    old: Path, expected: dict[str, Any], name: str, of_loss: float, of_losses: float
) -> None:
    run = load_run(old / name)
    assert run.sample(PRIME, length=200, seed=3) + "\n" == expected[name]["sample"]  # the command ended its line
    assert run.evaluate("validation", exact=True).loss == pytest.approx(expected[name]["loss"], rel=0, abs=of_loss)


@each_run
def test_a_run_goes_on(old: Path, expected: dict[str, Any], name: str, of_loss: float, of_losses: float) -> None:
    config = load_run(old / name).config
    charlstm.train(replace(config, train=replace(config.train, steps=30)), old / name)
    losses = [row["loss"] for row in read(old / name) if "split" not in row]
    np.testing.assert_allclose(losses, expected[name]["losses"], rtol=0, atol=of_losses)
    assert load_run(old / name, checkpoint="latest").step == 30


def test_a_finished_comparison_is_shown_and_not_trained(old: Path) -> None:
    runs = sorted((old / "grid").glob("*/seed-*"))
    before, shown = [files(run) for run in runs], table(old / "grid")
    assert cli.run(["compare", str(old / "grid_experiment.py"), "--run-dir", str(old / "grid")]) == 0
    assert [files(run) for run in runs] == before and len(runs) == 4
    assert table(old / "grid") == shown


def test_a_comparison_that_was_stopped_goes_on_to_its_end(old: Path) -> None:
    folder = old / "stopped"
    finished = files(folder / "rnn-1x8")
    assert cli.run(["compare", str(old / "grid_experiment.py"), "--run-dir", str(folder), *STOPPED]) == 0
    assert files(folder / "rnn-1x8") == finished
    assert [row["test"]["n"] for row in table(folder)] == [2, 2]
    for seed in (folder / "gru-1x8").glob("seed-*"):
        assert [row["step"] for row in read(seed) if "split" not in row] == list(range(1, 301))
        assert load_run(seed, checkpoint="latest").step == 300
