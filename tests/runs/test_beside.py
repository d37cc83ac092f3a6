"""What happens to a run's folder while it trains: others read it, move it, and copy what is in it."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import LAST, bits, timeless_metrics, train_whole
from small_runs import short_words as words

from benchmarks.kills import differences
from charlstm import cli
from charlstm.config import DataConfig, Experiment, ModelConfig
from charlstm.core.step import TrainState
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import Fingerprint, Run
from charlstm.runs.loading import load_run
from charlstm.runs.models import first_state, make_model
from charlstm.support.errors import InputError

CONFIG = Experiment(data=DataConfig(batch_size=2, seq_length=4), model=ModelConfig(hidden_size=4))


def begin(folder: Path) -> TrainState:
    """A run without a checkpoint, and the state for one."""
    run = Run.create(folder, CONFIG, Vocabulary.of("abc"), Fingerprint.of("made_up", "abc"))
    return first_state(CONFIG, make_model(CONFIG, len(run.vocabulary)))


@pytest.mark.parametrize("wanted", ["best", "latest"])
def test_a_checkpoint_that_gives_way_to_a_newer_one_is_no_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    state, load, seen = begin(tmp_path / "run"), Checkpoints._load, list[int]()
    with Checkpoints(tmp_path / "run" / "checkpoints", keep=1) as writer:
        writer.save(1, state, 3.0)
        writer.wait()

        def load_late(reader: Checkpoints, step: int, like: Any) -> Any:
            seen.append(step)
            if len(seen) < 4:
                writer.save(step + 1, state, 3.0 - step)
                writer.wait()
            return load(reader, step, like)

        monkeypatch.setattr(Checkpoints, "_load", load_late)
        found = load_run(tmp_path / "run", wanted)
        assert (found.step, found.notes) == (4, ())
        seen.clear()
        with pytest.raises(InputError, match="checkpoint 4 in .* was removed by its training; try again"):
            load_run(tmp_path / "run", "4")


@pytest.mark.slow
def test_reading_beside_a_training_finds_a_checkpoint_each_time(tmp_path: Path) -> None:
    state, over = begin(tmp_path / "run"), threading.Event()
    with Checkpoints(tmp_path / "run" / "checkpoints", keep=1) as writer:
        writer.save(1, state, 1.0)
        writer.wait()

        def train() -> None:
            step = 1
            while not over.is_set():
                step += 1
                writer.save(step, state, 1 / step)

        training = threading.Thread(target=train)
        training.start()
        try:
            found = [load_run(tmp_path / "run", wanted) for wanted in ("best", "latest") * 20]
        finally:
            over.set()
            training.join()
    assert all(each.notes == () for each in found)
    assert len({each.step for each in found}) > 5


# Runs whose folders, or what is in them, change places.


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a run on it that was left alone."""
    return train_whole(tmp_path_factory.mktemp("beside"), words)


def steps(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


@pytest.mark.slow
def test_a_folder_that_was_moved_is_not_written_to_under_its_old_name(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, moved, text = tmp_path / "run", tmp_path / "moved", template / "tiny.txt"
    save = Checkpoints.save

    def save_and_move(checkpoints: Checkpoints, step: int, *rest: Any, **named: Any) -> None:
        if step == 8:
            checkpoints.wait()
            folder.rename(moved)
            patch.undo()
            assert cli.run(words(text, folder, seed=1, train__steps=4)) == 0
        save(checkpoints, step, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_move)
        assert cli.run(words(text, folder)) == 1
    assert "the folder is gone, or another has its name" in capsys.readouterr().err.splitlines()[-1]
    assert (steps(moved), steps(folder)) == ({"4", "6"}, {"4"})
    assert cli.run(words(text, moved)) == 0
    assert differences(template / "whole", moved) == []


@pytest.mark.slow
def test_another_run_s_checkpoint_is_neither_used_nor_lost(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, text = tmp_path / "other", template / "tiny.txt"
    assert cli.run(words(text, other, optimizer__learning_rate=0.01, train__steps=4)) == 0
    before = bits(other, 4)
    shutil.copytree(template / "whole" / "checkpoints" / str(LAST), other / "checkpoints" / str(LAST))
    with (other / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": LAST, "loss": 1.0}) + "\n")
    found = load_run(other, "latest")
    assert found.step == load_run(other).step == 4 and "it is another run's" in found.notes[0]
    capsys.readouterr()
    assert cli.run(words(text, other, optimizer__learning_rate=0.01, train__steps=8)) == 0
    assert f"checkpoint {LAST} is skipped: it is another run's" in capsys.readouterr().err
    assert steps(other) == {"4", "6", "8", f"{LAST}.moved-aside"}
    assert bits(other, 4) == before


@pytest.mark.slow
def test_a_checkpoint_under_a_higher_number_is_not_taken_for_that_step(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, text = shutil.copytree(template / "whole", tmp_path / "run"), template / "tiny.txt"
    shutil.copytree(run / "checkpoints" / "8", run / "checkpoints" / "99")
    found = load_run(run, "latest")
    assert found.step == LAST and "checkpoint 99 in " in found.notes[0] and "it is that of step 8" in found.notes[0]
    assert cli.run(words(text, run, train__steps=LAST + 4)) == 0
    assert "checkpoint 99 is skipped: it is newer than the run's metrics" in capsys.readouterr().err
    assert steps(run) >= {str(LAST + 4), "99.moved-aside"}


@pytest.mark.slow
def test_a_checkpoint_newer_than_the_metrics_is_not_used(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them is another training's. Without metrics there is nothing to compare."""
    run, text = shutil.copytree(template / "whole", tmp_path / "run"), template / "tiny.txt"
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] < LAST))
    assert cli.run(words(text, run)) == 0
    assert f"checkpoint {LAST} is skipped: it is newer than the run's metrics" in capsys.readouterr().err
    assert differences(template / "whole", run) == []
    (run / "metrics.jsonl").unlink()
    assert cli.run(words(text, run)) == 0
    assert "is skipped" not in capsys.readouterr().err


@pytest.mark.slow
def test_metrics_without_a_checkpoint_are_kept_aside(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, text = shutil.copytree(template / "whole", tmp_path / "run"), template / "tiny.txt"
    before = (run / "metrics.jsonl").read_bytes()
    shutil.rmtree(run / "checkpoints")
    assert cli.run(words(text, run)) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "begins again" in line]
    assert len(told) == 1 and "metrics.jsonl.moved-aside" in told[0]
    assert (run / "metrics.jsonl.moved-aside").read_bytes() == before
    assert differences(template / "whole", run) == []
    assert timeless_metrics(run) == timeless_metrics(template / "whole")


def test_a_run_s_id_is_that_of_what_it_computes(tmp_path: Path) -> None:
    """The same for one that is repeated elsewhere, from a text that has moved, or for longer; another for another."""

    def made(name: str, config: Experiment, text: str = "abc") -> str:
        return Run.create(tmp_path / name, config, Vocabulary.of("abc"), Fingerprint.of("made_up", text)).id

    first = made("first", CONFIG)
    moved = replace(CONFIG, data=replace(CONFIG.data, corpus="elsewhere"), train=replace(CONFIG.train, steps=7))
    others = [replace(CONFIG, seed=1), replace(CONFIG, optimizer=replace(CONFIG.optimizer, b1=0.5))]
    assert made("moved", moved) == first
    assert len({first, made("text", CONFIG, "abca"), *(made(f"{n}", each) for n, each in enumerate(others))}) == 4
