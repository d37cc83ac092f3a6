"""Command lines of any words: an answer, or one line and exit code 2 with nothing written anywhere.

Training, evaluation and drawing are replaced by what ends at once; everything before them is charlstm's own.
"""

from collections.abc import Iterator
from dataclasses import asdict
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folders import config, make_run
from fuzzing import OneCheckpoint, any_text, run
from hypothesis import event, example, given
from hypothesis import strategies as st

from charlstm.analysis.evaluate import Evaluation
from charlstm.analysis.gradient_reach import GradientReach
from charlstm.cli import arguments, commands
from charlstm.cli.parsing import options
from charlstm.compare.results import Results
from charlstm.report.entries import gather
from charlstm.runs import loading
from charlstm.runs.folder import Fingerprint
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import write_json

TEXT = "a small town, a long road, and nobody in sight. " * 12
KINDS = {
    "train": arguments.Train,
    "eval": arguments.Eval,
    "score": arguments.Score,
    "sample": arguments.Sample,
    "look": arguments.Look,
    "compare": arguments.Compare,
    "report": arguments.Report,
    "export": arguments.Export,
    "compile": arguments.Compile,
    "corpora": arguments.Corpora,
}
VALUES = [
    *(
        "0",
        "1",
        "2",
        "3",
        "-1",
        "0.5",
        "1e-3",
        "1e400",
        "-1e400",
        "nan",
        "inf",
        "-inf",
        "1_000",
        "٣",
        "0x10",
        "1e5",
        "1.0",
    ),
    *(
        "4294967295",
        "4294967296",
        "9" * 19,
        "9" * 400,
        "9" * 5000,
        "True",
        "False",
        "None",
        "none",
        "lstm",
        "gru",
        "LSTM",
    ),
    *("run", "text", "experiment.py", "grid.py", "broken.py", "text/x", ".", "..", "/", "no", "n" * 300, "n" * 5000),
    *("king_james", "recall_32", "recall_33", "~", "~nobody", "~\0", "a\0b", "\udcff", "", " ", "\t", "-", "--", "---"),
    *("best", "latest", "fresh", "30", "validation", "test", "characters", "bytes", "rows", "-h", "--help", "help"),
    *("\x1b[31mred", "two\nlines", "\u202eright", "e\u0301", "[bold]", "{x}", "%s", "$HOME", "*", "'", '"', "é" * 3000),
]


class _Checkpoints(OneCheckpoint):
    """In place of those on disk: one of step 30."""

    def best(self) -> int:
        return 30

    def restore_params(self, step: int, like: Any) -> Any:
        if step != 30:
            raise InputError(f"there is no checkpoint {step}")
        return like


