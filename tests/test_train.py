"""The loop, through the command line's own entry: what a run leaves, and that a run which stopped is the same run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charlstm import cli
from charlstm.board import Board
from charlstm.metrics import read
from charlstm.runs import only_writer

TEXT = "In the beginning was a tiny text, and it was read again and again. " * 40
REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = {
    "data.batch-size": 3,
    "data.seq-length": 16,
    "model.hidden-size": 8,
    "model.num-layers": 2,
    "model.dropout": 0.25,
    "optimizer.warmup-steps": 3,
    "train.steps": 24,
    "train.validate-every": 6,
    "train.checkpoint-every": 4,
    "train.sample-every": 12,
    "train.tensorboard": False,
    "sample.length": 20,
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a run on it that was left alone."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "tiny.txt").write_text(TEXT)
    assert cli.run(words(folder / "tiny.txt", folder / "whole")) == 0
    return folder


@pytest.fixture
def text(template: Path) -> Iterator[Path]:
    yield template / "tiny.txt"
    (template / "tiny.txt").write_text(TEXT)


@pytest.fixture
def whole(template: Path, tmp_path: Path) -> Path:
    """A copy of the run, to look at or to break."""
    return shutil.copytree(template / "whole", tmp_path / "whole")


def words(text: Path, folder: Path, **fields: Any) -> list[str]:
    merged = SMALL | {name.replace("__", ".").replace("_", "-"): value for name, value in fields.items()}
    options = [word for name, value in merged.items() for word in (f"--{name}", str(value))]
    return ["train", "--run-dir", str(folder), "--data.corpus", str(text), *options]


def bits(folder: Path, step: int) -> list[dict[str, Any]]:
    """Name, shape and SHA-256 of every array in a checkpoint."""
    return json.loads((folder / "checkpoints" / str(step) / "integrity" / "integrity.json").read_text())["leaves"]


def told(folder: Path) -> list[dict[str, Any]]:
    """The metrics, but for the speed, which no two runs share."""
    return [{key: value for key, value in row.items() if key != "chars_per_second"} for row in read(folder)]


def assert_same_run(left: Path, right: Path, step: int = 24) -> None:
    assert bits(left, step) == bits(right, step)
    assert told(left) == told(right)
    names = sorted(path.name for path in (left / "samples").iterdir())
    assert names == sorted(path.name for path in (right / "samples").iterdir())
    assert all((left / "samples" / name).read_bytes() == (right / "samples" / name).read_bytes() for name in names)


def stop_at(patch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Sends this process a signal while the metrics of `step` are written for the first time."""
    add, sent = Board.add, []

    def add_and_stop(board: Board, at: int, scalars: dict[str, float]) -> None:
        add(board, at, scalars)
        if at == step and not sent:
            sent.append(number)
            signal.raise_signal(number)

    patch.setattr(Board, "add", add_and_stop)


