"""A run that goes on: by its folder, with its text at another place, with other settings, and when it ends early."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from small_runs import LAST, TEXT, bits, short_words, stop_at, timeless_metrics, train_whole

from benchmarks.kills import differences
from charlstm import cli
from charlstm.runs import checkpoint
from charlstm.runs.folder import Run
from charlstm.runs.loading import load_run
from charlstm.runs.metrics import read
from charlstm.support.errors import InputError
from charlstm.training import train

STILL = {"optimizer__learning_rate": 1e-30, "train__validate_every": 2}  # no validation is better than the first


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_whole(tmp_path_factory.mktemp("going_on"), short_words)


@pytest.fixture
def text(template: Path) -> Path:
    return template / "tiny.txt"


@pytest.fixture
def whole(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template / "whole", tmp_path / "whole")


def validated(folder: Path) -> list[int]:
    return [row["step"] for row in read(folder) if "split" in row]


def stopped(text: Path, folder: Path, step: int, **fields: object) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        assert cli.run(short_words(text, folder, **fields)) == 143
    return folder


@pytest.mark.parametrize("first", [True, False])
def test_ids_may_be_read_from_a_file_or_from_memory_at_any_time(
    text: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = stopped(text, tmp_path / "run", 6, data__cache=first)
    assert cli.run(short_words(text, folder, data__cache=not first)) == 0
    assert bits(folder, LAST) == bits(whole, LAST)
    assert timeless_metrics(folder) == timeless_metrics(whole)


def test_a_folder_is_enough_to_go_on(text: Path, whole: Path, tmp_path: Path) -> None:
    other = shutil.copytree(whole, tmp_path / "other")
    assert cli.run(["train", str(whole), "--train.steps", "15"]) == 0
    assert cli.run(["train", "--run-dir", str(other), "--train.steps", "15"]) == 0
    assert max(row["step"] for row in read(whole)) == 15
    assert differences(whole, other) == []
    assert cli.run(["train", str(whole), "--run-dir", str(whole.parent / "." / "whole")]) == 0  # finished


def test_a_config_repeats_its_run_to_the_bit(whole: Path, tmp_path: Path) -> None:
    assert cli.run(["train", str(whole / "config.json"), "--run-dir", str(tmp_path / "again")]) == 0
    assert differences(whole, tmp_path / "again") == []


def test_a_text_that_moved_is_the_same_text(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copy(text, tmp_path / "moved.txt"))
    path = whole / "config.json"
    path.write_text(path.read_text().replace(str(text), str(tmp_path / "gone.txt")))
    assert cli.run(["eval", str(whole), "--split", "test"]) == 2
    assert "by --corpus FILE to charlstm eval or look" in capsys.readouterr().err
    assert cli.run(["train", str(whole), "--train.steps", "13"]) == 2
    assert "give its new place: --data.corpus FILE" in capsys.readouterr().err
    assert cli.run(["eval", str(whole), "--split", "test", "--corpus", str(moved)]) == 0
    assert cli.run(["eval", str(whole), "--text", str(moved), "--corpus", str(moved)]) == 2
    assert cli.run(["eval", str(whole), "--text", str(moved), "--dynamic"]) == 2  # which reads the run's own text too
    assert cli.run(["eval", str(whole), "--text", str(moved), "--dynamic", "--corpus", str(moved)]) == 0
    assert cli.run(["train", str(whole), "--train.steps", "13", "--data.corpus", str(moved)]) == 0
    assert Run.open(whole).config.data.corpus == str(moved)
    moved.write_text(TEXT.replace("tiny", "tidy"))
    capsys.readouterr()
    for command in (
        ["train", str(whole), "--train.steps", "14", "--data.corpus", str(moved)],
        ["eval", str(whole), "--corpus", str(moved)],
    ):
        assert cli.run(command) == 2
        assert f"the text of {moved} changed" in capsys.readouterr().err


def test_fields_that_change_no_update_may_change(text: Path, whole: Path, tmp_path: Path) -> None:
    folder = stopped(text, tmp_path / "run", 4)
    typed = {"checkpoint-every": 5, "validate-every": 3, "sample-every": 4, "keep-checkpoints": 1, "tensorboard": True}
    words = [word for name, value in typed.items() for word in (f"--train.{name}", str(value))]
    assert cli.run(["train", str(folder), *words, "--sample.length", "7"]) == 0
    assert bits(folder, 12) == bits(whole, 12)
    assert validated(folder) == [6, 9, 12]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["12.txt", "4.txt", "8.txt"]
    assert list((folder / "tensorboard").iterdir())
    assert not Run.open(folder).changes


@pytest.mark.slow
def test_a_change_of_the_updates_is_asked_for_and_recorded(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped(text, tmp_path / "run", 4)
    changed = ["train", str(folder), "--optimizer.learning-rate", "1e-4", "--model.dropout", "0"]
    before = (folder / "config.json").read_bytes()
    assert cli.run(changed) == 2
    assert "--allow-change" in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before
    assert cli.run([*changed, "--allow-change"]) == 0
    assert "change   optimizer.learning_rate from 0.006 to 0.0001 at step 4\n" in capsys.readouterr().err
    rates = {row["step"]: row["learning_rate"] for row in read(folder) if "split" not in row}
    assert rates[4] > 1e-3 and rates[5] <= 1e-4
    made = [(each.step, each.field) for each in Run.open(folder).changes]
    assert made == [(4, "model.dropout"), (4, "optimizer.learning_rate")]
    capsys.readouterr()
    assert cli.run(["train", str(folder), "--train.steps", "13"]) == 0
    assert capsys.readouterr().err.count("change  ") == 1  # the rest is told already, and in the report


def record(folder: Path, step: int) -> tuple[int, dict[str, Any]]:
    """When the arrays of a checkpoint were written, and its record."""
    path = folder / "checkpoints" / str(step)
    return (path / "params").stat().st_mtime_ns, json.loads((path / "integrity" / "integrity.json").read_text())


def test_what_is_left_to_do_replaces_no_checkpoint(whole: Path) -> None:
    """A sample that was due made one without its loss of what may be the best; a kill meanwhile lost both."""
    (whole / "samples" / "12.txt").unlink()
    before = record(whole, 12)
    assert before[1]["validation_loss"]
    assert cli.run(["train", str(whole), "--train.validate-every", "5", "--train.steps", "13"]) == 0
    assert (whole / "samples" / "12.txt").exists()
    assert record(whole, 12) == before


def test_a_validation_that_becomes_due_costs_no_checkpoint(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever fails on the way, its loss comes to the record of the checkpoint."""
    folder = stopped(text, tmp_path / "run", 4)
    before, kept = record(folder, 4), timeless_metrics(folder)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_json", fail)
        assert cli.run(["train", str(folder), "--train.steps", "4"]) == 1
        assert "No space left on device" in capsys.readouterr().err
    assert record(folder, 4) == before and before[1]["validation_loss"] is None
    assert cli.run(["train", str(folder), "--train.steps", "4"]) == 0
    (validation,) = timeless_metrics(folder)[len(kept) :]
    written, after = record(folder, 4)
    assert written == before[0] and after["leaves"] == before[1]["leaves"]
    assert after["validation_loss"] == validation["loss"]


