"""A comparison through the command line: what it leaves, that its seeds are runs, and that a stop changes no figure."""

import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_runs import SMALL, TEXT, bits, figures, stop_at, timeless_metrics

from charlstm import cli
from charlstm.compare import comparison
from charlstm.config import Experiment
from charlstm.core.network import Model
from charlstm.core.step import TrainState
from charlstm.report import page, plots
from charlstm.runs.folder import Run
from charlstm.runs.loading import load_run
from charlstm.runs.metrics import read
from charlstm.support.lock import only_writer

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
OF_THE_AXES = ("model.hidden-size", "model.num-layers")
FIELDS = {name: value for name, value in SMALL.items() if name not in OF_THE_AXES}
FIELDS |= {"data.validation-fraction": 0.1, "data.test-fraction": 0.1}
MODELS = {"rnn-1x8": ("rnn", 1), "lstm-1x8": ("lstm", 1)}
SEEDS = (0, 1)
EXPERIMENT = """
from charlstm.config import Grid
GRID = Grid(cells=("rnn", "lstm"), layers=(1,), sizes=(8,), seeds=2)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, an experiment and a comparison that was left alone."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "tiny.txt").write_text(TEXT)
    (folder / "small.py").write_text(EXPERIMENT)
    assert cli.run(words(folder, folder / "whole")) == 0
    return folder


@pytest.fixture
def whole(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template / "whole", tmp_path / "whole")


def options(folder: Path, **fields: Any) -> list[str]:
    merged = FIELDS | {name.replace("__", ".").replace("_", "-"): value for name, value in fields.items()}
    merged["data.corpus"] = folder / "tiny.txt"
    return [
        word
        for name, value in merged.items()
        for word in (f"--{name}", *map(str, value if isinstance(value, tuple) else (value,)))
    ]


def words(folder: Path, output: Path, **fields: Any) -> list[str]:
    return ["compare", str(folder / "small.py"), "--run-dir", str(output), *options(folder, **fields)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_comparison(left: Path, right: Path) -> None:
    assert figures(left) == figures(right)
    for model in MODELS:
        for seed in SEEDS:
            ours, theirs = (folder / model / f"seed-{seed}" for folder in (left, right))
            assert timeless_metrics(ours) == timeless_metrics(theirs)
            assert bits(ours, 24) == bits(theirs, 24)


def test_a_comparison_leaves_runs_and_tables(whole: Path) -> None:
    files = {path.name for path in whole.iterdir()}
    assert {"grid.json", "corpus.json", "results.json", "results.csv", "results.md", *MODELS} <= files
    for model in MODELS:
        assert {path.name for path in (whole / model).iterdir()} == {"seed-0", "seed-1"}
        assert model in (whole / "results.md").read_text()
        assert model in (whole / "results.csv").read_text()


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_of_a_comparison_is_the_run_of_that_seed_alone(
    template: Path, whole: Path, tmp_path: Path, model: str
) -> None:
    """On a CPU with as many devices: the same bits in every array, the same metrics and samples."""
    cell, layers = MODELS[model]
    fields = {"model__cell": cell, "model__num_layers": layers, "model__hidden_size": 8, "seed": 1}
    alone, ours = tmp_path / "alone", whole / model / "seed-1"
    assert cli.run(["train", "--run-dir", str(alone), *options(template, **fields)]) == 0
    assert Run.open(alone).config == Run.open(ours).config
    assert bits(alone, 24) == bits(ours, 24)
    assert timeless_metrics(alone) == timeless_metrics(ours)
    for name in ("12.txt", "24.txt"):
        assert (alone / "samples" / name).read_bytes() == (ours / "samples" / name).read_bytes()


def test_figures_are_those_of_the_best_step_by_validation(whole: Path) -> None:
    for row in figures(whole):
        for run in row["seeds"]:
            folder = whole / run["run"]
            validation = {each["step"]: each["loss"] for each in read(folder) if "split" in each}
            assert run["best_step"] == min(validation, key=lambda step: validation[step])
            assert run["validation"] == validation[run["best_step"]]
            found = load_run(folder)
            assert found.step == run["best_step"]
            assert run["test"] == found.evaluate("test").loss
            assert run["validation"] == found.evaluate("validation").loss


def test_a_finished_comparison_is_only_shown(template: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(whole)
    assert cli.run(words(template, whole)) == 0
    assert content(whole) == before
    out = capsys.readouterr().out
    assert all(model in out for model in MODELS)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (["--train.steps", "26"], "train.steps"),
        (["--train.validate-every", "5"], "train.validate_every"),
        (["--train.steps", "25", "--optimizer.learning-rate", "0.1", "--allow-change"], "optimizer.learning_rate"),
    ],
)
def test_a_seed_that_was_trained_on_is_refused_and_trained_anew(
    template: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: list[str], field: str
) -> None:
    """Its row was shown as it was, or measured at a step that the others do not have."""
    member = whole / "lstm-1x8" / "seed-1"
    assert cli.run(["train", str(member)]) == 0
    assert cli.run(words(template, whole)) == 0
    assert cli.run(["train", str(member), *changed]) == 0
    before = content(whole)
    capsys.readouterr()
    assert cli.run(words(template, whole)) == 2
    error = capsys.readouterr().err
    assert f"{member} was trained on outside of its comparison, with another {field}" in error
    (member / "result.json").unlink()
    assert cli.run(words(template, whole)) == 2
    assert content(whole) == {name: each for name, each in before.items() if name != "lstm-1x8/seed-1/result.json"}
    if field == "train.steps":
        member.rename(tmp_path / "away")
        assert cli.run(words(template, whole)) == 0
        assert_same_comparison(whole, template / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_the_same_command_continues(
    template: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 9, number)
        assert cli.run(words(template, folder)) == code
    # Where a call takes long, its metrics are written before the next begins.
    assert re.search("stopped after step 1[02] of rnn-1x8; the same command continues", capsys.readouterr().err)
    assert cli.run(words(template, folder)) == 0
    assert_same_comparison(whole, folder)


def test_kills_change_no_figure(template: Path, whole: Path, tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from charlstm import cli
        from charlstm.compare import comparison as compare
        from charlstm.runs import checkpoint
        from charlstm.training.member import Member

        moment, models = sys.argv[1], []

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def dying(function, when):
            def wrapped(*args, **kwargs):
                result = function(*args, **kwargs)
                if when(*args):
                    die()
                return result
            return wrapped

        if moment == "step":
            Member.write = dying(Member.write, lambda self, record: record["step"] == 15)
        elif moment in ("save", "last-save"):  # the other seed has not saved this step yet
            at = {"save": 12, "last-save": 24}[moment]
            checkpoint.Checkpoints.save = dying(
                checkpoint.Checkpoints.save, lambda self, step, *rest: step == at and self.wait() is None
            )
        elif moment in ("result.json", "measures.json"):
            compare.write_json = dying(compare.write_json, lambda path, value: path.name == moment)
        else:
            each = compare.Comparison
            each.train = dying(each.train, lambda *args: models.append(args) or len(models) == 1)
        cli.run(sys.argv[2:])
    """)
    folder = tmp_path / "killed"
    for moment in ("save", "step", "last-save", "second-model", "result.json", "measures.json"):
        command = [sys.executable, "-c", script, moment, *words(template, folder)]
        assert subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode == -signal.SIGKILL
        assert not (folder / "results.json").exists() or len(figures(folder)[1]["seeds"]) < len(SEEDS)
    assert cli.run(words(template, folder)) == 0
    assert_same_comparison(whole, folder)


