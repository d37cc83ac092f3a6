"""The loop, through the command line's own entry: what a run leaves, and that a run which stopped is the same run."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import jax
import pytest
from small_runs import TEXT, stop_at, timeless_metrics, train_whole, words

from benchmarks.kills import differences
from charlstm import cli
from charlstm.runs.folder import Run
from charlstm.runs.loading import TrainedRun, load_run
from charlstm.runs.metrics import read
from charlstm.support.lock import only_writer
from charlstm.training import loop, train
from charlstm.training.seeds import OneRun


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a run on it that was left alone."""
    return train_whole(tmp_path_factory.mktemp("train"))


@pytest.fixture
def text(template: Path) -> Iterator[Path]:
    yield template / "tiny.txt"
    (template / "tiny.txt").write_text(TEXT)


@pytest.fixture
def whole(template: Path, tmp_path: Path) -> Path:
    """A copy of the run, to look at or to break."""
    return shutil.copytree(template / "whole", tmp_path / "whole")


def losses(folder: Path) -> dict[str, float | None]:
    """The validation loss that each checkpoint has."""
    records = {path.parents[1].name: path for path in folder.glob("checkpoints/*/integrity/integrity.json")}
    return {step: json.loads(path.read_text())["validation_loss"] for step, path in records.items()}


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


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGUSR1, 138)],
)
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
    assert differences(whole, folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "step"),  # at 12 a validation and a sample are due, and 24 is the last
    [("before", 12), ("evaluate", 24), ("sample", 12), ("sample", 24)],
)
def test_a_signal_waits_for_what_is_due_after_a_step(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], moment: str, step: int
) -> None:
    folder = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        if moment == "before":
            stop_at(patch, step, signal.SIGTERM)
        else:
            number = step // (6 if moment == "evaluate" else 12)
            where: Any = loop if moment == "evaluate" else TrainedRun
            patch.setattr(where, moment, _signalled(getattr(where, moment), number))
        assert cli.run(words(text, folder)) == 143
    last = read(folder)[-1]
    assert (last["step"], last["split"]) == (step, "validation")
    assert (folder / "samples" / f"{step}.txt").exists() == (step % 12 == 0)
    assert max(losses(folder), key=int) == str(step)
    assert cli.run(words(text, folder)) == 0
    assert ("finished" in capsys.readouterr().err) == (step == 24)
    assert differences(whole, folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [12, 24])
def test_what_an_earlier_version_left_undone_is_done_first_of_all(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int
) -> None:
    """A signal once stopped a run before the sample and the validation that were due."""
    folder = tmp_path / "left"
    with pytest.MonkeyPatch.context() as patch:
        stop = partial(signal.raise_signal, signal.SIGTERM)
        patch.setattr(loop.Loop, "_do_what_is_due", lambda self, _: self.step == step and stop())
        assert cli.run(words(text, folder)) == 143
    assert losses(folder) == {str(step): None} and not (folder / "samples").exists()
    capsys.readouterr()
    assert cli.run(words(text, folder)) == 0
    assert "this model" in capsys.readouterr().err
    assert [row["step"] for row in read(folder) if "split" in row] == list(range(step, 25, 6))