def test_a_run_ends_where_it_stands(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stopped(text, tmp_path / "run", 4)
    before = timeless_metrics(folder)
    assert cli.run(["train", str(folder), "--train.steps", "3"]) == 2
    assert f"the run in {folder} has made 4 steps, so train.steps cannot be 3" in capsys.readouterr().err
    assert cli.run(["train", str(folder), "--train.steps", "4"]) == 0
    out, error = capsys.readouterr()
    assert out.startswith("In the beginning") and "this model" in error and "next:" in error
    assert validated(folder) == [4]
    assert timeless_metrics(folder)[: len(before)] == before
    assert cli.run(["train", str(folder)]) == 0
    assert "this run is finished" in capsys.readouterr().err


@pytest.mark.slow
def test_patience_ends_a_run_as_it_does_one_that_was_stopped(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert cli.run(short_words(text, unbroken, **STILL, train__patience=2)) == 0
    told = "it ended early, after step 6 of 12: 2 validations in a row were no better than that of step 2"
    assert told in capsys.readouterr().err
    assert validated(unbroken) == [2, 4, 6]
    assert json.loads((unbroken / "checkpoints/6/integrity/integrity.json").read_text())["validation_loss"]
    stopped(text, broken, 3, **STILL, train__patience=2)
    assert cli.run(["train", str(broken)]) == 0
    assert differences(unbroken, broken) == []
    capsys.readouterr()
    assert cli.run(["train", str(broken)]) == 0
    error = capsys.readouterr().err
    assert f"{told}\nthis run is finished; a larger --train.patience or --train.steps goes on from step 6\n" in error
    assert cli.run(["train", str(broken), "--train.patience", "3"]) == 0
    assert validated(broken) == [2, 4, 6, 8]
    assert cli.run(["train", str(unbroken), "--train.steps", "14"]) == 0
    assert validated(unbroken) == [2, 4, 6, 8, 10]  # counted anew


def test_the_end_shows_the_best_step_as_the_next_commands_do(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With patience it is never the last, which had the table and the sample."""
    fields = {"optimizer__learning_rate": 10.0, "train__validate_every": 2, "train__patience": 2}
    assert cli.run(short_words(text, tmp_path / "run", **fields)) == 0
    out, error = capsys.readouterr()
    run, losses = load_run(tmp_path / "run"), [row["loss"] for row in read(tmp_path / "run") if "split" in row]
    last = 2 * len(losses)
    assert run.step < last and min(losses) < losses[-1]
    assert f"step {run.step} has the lowest validation loss, not step {last}, the last" in error
    assert f" {run.evaluate().bits_per_char:.4f}\nnext:" in error
    assert out == run.sample() + "\n" != load_run(tmp_path / "run", "latest").sample() + "\n"


def test_patience_needs_validations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--train.patience", "2", "--train.validate-every", "0"]) == 2
    assert "train.patience is 2; it must be 0 where validate_every is 0" in capsys.readouterr().err


def test_a_folder_with_a_lock_of_ones_own_is_refused(text: Path, tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("mine")
    config = Run.open(text.parent / "whole").config
    with pytest.raises(InputError, match=r"\.lock holds something"):
        train.train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
