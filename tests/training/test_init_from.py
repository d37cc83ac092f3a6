"""Laws of a run that begins with another's parameters, from the command line."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import TEXT, bits, short_words, timeless_metrics

from charlstm import cli
from charlstm.core.loss import mean_nats
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.loading import load_run
from charlstm.support.errors import InputError
from charlstm.training.loop import Loop

FEW: dict[str, Any] = {"train__steps": 4, "train__checkpoint_every": 0, "train__sample_every": 0, "model__dropout": 0.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, another one with other characters, and a run `old` on the first."""
    place = tmp_path_factory.mktemp("init_from")
    (place / "text.txt").write_text(TEXT)
    (place / "other.txt").write_text(TEXT.upper() + "a naïve text. " * 50)
    assert cli.run(short_words(place / "text.txt", place / "old", **FEW | {"train__steps": 12})) == 0
    return place


def assert_same(ours: Any, theirs: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def begin(place: Path, name: str, text: str = "text.txt", *words: str, **fields: Any) -> int:
    given = short_words(place / text, place / name, **FEW | fields)
    return cli.run([*given, "--init-from", str(place / "old"), *words])


def test_on_the_same_vocabulary_the_first_loss_is_that_of_the_old_run(place: Path) -> None:
    assert begin(place, "same") == 0
    old = load_run(place / "old")
    window = old.data.train.window(0)
    logits, _ = old.model.apply(old.params, jnp.asarray(window.inputs), old.model.zero_carry(len(window.inputs)))
    first = timeless_metrics(place / "same")[0]
    assert first["loss"] == pytest.approx(float(mean_nats(logits, jnp.asarray(window.targets))), rel=1e-5)


@pytest.mark.slow
def test_another_text_begins_with_what_both_know(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert begin(place, "other", "other.txt") == 0
    assert "begins with the parameters of" in capsys.readouterr().err
    old, new = load_run(place / "old"), load_run(place / "other", "0")
    here, there = (each.vocabulary.encode(". ") for each in (new, old))
    np.testing.assert_array_equal(new.params["head"]["kernel"][:, here], old.params["head"]["kernel"][:, there])
    kept = json.loads((place / "other" / "config.json").read_text())["init_from"]
    assert (kept["run"], kept["step"]) == (str(place / "old"), old.step)


@pytest.mark.slow
def test_without_an_experiment_the_model_is_the_old_runs(place: Path) -> None:
    fields = {"data.batch-size": 3, "data.seq-length": 16, "train.steps": 1, "train.tensorboard": False}
    fields |= {"data.corpus": place / "other.txt"}
    words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    words += ["--run-dir", str(place / "alone")]
    assert cli.run(["train", "--init-from", str(place / "old"), *words]) == 0
    assert load_run(place / "alone").config.model == load_run(place / "old").config.model


def test_another_width_is_one_line_and_leaves_no_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert begin(place, "wide", model__hidden_size=9) == 2
    assert "model.hidden_size is 9 and was 8; give --model.hidden-size 8" in " ".join(capsys.readouterr().err.split())
    assert not (place / "wide").exists()


@pytest.mark.slow
def test_a_run_goes_on_without_the_old_one_and_repeats_with_it(place: Path, tmp_path: Path) -> None:
    assert begin(place, "whole", "other.txt", train__checkpoint_every=2) == 0
    shutil.copytree(place / "old", tmp_path / "away")
    assert begin(place, "cut", "other.txt", train__steps=2) == 0
    shutil.rmtree(place / "old")
    try:
        assert begin(place, "cut", "other.txt", train__steps=4) == 0  # the same command, but for the steps
    finally:
        shutil.copytree(tmp_path / "away", place / "old")
    assert cli.run(["train", str(place / "whole" / "config.json"), "--run-dir", str(place / "again")]) == 0
    assert bits(place / "again", 4) == bits(place / "whole", 4)
    with Checkpoints(place / "cut" / "checkpoints", keep=1, read_only=True) as there:
        assert there.latest() == 4


def test_the_old_run_may_be_named_otherwise(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was compared by spelling, and a run by another path of the same folder was refused."""
    command = [*short_words(place / "text.txt", tmp_path / "run", **FEW | {"train__steps": 1}), "--init-from"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(place / "old")
    shutil.copytree(place / "old", tmp_path / "copy")
    relative = os.path.relpath(place / "old", tmp_path)
    assert cli.run([*command, relative]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["init_from"]["run"] == str(place / "old")
    for name in (place / "old", "link", "copy"):
        assert cli.run([*command, str(name)]) == 0
    assert cli.run([*command, str(tmp_path / "run")]) == 2
    assert "did not begin with the parameters of" in capsys.readouterr().err


def test_fresh_parameters_are_those_that_the_run_began_with(place: Path, tmp_path: Path) -> None:
    """They were drawn anew."""
    assert begin(place, "fresh", "other.txt", train__steps=1) == 0
    first = load_run(place / "fresh", 0).params
    assert_same(load_run(place / "fresh", "fresh").params, first)
    shutil.rmtree(place / "fresh" / "checkpoints" / "0")
    assert_same(load_run(place / "fresh", "fresh").params, first)
    shutil.move(place / "old", tmp_path / "away")
    try:
        with pytest.raises(InputError, match=r"began with the parameters of .*/old after step 12, which are gone"):
            load_run(place / "fresh", "fresh")
    finally:
        shutil.move(tmp_path / "away", place / "old")


def test_a_run_is_repeated_when_the_old_one_has_trained_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own checkpoint 0 has what it began with; without any, it can only begin anew."""
    shutil.copytree(place / "old", tmp_path / "source")
    run = short_words(place / "other.txt", tmp_path / "run", **FEW | {"train__steps": 1})
    assert cli.run([*run, "--init-from", str(tmp_path / "source")]) == 0
    shutil.copytree(tmp_path / "source", tmp_path / "copy")
    shutil.rmtree(tmp_path / "source" / "checkpoints" / "12")
    assert cli.run(["train", str(tmp_path / "run" / "config.json"), "--run-dir", str(tmp_path / "again")]) == 0
    assert bits(tmp_path / "again", 1) == bits(tmp_path / "run", 1)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    capsys.readouterr()
    for command in (run, ["train", str(tmp_path / "run" / "config.json"), "--run-dir", str(tmp_path / "anew")]):
        assert cli.run(command) == 2
        assert "name a copy that has them with --init-from, or begin anew" in capsys.readouterr().err
    assert not (tmp_path / "anew").exists()
    assert cli.run([*run, "--init-from", str(tmp_path / "copy")]) == 0
    assert bits(tmp_path / "again", 1) == bits(tmp_path / "run", 1)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True])
def test_a_kill_before_the_first_checkpoint_changes_no_bit(
    place: Path, monkeypatch: pytest.MonkeyPatch, changed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"killed-{changed}"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run", die)
        assert begin(place, name) == 130
    shutil.rmtree(place / name / "checkpoints")
    if changed:
        path = place / name / "config.json"
        path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))
        assert begin(place, name) == 2
        assert "has other parameters at step 12" in capsys.readouterr().err
        return
    assert begin(place, name) == 0
    assert begin(place, "unbroken") == 0
    assert bits(place / name, 4) == bits(place / "unbroken", 4)
