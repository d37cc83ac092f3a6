"""A training on lines: stopped and continued to the bit, one seed or several, with samples that are lines."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seed_programs
from seed_programs import assert_each_is_as_alone, seed_program
from small_runs import bits, short_words, stop_at, timeless_metrics

from charlstm import cli
from charlstm.config import DataConfig, Experiment, ModelConfig
from charlstm.data.dataset import Dataset
from charlstm.data.windows import WindowedText
from charlstm.runs.loading import load_run
from charlstm.support.errors import InputError

NAMES = "anna\nlevin\nkitty\n\nstiva\ndolly\nvronsky\n" * 40


def test_a_run_on_lines_continues_to_the_bit_and_draws_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "names.txt").write_text(NAMES)
    commands = [short_words(tmp_path / "names.txt", tmp_path / each, data__documents="lines") for each in "ab"]
    assert cli.run(commands[0]) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 5, signal.SIGTERM)
        assert cli.run(commands[1]) == 128 + signal.SIGTERM
    assert cli.run(commands[1]) == 0
    assert bits(tmp_path / "a", 12) == bits(tmp_path / "b", 12)
    assert timeless_metrics(tmp_path / "a") == timeless_metrics(tmp_path / "b")
    run = load_run(tmp_path / "a")
    drawn = run.sample("", num=5, length=200, temperature=1)
    assert all("\n" not in each and len(each) < 200 for each in drawn)
    assert run.evaluate("test", exact=True).characters == len(run.ids("test"))


@pytest.mark.slow
def test_seeds_that_train_on_lines_together_end_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    text = WindowedText(rng.integers(seed_programs.V, size=400), seed_programs.B, seed_programs.T, newline=0)
    monkeypatch.setattr(seed_programs, "WINDOWS", text)
    assert_each_is_as_alone(seed_program("gru", 2))


@pytest.mark.parametrize("symbols", ["characters", "bytes"])
def test_a_text_without_line_ends_has_no_documents(tmp_path: Path, symbols: Any) -> None:
    (tmp_path / "text.txt").write_text("one long line " * 299)
    with pytest.raises(InputError, match=r"the text has no line ends; use --data\.documents none"):
        Dataset.read(DataConfig(corpus=str(tmp_path / "text.txt"), symbols=symbols, documents="lines"))
    (tmp_path / "text.txt").write_text("many short\nlines " * 199)
    data = Dataset.read(DataConfig(corpus=str(tmp_path / "text.txt"), symbols=symbols, documents="lines"))
    assert data.vocabulary.characters[data.train.newline or 0] == "\n"


def test_cudnn_is_not_taken_for_documents() -> None:
    with pytest.raises(ValueError, match=r"data\.documents lines needs another, such as auto"):
        Experiment(data=DataConfig(documents="lines"), model=ModelConfig(recurrence="cudnn"))