def test_a_model_that_diverges_is_a_row_and_stops_nothing(
    template: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "diverged"
    rates = ["--learning-rates", "rnn", "1e38"]
    assert cli.run([*words(template, folder, optimizer__warmup_steps=0), *rates]) == 0
    told_ = capsys.readouterr()
    assert "diverged" in told_.err
    assert "DIVERGED" in told_.out
    lost, good = figures(folder)
    assert all(run["diverged_after"] is not None for run in lost["seeds"])
    assert lost["test"] is None
    assert good["test"]["n"] == 2
    assert good["difference"] is None
    before = figures(folder)
    assert cli.run([*words(template, folder, optimizer__warmup_steps=0), *rates]) == 0
    assert figures(folder) == before


def test_a_seed_that_diverges_leaves_the_other_as_it_is(template: Path, whole: Path, tmp_path: Path) -> None:
    """It is stopped and goes on after that, too."""
    folder, first = tmp_path / "diverged", comparison.first_state

    def poisoned(config: Experiment, model: Model) -> TrainState:
        state = first(config, model)
        broken = jax.tree.map(lambda part: part * np.float32(np.nan), state.params)
        return state._replace(params=broken) if config.seed == 1 and model.config.cell == "rnn" else state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "first_state", poisoned)
        stop_at(patch, 9, signal.SIGINT)
        assert cli.run(words(template, folder)) == 130
    assert cli.run(words(template, folder)) == 0
    ours, theirs = figures(folder)[0], figures(whole)[0]
    assert ours["seeds"][0] == theirs["seeds"][0]
    assert ours["seeds"][1]["diverged_after"] == 0
    assert ours["test"] == {"mean": theirs["seeds"][0]["test"], "low": None, "high": None, "n": 1}
    assert bits(folder / "rnn-1x8" / "seed-0", 24) == bits(whole / "rnn-1x8" / "seed-0", 24)


