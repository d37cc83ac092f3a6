"""What a person types and reads: help, one-line refusals with exit code 2, and the commands on a trained run."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from charlstm import cli
from charlstm.cli.arguments import compare_arguments, load_experiment, load_grid, train_arguments
from charlstm.config import Experiment, Grid
from charlstm.data import corpora, text_file

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = "a small town, a long road, and nobody in sight. " * 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    text = folder / "road.txt"
    text.write_text(TEXT)
    options = {
        "data.corpus": text,
        "data.batch-size": 4,
        "data.seq-length": 16,
        "model.hidden-size": 16,
        "train.steps": 40,
        "train.tensorboard": False,
        "sample.length": 50,
        "sample.prime": "Zwei town",
    }
    typed = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert cli.run(["train", "--run-dir", str(folder / "run"), *typed]) == 0
    return folder / "run"


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a wrong command gets."""
    capsys.readouterr()
    assert cli.run([str(REPOSITORY / word) if word.startswith("experiments/") else word for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_imports_no_jax() -> None:
    script = """
import contextlib, sys
from charlstm import cli
for command in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        cli.run([*command.split(), "--help"])
    assert "jax" not in sys.modules, command
"""
    commands = ["", "train", "sample", "eval", "look", "score", "compare", "report", "export", "corpora", "compile"]
    done = subprocess.run([sys.executable, "-c", script, *commands], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: charlstm") == len(commands)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "did you mean train"),
        (["train", "--model.hiden-size", "3"], "did you mean --model.hidden-size"),
        (["train", "--model.hidden-size", "three"], "three"),
        (["train", "--model.hidden-size", "0"], "at least 1"),
        (["train", "--model.hidden-size"], "hidden-size"),
        (["train", "--model.cell", "lstn"], "lstm"),
        (["train", "--model.cell", "mgu"], "register_cell('mgu', ...) first, as in charlstm --import file train"),
        (["--import", "nowhere.py", "train"], "there is no experiment file"),
        (["--import", "cell.py"], "--import is followed by"),
        (["train", "--model.dropout", "1"], "model.dropout is 1.0; it must be below 1"),
        (["train", "--sample.seed", "-1"], "sample.seed is -1; it must be at least 0"),
        (["train", "--optimizer.learning-rate", "nan"], "finite"),
        (["train", "--data.test-fraction", "0.97"], "nothing is left"),
        (["compare", "experiments/depth.py", "--learning-rates", "rnn"], "each cell needs its rate"),
        (["compare", "experiments/depth.py", "--learning-rates", "lsmt", "1"], "did you mean lstm"),
        (["compare", "experiments/depth.py", "--learning-rates", "rnn", "-1"], "learning_rates.rnn is -1.0; it"),
        (["compare", "experiments/depth.py", "--rnn-learning-rate", "1"], "did you mean --learning-rates"),
        (["compare", "experiments/depth.py", "--seed", "4294967295"], "below 2**32"),
        (["train", "nowhere.py"], "there is no experiment file"),
        (["train", "--data.corpus", "no_such_text"], "there is no corpus or file"),
        (["eval", "no_such_run"], "no_such_run"),
        (["score", "no_such_run"], "no_such_run"),
        (["score", "run", "--by", "word"], "--by is 'word'; it must be one of 'line', 'character'; see"),
        (["score", "run", "one", "two"], "one word too many: two"),
        (["sample", "run", "--num", "x"], "--num is 'x'; it must be a whole number"),
        (["sample", "run", "--temperature", "x"], "--temperature is 'x'; it must be a number"),
        (["sample", "run", "--prime", "--help"], "--prime needs a value; one that is an option itself follows ="),
        (["sample", "no_such_run"], "no_such_run"),
        (["export", "no_such_run"], "no_such_run"),
        (["sample"], "charlstm: run is missing; see"),
        (["corpora", "--all"], "no option --all"),
    ],
)
def test_wrong_words_get_one_line(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert says in refusal(capsys, *words).lower()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"\xff\xfe\x00a", "not text|not UTF-8|NUL"), (b"caf\xe9", "not UTF-8"), (b"short", "need")],
)
def test_wrong_texts_get_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, says: str
) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    line = refusal(capsys, "train", "--run-dir", str(tmp_path / "run"), "--data.corpus", str(path))
    assert any(each in line for each in says.split("|"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("CONFIG = 3", "no CONFIG"),
        ("import nowhere\nCONFIG = 3", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("from charlstm.config import *\nCONFIG = Experiment(model=ModelConfig(cell='lstn'))", "did you mean lstm"),
        (
            "from charlstm.config import *\nCONFIG = Experiment(model=ModelConfig(num_layers=0))",
            "model.num_layers is 0; it",
        ),
        ("from charlstm.config import *\nCONFIG = Experiment(modle=3)", "there is no field modle; did you mean model?"),
    ],
)
def test_wrong_experiments_get_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str, says: str
) -> None:
    path = tmp_path / "experiment.py"
    path.write_text(program)
    assert says in refusal(capsys, "train", str(path))