def _page(folders: list[Path], output: Path) -> None:
    if output.name != "report.html" or folders[0] / output.name != output:  # a comparison's page, which is not there
        gather(folders)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to type commands in."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "text").write_text(TEXT)
    asked = config(cell="gru", size=4, corpus=str(folder / "text"))
    make_run(folder / "run", asked, steps=3, vocabulary="".join(set(TEXT)), sample="a long road")
    write_json(folder / "run" / "corpus.json", asdict(Fingerprint.of("text", TEXT)))
    for name, program in (
        ("experiment", "from charlstm.config import Experiment\nCONFIG = Experiment()"),
        ("grid", "from charlstm.config import Grid\nGRID = Grid()"),
        ("broken", "raise SystemExit('no')"),
    ):
        (folder / f"{name}.py").write_text(program)
    found = Results(name="grid", corpus="text", symbols="characters", vocabulary=3, confidence=0.95, models=())

    def stop(*_: Any, **__: Any) -> None:
        raise TrainingError("begun")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        patch.setenv("CHARLSTM_CORPORA", str(folder / "corpora"))  # where nothing is, and nothing is downloaded:
        patch.setattr("charlstm.data.corpora._find", lambda _: folder / "text")
        patch.setattr("charlstm.data.corpora._check_hash", lambda *_: None)
        patch.setattr("charlstm.support.process.prepare", lambda **_: None)
        patch.setattr("charlstm.support.native.find_core", lambda *_, **__: Path("core.so"))
        patch.setattr("charlstm.training.train.train", stop)
        patch.setattr("charlstm.compare.runner.run_grid", lambda *_, **__: found)
        patch.setattr("charlstm.report.plots.plots", lambda *_: [])
        patch.setattr("charlstm.report.page.write_page", _page)
        patch.setattr("charlstm.runs.export.tensors", lambda *_: {})
        patch.setattr("charlstm.runs.export.write_atomic", lambda *_: None)
        for name in ("evaluate", "evaluate_cold", "evaluate_dynamic"):
            patch.setattr(loading, name, lambda *_, **__: Evaluation(1.5, 3))
        patch.setattr(loading, "mean_squares", lambda *_, **__: None)
        patch.setattr("charlstm.report.look.look", lambda *_: SimpleNamespace(why_not="there is no text"))
        patch.setattr("charlstm.report.look.as_json", lambda _: {})
        patch.setattr("charlstm.report.look_page.write_look", lambda *_: None)
        found_reach = GradientReach(np.array([[1.0, 0.5, 0.001]]))
        patch.setattr("charlstm.analysis.gradient_reach.gradient_reach", lambda *_, **__: found_reach)
        patch.setattr("charlstm.analysis.sample.streams", lambda *args: ([np.array([1, 2])] for _ in range(args[4])))
        for name in ("character_nats", "all_nats"):
            patch.setattr(
                loading, name, lambda _model, _params, ids, _newline: [np.ones(len(each))[1:] for each in ids]
            )
        patch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"a town\n\xff\n")))
        patch.setattr(loading, "Checkpoints", _Checkpoints)
        patch.setattr(loading, "first_state", lambda *_: SimpleNamespace(params={}))
        patch.setattr(loading, "on_one", lambda params: params)
        yield folder


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command, mostly one that there is, and words after it, mostly those that it takes."""
    command = draw(st.sampled_from([*KINDS, *KINDS, *KINDS, "", "-h", "help", "--version", "tran", "Eval"]) | any_text)
    known = [*options(KINDS[command]), "--help", "-h"] if command in KINDS else ["--help"]
    values = st.sampled_from(VALUES) | any_text | st.integers().map(str) | st.floats().map(str)
    words = [command]
    if draw(st.booleans()):
        words.append({"compare": "grid.py", "train": "experiment.py"}.get(command, "run"))
    for _ in range(draw(st.integers(0, 4))):
        option = draw(st.sampled_from(known))
        match draw(st.integers(0, 7)):
            case 0:
                words.append(draw(values))
            case 1:
                words.append(option)
            case 2:
                at = draw(st.integers(0, len(option)))
                words.append(option[:at] + draw(st.text(max_size=2)) + option[at + draw(st.integers(0, 2)) :])
            case 3:
                words.append(draw(st.sampled_from([option.upper(), option.replace("-", "_"), option[1:], option[:-1]])))
            case 4 | 5:
                words.append(f"{option}={draw(values)}")
            case _:
                words += [option, draw(values)]
    return words


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@given(lines())
@example(["sample", "run", "--checkpoint", "9" * 5000])
@example(["sample", "run", "--num", "2", "--seed", "4294967295", "--stream"])
@example(["sample", "run", "--num", "2", "--prime", "\u4e2d", "--stream"])
@example(["sample", "run", "--prime-file", "a\0b"])
@example(["sample", "run", "--prime-file", "."])
@example(["score", "run"])
@example(["score", "run", "a\0b", "--by=character"])
@example(["train", "--run-dir", "a\0b"])
@example(["train", "n" * 300])
@example(["train", "broken.py"])
@example(["train", "--data.corpus", "~\0"])
@example(["train", "--model.hidden-size", "9" * 400])
@example(["train", "two\nlines"])
@example(["report", "run", "--output", ""])
@example(["report", "n" * 300])
def test_a_line_of_any_words_is_answered_or_refused(place: Path, words: list[str]) -> None:
    before = contents(place)
    told = run(*words)
    event(f"{words[0] if words[0] in KINDS else 'another'}: exit code {told.code}")
    assert told.code != 1 or (words[0] == "train" and told.err == "charlstm: begun\n")
    assert contents(place) == before


def test_all_commands_are_tried() -> None:
    """And what is replaced above is what the commands reach."""
    listed = [line.split()[0] for line in commands.overview().splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(KINDS)


def test_each_command_is_answered(place: Path) -> None:
    for words in (
        ["eval", "run"],
        ["eval", "run", "--cold", "4"],
        ["eval", "run", "--dynamic"],
        ["look", "run"],
        ["look", "run", "--json"],
        ["score", "run", "text"],
        ["sample", "run"],
        ["sample", "run", "--json"],
        ["report", "run"],
        ["export", "run"],
        ["compare", "grid.py"],
        ["corpora"],
    ):
        assert run(*words).code == 0, words
    assert run("train").code == 1


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: out of memory")])
def test_too_little_memory_is_said(place: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("charlstm.training.train.train", fail)
    told = run("train")
    assert told.code == 1 and told.out == ""
    assert told.err.startswith("charlstm: there is too little memory; lower") and told.err.count("\n") == 1
