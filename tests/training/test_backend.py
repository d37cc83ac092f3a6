"""A run keeps the backend that auto took when it began, where there is one; elsewhere a line says that bits differ."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from small_runs import TEXT, bits, short_words

import charlstm
from benchmarks.kills import differences
from charlstm import cli
from charlstm.core.fast.native import bind
from charlstm.runs.folder import Run
from charlstm.support import native

pytestmark = pytest.mark.skipif(native.library() is None, reason="there is no native core here")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backend") / "tiny.txt"
    path.write_text(TEXT)
    return path


@contextmanager
def no_core() -> Iterator[None]:
    """As on a machine without a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_library", None)
        patch.setattr(native, "_tried", True)
        yield
    bind(native.library())


def train(text: Path, folder: Path, steps: int, core: bool) -> None:
    with nullcontext() if core else no_core():
        assert cli.run(short_words(text, folder, train__steps=steps)) == 0


def test_a_run_goes_on_and_is_repeated_in_the_loop_that_it_began_in(text: Path, tmp_path: Path):
    """Law 5: as if there still was no native core."""
    for name, core in (("without", False), ("with", True)):
        train(text, tmp_path / name, 4, core=False)
        train(text, tmp_path / name, 8, core=core)
    assert differences(tmp_path / "without", tmp_path / "with") == []
    run = charlstm.load_run(tmp_path / "with")
    assert (Run.open(tmp_path / "with").backend, run.model.backend, run.notes) == ("fast", "fast", ())
    train(text, tmp_path / "whole", 8, core=False)
    assert cli.run(["train", str(tmp_path / "whole" / "config.json"), "--run-dir", str(tmp_path / "again")]) == 0
    assert bits(tmp_path / "again", 8) == bits(tmp_path / "whole", 8)


def test_a_run_of_the_native_core_goes_on_without_it_and_says_so(
    text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    train(text, tmp_path / "run", 4, core=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["written_by"]["backend"] == "native"
    assert charlstm.load_run(tmp_path / "run").model.backend == "native"
    with no_core():
        found = charlstm.load_run(tmp_path / "run")
        assert found.notes == ("this run began with backend native and goes on with fast: last bits may differ",)
        assert len(found.sample("In the", length=20)) == 26
    capfd.readouterr()
    train(text, tmp_path / "run", 6, core=False)
    assert "began with backend native and goes on with fast" in capfd.readouterr().err
    assert Run.open(tmp_path / "run").backend == "native"