def test_no_help_shows_a_default_of_none(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("compare", "corpora", "eval", "export", "look", "report", "sample", "score", "train"):
        with pytest.raises(SystemExit):
            cli.run([command, "--help"])
        told = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "(default: None)" not in told and "(default: )" not in told
        assert command != "train" or r"(default: '\n')" in told
        assert command != "sample" or told.count("(default: as in the run's config)") == 5


def test_a_value_of_any_command_may_begin_with_dashes() -> None:
    words = ["--sample.prime", "-- comment", "--run-dir", "-run", "--data.corpus", "--a text", "--seed", "3"]
    folder, parsed, _ = train_arguments(words)
    asked = parsed.config
    assert (asked.sample.prime, asked.data.corpus, asked.seed) == ("-- comment", "--a text", 3)
    assert folder == Path("-run")
    file = str(REPOSITORY / "experiments" / "depth.py")
    _, grid, _, _ = compare_arguments([file, "--sample.prime", "-- x", "--cells", "rnn", "lstm", "--seeds", "2"])
    assert (grid.base.sample.prime, grid.cells, grid.seeds) == ("-- x", ("rnn", "lstm"), 2)


def test_fields_are_typed_over_an_experiment() -> None:
    file = str(REPOSITORY / "experiments" / "hello.py")
    words = ["--seed", "7", file, "--model.num-layers=2", "--train.tensorboard", "False"]
    folder, parsed, _ = train_arguments(words)
    assert folder == Path("runs/hello")
    assert (parsed.config.seed, parsed.config.model.num_layers, parsed.config.train.tensorboard) == (7, 2, False)
    assert parsed.config.data == load_experiment(Path(file)).data


@pytest.mark.parametrize(
    ("words", "rates"),
    [
        ([], {"rnn": 0.008, "gru": 0.015, "lstm": 0.04}),
        (["--learning-rates", "rnn", "0.5", "gru", "1"], {"rnn": 0.5, "gru": 1.0}),
        (["--learning-rates", "--seeds", "2"], {}),
    ],
)
def test_learning_rates_of_cells_are_typed_over_a_grid(words: list[str], rates: dict[str, float]) -> None:
    file = str(REPOSITORY / "experiments" / "depth.py")
    assert compare_arguments([file, *words])[1].learning_rates == rates


def test_the_default_experiment_is_king_james() -> None:
    folder, parsed, _ = train_arguments([])
    assert folder == Path("runs/king_james")
    assert parsed.config == Experiment() == load_experiment(REPOSITORY / "experiments" / "king_james.py")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_every_experiment_loads_and_says_how_to_run_it(path: Path) -> None:
    compares = "GRID = " in path.read_text()
    assert isinstance(load_grid(path) if compares else load_experiment(path), Grid if compares else Experiment)
    assert f"charlstm {'compare' if compares else 'train'} experiments/{path.name}" in path.read_text()


@pytest.mark.slow
def test_hello_learns_to_spell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", str(REPOSITORY / "experiments" / "hello.py"), "--run-dir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.strip() == "hello" * 5
    assert json.loads((tmp_path / "run" / "vocabulary.json").read_text()) == ["e", "h", "l", "o"]


def test_training_tells_the_baselines_and_the_next_command(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from charlstm.analysis.evaluate import Evaluation
    from charlstm.cli import summary
    from charlstm.runs.loading import load_run

    run = load_run(trained).run
    lines = "\n".join(summary.next_commands(run, load_run(trained).data))
    assert f"charlstm sample {trained}" in lines
    assert "charlstm eval" in lines
    told = "\n".join(summary.conclusion(run, load_run(trained).data, Evaluation(1.0, 10)))
    assert f"{math.log2(len(run.vocabulary)):.4f}" in told
    assert "xz" in told


def in_numpy(folder: Path) -> float:
    """The loss on a run's validation split, by NumPy alone in float64."""
    from reference import text_nats

    from charlstm.runs.loading import load_run

    found = load_run(folder)
    return float(text_nats(found.model, found.params, found.data.validation).mean())


def test_eval_prints_nats_and_bits(trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    losses = {}
    for split in ("train", "validation", "test"):
        assert cli.run(["eval", str(trained), "--split", split, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["bits_per_char"] == pytest.approx(told["loss"] / math.log(2))
        losses[split] = told["loss"]
    assert cli.run(["eval", str(trained), "--exact"]) == 0
    line = capsys.readouterr().out
    assert f"{losses['validation']:.3f}" in line
    assert "nats" in line
    assert cli.run(["eval", str(trained), "--exact", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(in_numpy(trained), rel=1e-5)
    own = tmp_path / "own.txt"
    own.write_text("a long town")
    assert cli.run(["eval", str(trained), "--text", str(own), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["characters"] == 11
    own.write_text("a löng town" + " " * text_file._CHUNK + "Ω")
    line = refusal(capsys, "eval", str(trained), "--text", str(own))
    assert "ö" in line and "Ω" in line


def test_samples_can_be_repeated_alone_or_among_many(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sample(*words: str) -> str:
        assert cli.run(["sample", str(trained), "--prime", "a ", "--length", "90", *words]) == 0
        return capsys.readouterr().out

    alone = sample("--seed", "6")
    assert len(alone) == 2 + 90 + 1
    assert alone == sample("--seed", "6", "--stream")
    assert alone in sample("--seed", "5", "--num", "3")
    assert alone.startswith(sample("--seed", "6", "--length", "30").rstrip("\n"))
    assert sample("--temperature", "0", "--seed", "1") == sample("--top-n", "1", "--seed", "2")


def test_an_unknown_character_in_a_prime_is_named(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The chapter's program crashes here."""
    line = refusal(capsys, "sample", str(trained), "--prime", "a röad")
    assert "'ö' (U+00F6)" in line
    assert "--skip-unknown" in line
    assert cli.run(["sample", str(trained), "--prime", "a röad", "--length", "5", "--skip-unknown"]) == 0
    assert capsys.readouterr().out.startswith("a rad")
    # The config's own prime, "Zwei town", has letters that this text lacks: they are left out, not refused.
    assert cli.run(["sample", str(trained), "--length", "5"]) == 0
    assert capsys.readouterr().out.startswith("wi town")


def test_a_checkpoint_can_be_chosen(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["eval", str(trained), "--checkpoint", "40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 40
    assert "there is no checkpoint 7" in refusal(capsys, "eval", str(trained), "--checkpoint", "7")
    assert "best, latest, fresh or a step" in refusal(capsys, "eval", str(trained), "--checkpoint", "newest")


CELL = """
import jax, flax.linen as nn, charlstm

class {name}(nn.RNNCellBase):
    features: int

    @nn.compact
    def __call__(self, hidden, inputs):
        hidden = nn.tanh(nn.Dense(self.features)(inputs) + nn.Dense(self.features)(hidden))
        return hidden, hidden

    def initialize_carry(self, rng, input_shape):
        return jax.numpy.zeros((*input_shape[:-1], self.features))

    num_feature_axes = 1

charlstm.register_cell("typed_cell", {name})
"""


@pytest.mark.slow
def test_a_file_that_registers_a_cell_is_run_first(tmp_path: Path) -> None:
    """In a process of its own, as a cell stays registered."""
    (tmp_path / "cell.py").write_text(CELL.format(name="TypedCell"))
    (tmp_path / "text").write_text(TEXT)
    sizes = ["--model.hidden-size", "4", "--data.batch-size", "2", "--data.seq-length", "8", "--train.steps", "2"]
    typed = ["--data.corpus", "text", "--model.cell", "typed_cell", *sizes, "--sample.length", "5"]

    def charlstm(*words: str) -> subprocess.CompletedProcess[str]:
        path = {"PYTHONPATH": str(REPOSITORY)}
        program = [sys.executable, "-m", "charlstm", *words]
        return subprocess.run(program, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True)

    done = charlstm("--import", "cell.py", "train", "--run-dir", "run", "--train.tensorboard", "False", *typed)
    assert done.returncode == 0, done.stderr
    assert charlstm("--import", "cell.py", "sample", "run", "--length", "7").returncode == 0
    unknown = charlstm("sample", "run")
    assert unknown.returncode == 2
    assert "register_cell('typed_cell', ...) first, as in charlstm --import FILE sample RUN" in unknown.stderr


def test_corpora_lists_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["corpora"]) == 0
    listing = capsys.readouterr().out
    for name in ("king_james", "anna_karenina", "anna_karenina_book", "tiny_shakespeare", "war_and_peace"):
        assert name in listing
    assert cli.run(["corpora", "--json"]) == 0
    array = capsys.readouterr().out
    for entry, row in zip(corpora.catalogue(), json.loads(array), strict=True):
        assert (row["name"], row["characters"], row["place"]) == (entry.name, entry.characters, entry.place)
        assert row["path"] is None or Path(row["path"]).is_file()
    assert len(array.splitlines()) == len(corpora.catalogue()) + 2  # an entry a line


@pytest.mark.slow
def test_bytes_can_be_modelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "greek.txt"
    text.write_text("λόγος καὶ χρόνος " * 60)
    typed = ["--data.corpus", str(text), "--data.symbols", "bytes", "--data.batch-size", "2", "--data.seq-length", "16"]
    size = ["--model.hidden-size", "8", "--train.steps", "5", "--train.tensorboard", "False", "--sample.prime", "λόγος"]
    assert cli.run(["train", "--run-dir", str(tmp_path / "run"), *typed, *size, "--sample.length", "30"]) == 0
    assert capsys.readouterr().out.startswith("λόγος")
    assert all(ord(each) < 256 for each in json.loads((tmp_path / "run" / "vocabulary.json").read_text()))


def test_eval_tells_how_far_a_gradient_reaches(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(trained), "--split", "train", "--lags"]
    assert cli.run(words) == 0
    header, *layers = capsys.readouterr().out.splitlines()[1:]
    assert header.split()[3:6] == ["0", "1", "2"]
    assert all(line.split()[2] == "1.0e+00" for line in layers)
    norms = []
    for checkpoint in ("best", "fresh"):
        assert cli.run([*words, "--json", "--checkpoint", checkpoint]) == 0
        told = json.loads(capsys.readouterr().out)
        norms.append(told["lags"])
        assert len(told["reach"]) == len(told["lags"]) == len(layers)
    assert told["step"] == 0
    assert norms[0] != norms[1]


def test_another_vocabulary_is_refused(trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its text would be read in the text's own ids, and the loss that of the honest run."""
    run = shutil.copytree(trained, tmp_path / "run")
    characters = json.loads((run / "vocabulary.json").read_text())
    (run / "vocabulary.json").write_text(json.dumps([*characters[:-1], "\U0010ffff"]))
    assert "is not that of the run's text" in refusal(capsys, "eval", str(run))


def test_export_writes_into_the_run_or_where_it_is_told(
    trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["export", str(trained), "--checkpoint", "40"]) == 0
    written = trained / "model.safetensors"
    assert capsys.readouterr().out == f"{written}\n"
    other = tmp_path / "other.safetensors"
    assert cli.run(["export", str(trained), "--output", str(other), "--checkpoint", "latest"]) == 0
    assert capsys.readouterr().out == f"{other}\n"
    assert other.read_bytes() == written.read_bytes()
    assert "must end in .safetensors" in refusal(
        capsys, "export", str(trained), "--output", str(trained / "config.json")
    )
    nowhere = str(tmp_path / "no_such_folder" / "model.safetensors")
    assert "cannot be written: No such file or directory" in refusal(
        capsys, "export", str(trained), "--output", nowhere
    )
    assert "there is no checkpoint 7" in refusal(capsys, "export", str(trained), "--checkpoint", "7")
