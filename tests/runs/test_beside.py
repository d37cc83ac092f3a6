"""What happens to a run's folder while it trains: others read it, move it, and copy what is in it."""

import threading
from pathlib import Path
from typing import Any

import pytest

from charlstm.config import DataConfig, Experiment, ModelConfig
from charlstm.core.step import TrainState
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import Fingerprint, Run
from charlstm.runs.loading import first_state, load_run, make_model
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