def test_a_run_leaves_the_files_that_the_design_names(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [
        "checkpoints",
        "config.json",
        "corpus.json",
        "metrics.jsonl",
        "samples",
        "vocabulary.json",
    ]
    training = [row for row in read(whole) if "split" not in row]
    validation = [row for row in read(whole) if "split" in row]
    assert [row["step"] for row in training] == list(range(1, 25))
    assert list(training[0]) == [
        "step",
        "epoch",
        "loss",
        "bits_per_char",
        "grad_norm",
        "learning_rate",
        "chars_per_second",
    ]
    assert [row["step"] for row in validation] == [6, 12, 18, 24]
    assert list(validation[0]) == ["step", "split", "loss", "bits_per_char"]
    assert [path.name for path in sorted((whole / "samples").iterdir())] == ["12.txt", "24.txt"]
    assert (whole / "samples" / "24.txt").read_text().startswith("In the beginning")
    assert training[-1]["loss"] < training[0]["loss"]


def test_the_newest_checkpoints_and_the_best_stay(whole: Path) -> None:
    validation = {row["step"]: row["loss"] for row in read(whole) if "split" in row}
    best = min(validation, key=lambda step: validation[step])
    kept = {int(path.name) for path in (whole / "checkpoints").iterdir()}
    assert kept >= {24, 20, best}
    assert len(kept) <= 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_continues(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 9, number)
        assert cli.run(words(text, folder)) == code
    error = capsys.readouterr().err
    assert "the same command continues" in error
    assert "Traceback" not in error
    assert cli.run(words(text, folder)) == 0
    assert "continues after step" in capsys.readouterr().err
    assert_same_run(whole, folder)


def test_a_killed_run_ends_with_the_same_bits(text: Path, whole: Path, tmp_path: Path) -> None:
    """Law 5, at one moment between two checkpoints and one while a checkpoint is being written."""
    script = textwrap.dedent("""
        import os, signal, sys
        from charlstm import board, checkpoint, cli

        def die(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)

        if sys.argv[1] == "step":
            board.Board.add = lambda self, step, scalars: die() if step == 15 else None
        else:
            save = checkpoint.Checkpoints.save
            checkpoint.Checkpoints.save = lambda self, step, *rest: (save(self, step, *rest), step == 12 and die())
        cli.run(sys.argv[2:])
    """)
    for moment in ("step", "save"):
        folder = tmp_path / f"killed-{moment}"
        command = [sys.executable, "-c", script, moment, *words(text, folder)]
        assert subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode == -signal.SIGKILL
        assert max(row["step"] for row in read(folder)) < 24
        assert cli.run(words(text, folder)) == 0
        assert_same_run(whole, folder)


def test_a_finished_run_says_so_and_more_steps_go_on(
    text: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "metrics.jsonl").read_bytes()
    assert cli.run(words(text, whole)) == 0
    assert "finished" in capsys.readouterr().err
    assert (whole / "metrics.jsonl").read_bytes() == before
    assert cli.run(words(text, whole, train__steps=30)) == 0
    assert max(row["step"] for row in read(whole)) == 30
    assert (whole / "metrics.jsonl").read_bytes().startswith(before)


@pytest.mark.parametrize(
    ("field", "value"), [("model__hidden_size", 9), ("train__steps", 12), ("data__seq_length", 8), ("seed", 1)]
)
def test_another_config_is_refused_by_field(
    text: Path, whole: Path, capsys: pytest.CaptureFixture[str], field: str, value: int
) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert cli.run(words(text, whole, **{field: value})) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert field.replace("__", ".") in error
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_a_changed_text_is_refused(text: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text.write_text(TEXT.replace("tiny", "tidy"))
    assert cli.run(words(text, whole)) == 2
    assert re.search(r"the text of .* changed", capsys.readouterr().err)


def test_a_second_trainer_is_refused(text: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_writer(whole):
        assert cli.run(words(text, whole, train__steps=30)) == 2
    assert "another process trains in" in capsys.readouterr().err
    assert cli.run(words(text, whole)) == 0


def test_a_loss_that_is_not_finite_stops_the_run(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    fields = {"optimizer__learning_rate": 1e38, "optimizer__warmup_steps": 0, "train__checkpoint_every": 1}
    assert cli.run(words(text, folder, **fields)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"not finite at step \d+; .*learning-rate", error)
    assert all(row["loss"] == row["loss"] for row in read(folder))


def test_a_broken_newest_checkpoint_falls_back_and_says_so(
    text: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shard in (whole / "checkpoints" / "24" / "state").rglob("d/*"):  # some hold bytes that nothing refers to
        os.truncate(shard, shard.stat().st_size // 2)
    reference = told(whole)
    assert cli.run(words(text, whole)) == 0
    error = capsys.readouterr().err
    assert "checkpoint 24 is skipped" in error
    assert "continues after step 20" in error
    assert told(whole) == reference


def test_tensorboard_files_can_be_left_out_or_written(text: Path, tmp_path: Path) -> None:
    assert cli.run(words(text, tmp_path / "run", train__tensorboard=True, train__steps=4)) == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
