"""What charlstm suggests to type works when it is typed."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import config
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.cli import arguments
from charlstm.cli.parsing import parse
from charlstm.cli.summary import lost_prime, next_commands, shell_word
from charlstm.cli.terminal import Reporter
from charlstm.config import DataConfig, Symbols
from charlstm.data.corpora import to_symbols
from charlstm.data.dataset import Dataset
from charlstm.runs.folder import Run

ODD = ["a b", " a ", "a\tb", "a\nb\n", "'", "\\n", "$HOME", "-x", "--help", ":apple:", "[bold]x[/bold]", "é\u202e"]

needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


def typed(line: str) -> list[str]:
    """The words that a shell makes of a line."""
    words = ["bash", "-c", f'charlstm() {{ printf "%s\\0" "$@"; }}; {line}']
    return subprocess.run(words, capture_output=True, check=True).stdout.decode().removesuffix("\0").split("\0")


def read(tmp_path: Path, text: str, prime: str, folder: str = "run", symbols: Symbols = "characters") -> Any:
    """A run of a text, which nobody trained, and the text."""
    (tmp_path / "text").write_bytes(text.encode("utf-8", "surrogateescape"))
    data = Dataset.read(DataConfig(corpus=str(tmp_path / "text"), symbols=symbols, batch_size=1, seq_length=4))
    asked = replace(config(prime=prime), data=data.config)
    return Run(Path(folder), asked, data.vocabulary, data.fingerprint), data


@needs_bash
@pytest.mark.parametrize("odd", ODD)
def test_a_suggested_command_has_the_prime_and_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: str
) -> None:
    run, data = read(tmp_path, odd * 20, odd, odd)
    Reporter().line("\n".join(next_commands(run, data)))
    _, sample, evaluate = capsys.readouterr().err.splitlines()
    _, *words = typed(sample)
    asked = parse(arguments.Sample, words)
    assert (asked.prime, asked.run.resolve()) == (odd, Path(odd).resolve())
    assert parse(arguments.Eval, typed(evaluate)[1:]).run.resolve() == Path(odd).resolve()


@needs_bash
@settings(max_examples=20)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_any_text_is_a_word_of_a_shell(texts: list[str]) -> None:
    words = [shell_word(each) for each in [*texts, *ODD]]
    assert all(word.isprintable() for word in words)
    assert typed(f"charlstm {' '.join(words)}") == [*texts, *ODD]


@pytest.mark.parametrize(
    ("text", "prime", "suggested"),
    [
        ("the town " * 9, "the ", "the "),
        ("ACGT" * 20, "In the beginning", "ACGTACGTACGTACGT"),
        ("\n \ntime,depth\n0,0.5\n" * 9, "In the beginning", "time,depth"),
        ("λόγος " * 9, "", None),
        ("\n\n \n" * 9, "In", None),
        ("ab" * 99, "ab" * 99, "ab" * 30),
    ],
)
@pytest.mark.parametrize("symbols", ["characters", "bytes"])
def test_a_suggested_prime_is_one_that_the_model_knows(
    tmp_path: Path, text: str, prime: str, suggested: str | None, symbols: Symbols
) -> None:
    run, data = read(tmp_path, text, prime, symbols=symbols)
    asked = parse(arguments.Sample, typed(next_commands(run, data)[1])[1:])
    assert asked.prime == suggested
    assert not run.vocabulary.unknown(to_symbols(asked.prime or "", symbols))
    assert bool(lost_prime(run.config, run.vocabulary)) == bool(run.vocabulary.unknown(prime))


def test_bytes_that_are_no_text_suggest_no_prime(tmp_path: Path) -> None:
    run, data = read(tmp_path, "\udcff\udcfe" * 20, "In", symbols="bytes")
    assert "--prime" not in next_commands(run, data)[1]