def _signalled(call: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The call, during which a signal comes when it is made for the n-th time."""
    calls = count(1)

    def called(*args: Any, **how: Any) -> Any:
        if next(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        return call(*args, **how)

    return called


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


@pytest.mark.parametrize("line", ["{", '{"step": 6, "split": "validation", "loss": "low"}'])
def test_a_run_that_is_refused_is_as_it_was(
    text: Path, whole: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    """Its config had the new steps already when a line of its metrics was refused."""
    with (whole / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert cli.run(words(text, whole, train__steps=30)) == 2
    assert "delete" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("where", ["make_model", "open_member"])
def test_a_signal_before_the_first_step_stops_there(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    for folder, step, steps in ((tmp_path / "new", "before the first step", 24), (whole, "after step 24", 30)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, where, _signalled(getattr(train, where), 1))
            assert cli.run(words(text, folder, train__steps=steps)) == 143
        step = step if where == "open_member" else "before the first step"
        assert f"stopped {step}; the same command continues from there\n" in capsys.readouterr().err
    assert Run.exists(tmp_path / "new") == (where == "open_member")
    assert {name: each for name, each in before.items() if name.name != "config.json"}.items() <= {
        path: path.read_bytes() for path in whole.rglob("*") if path.is_file()
    }.items()
    assert cli.run(words(text, tmp_path / "new")) == 0
    assert timeless_metrics(tmp_path / "new") == timeless_metrics(whole)


@pytest.mark.slow
def test_lines_are_there_while_a_step_takes_long(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of each is there when the next is on its way."""
    seen, put = list[tuple[int, int]](), OneRun.put_windows

    def put_slowly(program: OneRun, windows: Any) -> Any:
        path = tmp_path / "run" / "metrics.jsonl"
        seen.append((len(seen), len(path.read_text().splitlines()) if path.exists() else 0))
        if len(seen) > 1:
            time.sleep(1.1)
        return put(program, windows)

    monkeypatch.setattr(OneRun, "put_windows", put_slowly)
    fields = {"train__steps": 6, "train__validate_every": 0, "train__sample_every": 0, "train__checkpoint_every": 0}
    assert cli.run(words(text, tmp_path / "run", **fields)) == 0
    assert seen[2:] == [(call, call - 1) for call in range(2, 6)]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    fields = {"optimizer__learning_rate": 1e38, "optimizer__warmup_steps": 0, "train__checkpoint_every": 1}
    assert cli.run(words(text, folder, **fields)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"not finite at step \d+; .*learning-rate", error)
    assert all(row["loss"] == row["loss"] for row in read(folder))


@pytest.mark.slow
def test_parameters_that_are_no_numbers_are_not_saved(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss shows it one update later, when the message named their checkpoint as the last good one."""
    fields = {"optimizer__learning_rate": 1e38, "optimizer__weight_decay": 1e3, "optimizer__warmup_steps": 0}
    every = {"train__checkpoint_every": 1, "train__validate_every": 0, "train__sample_every": 0}
    assert cli.run(words(text, tmp_path / "run", **fields, **every)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the parameters are not finite after step 1; there is no checkpoint yet" in error
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_broken_newest_checkpoint_falls_back_and_says_so(
    text: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shard in (whole / "checkpoints" / "24" / "state").rglob("d/*"):  # some hold bytes that nothing refers to
        os.truncate(shard, shard.stat().st_size // 2)
    reference = timeless_metrics(whole)
    assert cli.run(words(text, whole)) == 0
    error = capsys.readouterr().err
    assert "checkpoint 24 is skipped" in error
    assert "continues after step 20" in error
    assert timeless_metrics(whole) == reference


@pytest.mark.slow
def test_tensorboard_files_can_be_left_out_or_written(text: Path, tmp_path: Path) -> None:
    assert cli.run(words(text, tmp_path / "run", train__tensorboard=True, train__steps=4)) == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_run_is_evaluated_in_four_ways(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run(whole)
    exact, still = run.evaluate(exact=True), run.evaluate(dynamic=0.0)
    assert still.loss == pytest.approx(exact.loss, rel=1e-6)
    assert run.evaluate(dynamic=1e-3).loss != still.loss
    cold = run.evaluate(cold=16)
    assert cold.characters == exact.characters - 1
    assert cold.loss != exact.loss
    for options, how in (
        ([], "in warmed rows"),
        (["--exact"], "in one row"),
        (["--cold", "16"], "in windows of 16 characters, each from an empty state"),
        (["--dynamic", "--dynamic-rate", "1e-3"], "in one row, learned from at a rate of 0.001"),
    ):
        assert cli.run(["eval", str(whole), *options]) == 0
        assert how in capsys.readouterr().out
    assert cli.run(["eval", str(whole), "--cold", "16", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["cold"], values["dynamic"], values["loss"]) == (16, None, cold.loss)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cold", "0"], "--cold is 0; it must be at least 1"),
        (["--dynamic", "--dynamic-rate", "-1"], "--dynamic-rate is -1.0; it must be at least 0 and finite"),
        (["--dynamic", "--dynamic-rate", "nan"], "--dynamic-rate is nan"),
        (["--exact", "--dynamic"], "--exact, --cold and --dynamic each read a text"),
    ],
)
def test_a_way_of_evaluating_that_cannot_be_is_refused(
    whole: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert cli.run(["eval", str(whole), *options]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("method", ["adam", "muon"])
def test_an_averaged_run_that_stopped_ends_with_the_same_bits(text: Path, tmp_path: Path, method: str) -> None:
    """Law 5, with all that is dropped: sampled, evaluated and kept is the average."""
    how = {"optimizer__method": method, "optimizer__average": 0.9, "model__recurrent_dropout": 0.3}
    how |= {"model__input_dropout": 0.1, "model__carry_dropout": 0.2}
    assert cli.run(words(text, tmp_path / "whole", **how)) == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 9, signal.SIGTERM)
        assert cli.run(words(text, tmp_path / "parts", **how)) == 143
    assert cli.run(words(text, tmp_path / "parts", **how)) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    run = load_run(tmp_path / "whole", "latest")
    state = run.state()
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), run.params, state.params))
    assert not jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), run.params, state.iterate))