def test_a_last_update_that_leaves_no_numbers_is_a_divergence(template: Path, tmp_path: Path) -> None:
    fields = {"optimizer__weight_decay": 1e3, "optimizer__warmup_steps": 0, "train__steps": 1}
    rates = ["--learning-rates", "rnn", "1e38"]
    nothing = {"train__validate_every": 0, "train__checkpoint_every": 0, "train__sample_every": 0}
    splits = {"data__validation_fraction": 0.0, "data__test_fraction": 0.0}
    assert cli.run([*words(template, tmp_path / "run", **fields, **nothing | splits), *rates]) == 0
    lost, good = figures(tmp_path / "run")
    assert [run["diverged_after"] for run in lost["seeds"]] == [1, 1]
    assert [run["best_step"] for run in good["seeds"]] == [1, 1]  # nothing chose between steps
    assert good["validation"] is None
    assert good["test"] is None
    assert good["gradient"] is not None


def test_seeds_may_be_added_while_some_are_in_training(template: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 9, signal.SIGINT)
        assert cli.run(words(template, folder)) == 130
    assert cli.run(words(template, folder, seeds=3)) == 0
    for ours, theirs in zip(figures(folder), figures(whole), strict=True):
        assert ours["seeds"][:2] == theirs["seeds"]
        assert ours["test"]["n"] == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("grid.json", '{"cells": 3}'),
        ("grid.json", '{"\\u001b[31m": 3}'),
        ("corpus.json", "{}"),
        ("rnn-1x8/seed-0/result.json", "{}"),
        ("rnn-1x8/seed-0/result.json", '{"seed": 0, "best_step": "x"}'),
        ("rnn-1x8/seed-0/measures.json", '{"test": []}'),
        ("rnn-1x8/seed-0/config.json", "["),
    ],
)
def test_a_malformed_file_is_named_in_one_line(
    template: Path, whole: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    (whole / name).write_text(text)
    if name.endswith("config.json"):  # which is only read to go on
        (whole / name).with_name("result.json").unlink()
    capsys.readouterr()
    assert cli.run(words(template, whole)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert Path(name).name in last
    assert "malformed" in last
    assert last.isprintable()


@pytest.mark.parametrize("name", ["rnn-1x8", "rnn-1x8/seed-0", "plots"])
def test_nothing_is_read_or_written_through_a_link_out(
    template: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "training").mkdir(parents=True)
    (outside / "kept.txt").write_text("kept")
    if (whole / name).exists():
        shutil.rmtree(whole / name)
    (whole / name).symlink_to(outside)
    before = content(outside)
    assert cli.run(words(template, whole)) == (0 if name == "plots" else 2)
    assert "symbolic link" in capsys.readouterr().err
    assert content(outside) == before
    assert (outside / "training").is_dir()


@pytest.mark.parametrize("what", ["plots", "page"])
def test_a_picture_s_trouble_costs_that_picture_alone(
    template: Path, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("latex was not\nable to process")

    monkeypatch.setattr(*{"plots": (plots, "plots"), "page": (page, "write_page")}[what], fail)
    assert cli.run(words(template, whole)) == 0
    captured = capsys.readouterr()
    assert all(model in captured.out for model in MODELS)
    assert ("page: " in captured.out, "plots: " in captured.out) == (what != "page", what != "plots")
    assert captured.err.splitlines()[-1] == f"charlstm: no {what}: RuntimeError: latex was not able to process"


def test_axes_may_grow_and_what_is_done_stays(template: Path, whole: Path) -> None:
    before = {name: data for name, data in content(whole).items() if "seed-" in name}
    grown = {"cells": ("rnn", "lstm", "gru"), "seeds": 3}
    assert cli.run(words(template, whole, **grown)) == 0
    after = content(whole)
    assert {name: after[name] for name in before} == before
    rows = figures(whole)
    assert [row["name"] for row in rows] == ["rnn-1x8", "lstm-1x8", "gru-1x8"]
    assert all(len(row["seeds"]) == row["test"]["n"] == 3 for row in rows)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cells": "rnn"}, "began with lstm-1x8"),
        ({"seeds": 1}, "began 2 seeds of rnn-1x8, not 1"),
        ({"train__steps": 30}, "train.steps cannot change"),
        ({"data__seq_length": 8}, "data.seq_length"),
    ],
)
def test_another_grid_is_refused_and_nothing_changes(
    template: Path, whole: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, Any], message: str
) -> None:
    before = content(whole)
    assert cli.run(words(template, whole, **fields)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert content(whole) == before


def test_folders_that_are_no_comparison_are_refused(
    template: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words(template, whole / "rnn-1x8" / "seed-0")) == 2
    assert "is a run, and is no comparison" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.run(words(template, tmp_path / "file")) == 2
    (fresh := tmp_path / "fresh").mkdir()
    for folder in (whole, fresh):
        with only_writer(folder):
            assert cli.run(words(template, folder)) == 2
        assert "another process" in capsys.readouterr().err
    assert not list(fresh.iterdir())


def test_a_changed_text_is_refused(template: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(whole)
    (template / "tiny.txt").write_text(TEXT.replace("tiny", "tidy"))
    try:
        assert cli.run(words(template, whole)) == 2
    finally:
        (template / "tiny.txt").write_text(TEXT)
    assert "changed since" in capsys.readouterr().err
    assert content(whole) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [([], "needs an experiment"), (["--seeds", "3"], "needs an experiment"), (["none.py"], "there is no experiment")],
)
def test_a_wrong_command_line_is_one_line(line: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", *line]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("--model.cell", "--cells"),
        ("--model.hidden_size", "--sizes"),
        ("--optimizer.learning-rate", "--learning-rates"),
    ],
)
def test_a_field_that_the_axes_decide_is_refused(option: str, instead: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", str(REPOSITORY / "experiments" / "depth.py"), option, "1"]) == 2
    assert instead in capsys.readouterr().err


def test_help_shows_the_defaults_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.run(["compare", str(REPOSITORY / "experiments" / "depth.py"), "--help"])
    assert not stop.value.code
    assert "gru 0.015 lstm 0.04)" in " ".join(capsys.readouterr().out.replace("│", "").split())


def test_an_experiment_for_training_is_no_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", str(REPOSITORY / "experiments" / "hello.py")]) == 2
    assert "it has a CONFIG, for `charlstm train`" in capsys.readouterr().err
    assert cli.run(["train", str(REPOSITORY / "experiments" / "depth.py")]) == 2
    assert "it has a GRID, for `charlstm compare`" in capsys.readouterr().err
