"""What an EXPERIMENT is, and where a run goes: a text is told apart unexecuted, and names the folder."""

import dataclasses
import zipfile
from pathlib import Path

import pytest
from folders import config, make_run

from charlstm import cli
from charlstm.cli.arguments import compare_arguments, train_arguments
from charlstm.cli.places import text_name
from charlstm.config import DataConfig, Experiment, Grid, OptimizerConfig
from charlstm.data.dataset import Fingerprint
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.folder import Run
from charlstm.support.errors import InputError
from charlstm.support.files import user_path, write_json
from charlstm.support.schema import to_dict

TRAP = "import pathlib\npathlib.Path('EXECUTED').write_text('')\n"
TEXT = "the old road and the new road"


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command is refused with, before anything that lies around was run."""
    capsys.readouterr()
    assert cli.run(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert not Path("EXECUTED").exists()
    return captured.err


def begin(folder: Path, text: str, **fields: object) -> Path:
    Path("my.txt").write_text(text)
    asked = config(corpus=str(Path("my.txt").absolute()), **fields)  # type: ignore[arg-type]
    Run.create(folder, asked, Vocabulary.of(text), Fingerprint.of("my.txt", text))
    return folder


@pytest.mark.parametrize("command", [["train"], ["train", "--help"], ["train", "--seed", "3"], ["compare"]])
def test_a_text_is_no_experiment(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    Path("book.txt").write_text(TRAP)
    Path("own.py").write_text(TRAP)
    Path("book").mkdir()
    Path("book/__main__.py").write_text(TRAP)
    Path("data.json").write_text('{"a": 1}')
    for name in ("book.epub", "book.py"):
        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr("__main__.py", TRAP)
    kind = "GRID" if command == ["compare"] else "CONFIG"
    assert "to train on a text: charlstm train --data.corpus book.txt" in refusal(capsys, *command, "book.txt")
    assert "is no experiment" in refusal(capsys, *command, "book.epub")
    assert "is not Python: " in refusal(capsys, *command, "book.py")  # SyntaxError; ValueError before 3.11.4
    assert f"defines no {kind}" in refusal(capsys, *command, "own.py")
    assert "so it is not a" in refusal(capsys, *command, "book")
    assert "data.json" in refusal(capsys, *command, "data.json")


def test_the_other_kind_of_experiment_is_told_unexecuted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("grid.py").write_text(TRAP + "GRID = 3")
    Path("config.py").write_text(TRAP + "CONFIG: int = 3")
    assert "it has a GRID, for `charlstm compare`" in refusal(capsys, "train", "grid.py")
    assert "it has a CONFIG, for `charlstm train`" in refusal(capsys, "compare", "config.py")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--data.corpus", "src/a.py", "src/b.py"],
        ["train", "--data.corpus", "src/a.py", "src/b.py", "src/c.py", "--seed", "3"],
        ["train", "--data.corpus=src/a.py", "src/b.py"],
        ["train", "config.py", "--data.corpus", "src/a.py", "src/b.py"],
        ["compare", "grid.py", "--data.corpus", "src/a.py", "src/b.py"],
    ],
)
def test_a_pattern_that_a_shell_replaced_is_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    Path("src").mkdir()
    for name in ("src/a.py", "src/b.py", "config.py", "grid.py"):
        Path(name).write_text(TRAP + "CONFIG = GRID = 3")
    assert "quote a pattern, as in --data.corpus 'src/*.py'" in refusal(capsys, *words)


def test_a_run_s_folder_and_its_config_are_experiments(tmp_path: Path) -> None:
    run = begin(Path("runs/my"), TEXT, size=8)
    kept = Run.open(run).config
    in_jax = dataclasses.replace(kept, model=dataclasses.replace(kept.model, recurrence="fast"))
    for words in (["runs/my"], ["--run-dir", "runs/my"], ["--run-dir=./runs/my", "--allow-change"]):
        folder, asked, notes = train_arguments([*words, "--train.steps", "700"])
        assert folder.samefile(run) and not notes
        assert asked.config == dataclasses.replace(kept, train=dataclasses.replace(kept.train, steps=700))
        assert asked.allow_change == ("--allow-change" in words)
    folder, asked, _ = train_arguments(["--allow-change", "runs/my"])
    assert (folder, asked.config) == (run, kept)
    folder, asked, _ = train_arguments(["runs/my/config.json"])
    assert (folder, asked.config) == (Path("runs/my-again"), in_jax)  # as it was before there was a choice
    with pytest.raises(InputError, match=r"to repeat it in other, give runs/my/config\.json instead"):
        train_arguments(["runs/my", "--run-dir", "other"])


def test_a_program_s_run_is_not_repeated_from_its_config(capsys: pytest.CaptureFixture[str]) -> None:
    Run.create(Path("own"), Experiment(), Vocabulary.of("ab"), Fingerprint("", "", 0), program=True)
    assert "run that program again" in refusal(capsys, "train", "own/config.json")


def test_a_comparison_s_folder_is_its_experiment() -> None:
    Path("depth").mkdir()
    grid = Grid(cells=("gru",), seeds=2, base=Experiment(optimizer=OptimizerConfig(learning_rate=0.5)))
    write_json(Path("depth/grid.json"), to_dict(grid))
    assert compare_arguments(["depth"]) == (Path("depth"), grid, None, [])
    folder, asked, _, _ = compare_arguments(["depth/grid.json", "--seeds", "3"])
    assert (folder, asked) == (Path("runs/depth-again"), dataclasses.replace(grid, seeds=3))


def test_a_text_names_its_folder_and_another_gets_its_own() -> None:
    for name in ("my.txt", "b/my.txt", "c/my.txt", "moved.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(TEXT + name[:1] * (name != "moved.txt"))
    Path("exp.py").write_text("from charlstm import Experiment\nCONFIG = Experiment()")

    def chosen(*words: str) -> tuple[str, bool]:
        folder, _, notes = train_arguments(list(words))
        assert all("holds another text" in note and str(folder) in note for note in notes)
        return folder.as_posix(), bool(notes)

    assert chosen("--data.corpus", "my.txt") == ("runs/my", False)
    assert chosen("exp.py", "--data.corpus", "my.txt") == ("runs/my", False)
    assert chosen("exp.py") == ("runs/exp", False)
    assert chosen("--data.corpus", "recall_32") == ("runs/recall_32", False)
    assert chosen() == ("runs/king_james", False)
    begin(Path("runs/my"), TEXT + "b", size=8)
    assert chosen("--data.corpus", "b/my.txt") == ("runs/my", False)
    assert chosen("--data.corpus", "c/my.txt") == ("runs/my-2", True)
    Path("runs/my-2").mkdir()
    Path("runs/my-2/grid.json").write_text("{}")
    assert chosen("--data.corpus", "c/my.txt") == ("runs/my-3", True)
    make_run(Path("runs/moved"), config(), steps=0)
    assert chosen("--data.corpus", "moved.txt") == ("runs/moved-2", True)
    assert train_arguments(["--data.corpus", "b/my.txt"])[1].config.model.hidden_size == 8  # the run's own


def test_a_separator_makes_another_text() -> None:
    Path("notes").mkdir()
    for name in ("1.txt", "2.txt"):
        Path("notes", name).write_text(TEXT)
    Path("grid.py").write_text("from charlstm import Grid\nGRID = Grid()")
    asked = dataclasses.replace(config(), data=DataConfig(corpus=str(Path("notes").absolute()), separator=""))
    Run.create(Path("runs/notes"), asked, Vocabulary.of(TEXT), Fingerprint.of("notes", TEXT + TEXT))
    words = ["--data.corpus", "notes"]
    for more in ([], ["--data.separator="]):
        assert train_arguments([*words, *more])[0].as_posix() == "runs/notes"
    assert train_arguments([*words, "--data.separator", "\n"])[0].as_posix() == "runs/notes-2"
    Path("runs/grid").mkdir()
    write_json(Path("runs/grid/grid.json"), to_dict(Grid()))
    write_json(Path("runs/grid/corpus.json"), dataclasses.asdict(Fingerprint.of("notes", TEXT + TEXT)))
    grid = ["grid.py", *words]
    assert compare_arguments([*grid, "--data.separator="])[0].as_posix() == "runs/grid"
    assert compare_arguments(grid)[0].as_posix() == "runs/grid-2"


def test_a_text_that_is_gone_gets_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(Path("runs/gone"), TEXT, size=8)
    Path("my.txt").unlink()
    base = "Experiment(data=DataConfig(corpus='my.txt'))"
    Path("grid.py").write_text(f"from charlstm import DataConfig, Experiment, Grid\nGRID = Grid(base={base})")
    for words in (["train", f"{run}/config.json"], ["train", str(run)], ["compare", "grid.py"]):
        for more in ([], ["--run-dir=other"] if words[1] != str(run) else []):
            assert "if the text was moved, give its new place: --data.corpus FILE" in refusal(capsys, *words, *more)
    assert "its new place" not in refusal(capsys, "train", f"{run}/config.json", "--data.corpus", "typed.txt")


def test_any_text_gives_a_name(tmp_path: Path) -> None:
    named = {"a [1].txt": "a _1_", "book.txt.gz": "book", "none": "none", ".txt": ".txt", "ж" * 110: "ж" * 100}
    for file, name in named.items():
        (tmp_path / file).write_text(TEXT)
        assert text_name(str(tmp_path / file)) == name
    assert text_name(str(tmp_path / "src" / "*.py")) == "src"
    assert text_name("recall_32") == "recall_32"


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    run = begin(home / "run", TEXT, size=8)
    assert train_arguments(["--run-dir=~/new"])[0] == home / "new"
    assert train_arguments(["~/run"])[0] == train_arguments(["--run-dir=~/run"])[0] == run
    for words in (
        ["eval", "~/none"],
        ["sample", "~/none"],
        ["export", "~/none"],
        ["look", "~/none"],
        ["report", "~/none"],
    ):
        assert str(home / "none") in refusal(capsys, *words)
    assert str(home / "none.py") in refusal(capsys, "train", "~/none.py")
    assert str(home / "none.py") in refusal(capsys, "compare", "~/none.py")
    assert str(home / "none.py") in refusal(capsys, "--import", "~/none.py", "corpora")
    for words in (["report", str(run), "--output=~no_such_user/x"], ["train", "--run-dir=~no_such_user/x"]):
        assert "~no_such_user is no one's home folder" in refusal(capsys, *words)
    Path("~mine").write_text("")
    assert user_path("~mine") == Path("~mine")
