"""`charlstm look` says in one line what is wrong, and where it wrote its page."""

import json
from pathlib import Path

import pytest
from folders import config, make_run
from small_runs import short_words, train_whole

from charlstm import cli
from charlstm.runs.folder import Run

pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_whole(tmp_path_factory.mktemp("look"), short_words)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert cli.run(["look", *words]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("charlstm: ")]
    assert captured.out == "" and len(lines) == 1
    return lines[0]


def test_a_page_in_the_folder_or_where_it_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["look", str(folder / "whole")]) == 0
    assert capsys.readouterr().out == f"{folder / 'whole' / 'look.html'}\n"
    (folder / "own.txt").write_text("a tiny text? " * 400)
    words = ["look", str(folder / "whole"), "--text", str(folder / "own.txt"), "--output", str(folder / "own.html")]
    assert "not in the vocabulary: '?'" in refusal(capsys, *words[1:])
    assert not (folder / "own.html").exists()
    assert cli.run([*words, "--skip-unknown"]) == 0
    captured = capsys.readouterr()
    assert "400 unknown characters" in captured.err
    assert captured.out == f"{folder / 'own.html'}\n"
    assert "own.txt" in (folder / "own.html").read_text("utf-8")


def test_numbers_without_a_page_and_the_same_each_time(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "whole" / "look.html").unlink(missing_ok=True)
    outputs = []
    for _ in range(2):
        assert cli.run(["look", str(folder / "whole"), "--json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and outputs[0].count("\n") == 1
    assert not (folder / "whole" / "look.html").exists()
    assert json.loads(outputs[0])["ngrams"]["best_order"] >= 1


def test_without_the_runs_own_text_a_file_is_read_and_n_grams_are_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "tiny.txt").rename(folder / "moved.txt")
    try:
        assert "no corpus or file" in refusal(capsys, str(folder / "whole"))
        words = ["look", str(folder / "whole"), "--text", str(folder / "moved.txt")]
        assert cli.run([*words, "--json", "--output", str(folder / "without.html")]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["ngrams"] is None and "n-grams are left out: " in captured.err
        assert "which is not there" in (folder / "without.html").read_text("utf-8")
        assert cli.run([*words, "--corpus", str(folder / "moved.txt"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["ngrams"]
    finally:
        (folder / "moved.txt").rename(folder / "tiny.txt")


def test_a_text_of_one_symbol_costs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "one.txt").write_text("a" * 2_000)
    assert cli.run(short_words(tmp_path / "one.txt", tmp_path / "run")) == 0
    capsys.readouterr()
    assert cli.run(["look", str(tmp_path / "run"), "--json", "--output", str(tmp_path / "page.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nats"] == found["costliest_symbols"][0]["share"] == 0


def test_what_cannot_be_looked_into_gets_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run = str(folder / "whole")
    monkeypatch.setattr("charlstm.report.look.activations", None)  # so that all is refused before the work
    assert "must end in .html" in refusal(capsys, run, "--output", str(tmp_path / "book.txt"))
    (tmp_path / "folder.html").mkdir()
    for name, why in (("no/page.html", "there is no folder"), ("folder.html", "it is a folder")):
        assert f"{name} cannot be written: {why}" in refusal(capsys, run, "--output", str(tmp_path / name))
    assert "there is no folder" in refusal(capsys, str(tmp_path / "nowhere"))
    assert "no checkpoint yet" in refusal(capsys, str(make_run(tmp_path / "fresh", config(), steps=0)))
    (tmp_path / "one.txt").write_text("a")
    assert "fewer than two characters; give a text" in refusal(capsys, run, "--text", str(tmp_path / "one.txt"))
    assert "is missing" in refusal(capsys)
    assert Run.exists(folder / "whole")
    import sys

    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pip install 'charlstm[report]'" in refusal(capsys, run)
