"""What score, sample and eval give to another program: rows, JSON, primes from files, texts that stop."""

import gzip
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from folders import config, make_run
from fuzzing import run
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import random_params, small_model, text_nats

from charlstm.analysis import evaluate as evaluation
from charlstm.cli import reading
from charlstm.config import Symbols
from charlstm.data import lines
from charlstm.runs import loading
from charlstm.runs.folder import Run
from charlstm.runs.loading import TrainedRun
from charlstm.support.errors import InputError

KNOWN = "\n\t\r abcde\u2028é"
BOTH: list[Symbols] = ["characters", "bytes"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TrainedRun]]:
    """A run of characters and one of bytes by their folders' names, with random parameters, in the current folder."""
    folder, found = tmp_path_factory.mktemp("reading"), dict[str, TrainedRun]()
    for symbols, known in zip(BOTH, (KNOWN, "".join(map(chr, range(256)))), strict=True):
        asked = config(cell="gru", size=4)
        asked = replace(asked, data=replace(asked.data, symbols=symbols))
        make_run(folder / symbols, asked, steps=0, vocabulary=known)
        model = small_model("gru", vocabulary=len(set(known)))
        found[symbols] = TrainedRun(Run.open(folder / symbols), model, random_params(model, 0), 7, ())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("charlstm.support.process.prepare", lambda **_: None)
        patch.setattr(loading, "load_run", lambda path, _: found[path.name])
        yield found


def nats(found: TrainedRun, symbols: str) -> Any:
    """Of each of the symbols, by NumPy."""
    return text_nats(found.model, found.params, found.vocabulary.encode(symbols))


def put_in(patch: pytest.MonkeyPatch, content: bytes) -> None:
    patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(content)))


def records(*words: str) -> list[dict[str, Any]]:
    told = run(*words, "--json")
    assert (told.code, told.err) == (0, "")
    return [json.loads(line) for line in told.out.splitlines()]


_some_lines = st.lists(st.text(KNOWN.replace("\n", ""), max_size=80), min_size=1, max_size=6)


@settings(max_examples=25)
@given(symbols=st.sampled_from(BOTH), texts=_some_lines, ending=st.sampled_from(["", "\n"]), chunk=st.integers(1, 9))
@example(symbols="characters", texts=["\ufeffa", "", "\u2028b", "c\r"], ending="\r\n", chunk=1)
def test_each_line_is_scored_alone_but_for_its_first_character(
    runs: dict[str, TrainedRun], symbols: Symbols, texts: list[str], ending: str, chunk: int
) -> None:
    content = ("\n".join(texts) + ending).encode()
    if symbols == "bytes":
        wanted = content.removesuffix(b"\n").decode("latin-1").split("\n")
    else:
        wanted = content.decode().removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
    if not content:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", chunk)  # which cuts characters and lines
        patch.setattr(lines, "_MOST_LINES", 2)
        patch.setattr(reading, "_BATCH", 3)
        put_in(patch, content)
        found = records("score", symbols)
        put_in(patch, content)
        each = records("score", symbols, "-", "--by", "character")
    unit = symbols.removesuffix("s")
    assert [row["line"] for row in found] == list(range(1, len(wanted) + 1))
    for row, line in zip(found, wanted, strict=True):
        mine = [one for one in each if one["line"] == row["line"]]
        shown = [ord(symbol) if unit == "byte" else symbol for symbol in line[1:]]
        assert [one[unit] for one in mine] == shown
        assert [one["column"] for one in mine] == list(range(2, len(line) + 1))
        assert (row["characters"], row["skipped"]) == (len(shown), 0)
        assert row["nats"] == pytest.approx(nats(runs[symbols], line)[1:].sum() if shown else 0, rel=1e-4)
        assert row["nats"] == pytest.approx(sum(one["nats"] for one in mine))
        assert row["bits"] == pytest.approx(row["nats"] / math.log(2))
        assert row["bits_per_char"] * row["characters"] == pytest.approx(row["bits"])
        if symbols == "characters":
            assert row["text"] == line


def test_rows_are_for_people_too_and_a_total_stands_apart(
    runs: dict[str, TrainedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in(monkeypatch, b"a\tb\nx\nedcba\n")
    told = run("score", "characters", "--skip-unknown")
    assert told.code == 0
    assert [line.split(maxsplit=4)[::3] for line in told.out.splitlines()] == [["1", "2"], ["2", "0"], ["3", "4"]]
    assert told.out.splitlines()[2].endswith(" edcba")
    title, total = told.err.splitlines()
    assert title.split() == ["line", "nats", "bits_per_char", "characters", "text"]
    assert total.startswith("3 lines: ") and total.endswith(" over 6 characters; 1 unknown left out")
    put_in(monkeypatch, b"ab\n")
    told = run("score", "characters", "--by", "character")
    assert told.out.split()[-1] == "'b'"
    assert "\n1 line: " in told.err and told.err.endswith(" bits per character over 1 character\n")
    put_in(monkeypatch, b"abc\n")
    assert run("score", "bytes").err.endswith(" bits per byte over 2 bytes\n")


def test_unknown_characters_are_named_with_their_line_or_counted(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("ab\n" * 5000 + "caZdZeZ\n")
    told = run("score", "characters", str(path))
    assert told.code == 2 and told.err.startswith("charlstm: line 5,001: not in the vocabulary: 'Z' (U+005A);")
    *_, last = records("score", "characters", str(path), "--skip-unknown")
    assert (last["text"], last["characters"], last["skipped"]) == ("caZdZeZ", 3, 3)
    assert last["nats"] == pytest.approx(nats(runs["characters"], "cade")[1:].sum(), rel=1e-4)
    path.write_text("ZaZb\n")
    assert [(row["column"], row["character"]) for row in records(
        "score", "characters", str(path), "--skip-unknown", "--by=character"
    )] == [(4, "b")]  # fmt: skip
    with pytest.raises(InputError, match="line 2: not in the vocabulary: 'Z'"):
        runs["characters"].score(["ab", "Z"])
    assert runs["characters"].score(["aZb"], skip_unknown=True) == runs["characters"].score(["ab"])


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"a\0b\n", "has a NUL at byte 1"), (b"ab\xff", "is not UTF-8 at byte 2"), (b"a" * 99, "line")],
)
def test_what_is_no_lines_is_refused_in_one(
    runs: dict[str, TrainedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, says: str
) -> None:
    monkeypatch.setattr(lines, "_LONGEST", 90)
    put_in(monkeypatch, content)
    path = tmp_path / "text"
    path.write_bytes(content)
    for words in ([], [str(path)]):
        told = run("score", "characters", *words)
        assert told.code == 2 and says in told.err
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "cannot read" in run("score", "characters", str(path)).err
        assert "cannot read" in run("sample", "characters", "--prime-file", str(path)).err
    monkeypatch.setattr(sys, "stdin", None)
    assert "closed" in run("score", "characters").err


@pytest.mark.parametrize("symbols", BOTH)
def test_a_compressed_file_is_read_as_training_reads_it(
    runs: dict[str, TrainedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, symbols: Symbols
) -> None:
    path, packed = tmp_path / "text", tmp_path / "text.gz"
    path.write_text("ab\nce\n")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert records("score", symbols, str(packed)) == records("score", symbols, str(path))
    assert run("sample", symbols, "--prime-file", str(packed), "--length=0").out == "ab\nce\n\n"
    put_in(monkeypatch, packed.read_bytes())
    if symbols == "characters":
        assert "it is compressed, so give a file whose name ends in .gz" in run("score", symbols).err
    packed.write_bytes(packed.read_bytes()[:-9])
    for told in (run("score", symbols, str(packed)), run("sample", symbols, "--prime-file", str(packed))):
        assert told.code == 2 and "cannot be decompressed" in told.err


def test_eval_counts_what_it_leaves_out(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("aZb\n")
    assert "drop them with --skip-unknown" in run("eval", "characters", "--text", str(path)).err
    (row,) = records("eval", "characters", "--text", str(path), "--skip-unknown")
    assert (row["characters"], row["skipped"]) == (3, 1)
    assert row["loss"] == pytest.approx(nats(runs["characters"], "ab\n").mean(), rel=1e-4)
    assert " bits per byte over 4 bytes " in run("eval", "bytes", "--text", str(path)).out
    for more in (["--split", "test"], ["--split=validation"], ["--corpus", "text"]):
        assert "leave them out, or --text" in run("eval", "characters", "--text", str(path), *more).err
    path.write_text("ZZ")
    assert "nothing of" in run("eval", "characters", "--text", str(path), "--skip-unknown").err


@pytest.mark.parametrize("symbols", BOTH)
def test_json_has_what_sample_prints_and_its_nats(runs: dict[str, TrainedRun], symbols: Symbols) -> None:
    for prime in ("ab", ""):
        words = ["sample", symbols, f"--prime={prime}", "--length=40", "--seed=3"]
        for number, row in enumerate(records(*words, "--num=3")):
            printed = run(*words[:-1], f"--seed={3 + number}").out
            assert (row["seed"], row["prime"], row["text"] + "\n") == (3 + number, prime, printed)
            assert row["characters"] == 40
            if "\ufffd" not in row["text"]:
                assert row["nats"] == pytest.approx(nats(runs[symbols], row["text"])[len(prime) :].sum(), rel=1e-4)


def test_weights_can_be_those_that_int8_holds(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("abcde\n" * 9)
    losses = {}
    for weights in ("float32", "int8"):
        rounded = runs["characters"].with_weights(weights)
        (row,) = records("eval", "characters", "--text", str(path), "--weights", weights)
        assert row["weights"] == weights
        losses[weights] = row["loss"]
        assert row["loss"] == pytest.approx(nats(rounded, path.read_text()).mean(), rel=1e-4)
        drawn = run("sample", "characters", "--prime=ab", "--length=30", "--weights", weights).out
        assert drawn == rounded.sample("ab", length=30) + "\n"
    assert 0 < abs(losses["int8"] - losses["float32"]) < 0.01
    assert "in warmed rows, weights as int8" in run("eval", "characters", "--text", str(path), "--weights=int8").out


def test_a_stop_ends_texts_however_they_are_asked_for(runs: dict[str, TrainedRun]) -> None:
    words = ["sample", "characters", "--prime=\nab", "--length=300"]
    endless = run(*words).out
    end = min(endless.index("\n", 3), endless.index("e", 3)) + 1
    assert end < 250
    for more in ([], ["--stream"]):
        assert run(*words, "--stop", "\n", "--stop=e", *more).out == endless[:end] + "\n"
    row, *rest = records(*words, "--stop", "\n", "--stop=e", "--num=2")
    assert (row["text"], row["characters"]) == (endless[:end], end - 3)
    assert f"--- seed 1 ---\n{rest[0]['text']}\n" in run(*words, "--stop=e", "--stop=\n", "--num=2").out
    assert "--stop is ''" in run(*words, "--stop=").err
    assert run("sample", "characters", "--prime=Z", "--stop=Z").code == 2  # and nothing but one line
    told = run(*words, "--stop", r"\n")
    assert told.out == endless and "is never drawn; not in the vocabulary: '\\\\' (U+005C)" in told.err


def test_a_prime_is_read_as_a_text_is(
    runs: dict[str, TrainedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that a model's own text is a prime: CRLF is LF among characters, and stays among bytes."""
    path = tmp_path / "-prime"
    for symbols, content in (("characters", "a\r\n\u2028é\n\n".encode()), ("bytes", b"\xff\0\r\n\xc3")):
        path.write_bytes(content)
        put_in(monkeypatch, content)
        monkeypatch.chdir(tmp_path)
        for source in ("-prime", "-"):
            told = run("sample", symbols, "--prime-file", source, "--length", "0")
            read = content if symbols == "bytes" else content.replace(b"\r\n", b"\n")
            assert told.out == read.decode("utf-8", "replace") + "\n"
    assert "-prime' has a NUL at byte 1" in run("sample", "characters", "--prime-file", "-prime").err
    assert "cannot go together" in run("sample", "bytes", "--prime-file", "-prime", "--prime", "a").err
    assert "cannot go together" in run("sample", "bytes", "--stream", "--json").err
    monkeypatch.setattr(lines, "_LONGEST", 3)
    assert "too many for a prime" in run("sample", "bytes", "--prime-file", "-prime").err


def test_a_value_may_begin_with_dashes(runs: dict[str, TrainedRun]) -> None:
    for prime in ("-- a", "--- a/file.c", "-x +y", "- item=1", "-", "--", "--flag", "-5", "--help me", "a=b", "None"):
        for words in (["--prime", prime], [f"--prime={prime}"]):
            assert run("sample", "bytes", *words, "--length", "0").out == f"{prime}\n"
    assert run("sample", "bytes", "--prime=--length", "--length=0").out == "--length\n"
    assert "--prime needs a value" in run("sample", "bytes", "--prime", "--length", "5").err
    assert "no option --flag" in run("sample", "bytes", "--flag").err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--temperature=-1"], "--temperature is -1.0; it must be at least 0"),
        (["--top-n=-1"], "--top-n is -1; it must be at least 0"),
        (["--seed=-1"], "--seed is -1; it must be at least 0"),
        (["--seed=4294967295", "--num=5"], "--seed + --num - 1 is 4294967299; it must be below 2**32"),
        ([f"--num={10**20}"], f"--seed + --num - 1 is {10**20 - 1}; it must be below 2**32"),
    ],
)
def test_a_setting_is_refused_by_its_option(runs: dict[str, TrainedRun], words: list[str], says: str) -> None:
    assert run("sample", "bytes", *words).err == f"charlstm: {says}\n"


def test_a_config_s_prime_that_loses_characters_says_which(
    runs: dict[str, TrainedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = runs["characters"]
    asked = replace(found.config, sample=replace(found.config.sample, prime="Zab", length=0))
    monkeypatch.setitem(runs, "characters", replace(found, run=replace(found.run, config=asked)))
    told = run("sample", "characters")
    assert told.out == "ab\n"
    lost = "loses characters not in the vocabulary: 'Z' (U+005A)"
    assert told.err == f"charlstm: the prime 'Zab' of the run's config {lost}\n"
    assert run("sample", "characters", "--prime", "ab").err == ""


def test_numbers_that_are_none_are_null_in_json(
    runs: dict[str, TrainedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = runs["characters"].params | {"head": {"kernel": runs["characters"].params["head"]["kernel"] * math.nan}}
    broken["head"]["bias"] = runs["characters"].params["head"]["bias"]
    monkeypatch.setitem(runs, "characters", replace(runs["characters"], params=broken))
    path = tmp_path / "text"
    path.write_text("abc\n")
    assert records("score", "characters", str(path))[0]["nats"] is None
    assert records("eval", "characters", "--text", str(path))[0]["loss"] is None
    assert records("sample", "characters", "--prime=a", "--length=3")[0]["nats"] is None


def test_the_lines_of_one_program_are_side_by_side(
    runs: dict[str, TrainedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocks = []
    whole = evaluation.all_nats
    monkeypatch.setattr(evaluation, "all_nats", lambda *args: blocks.append(len(args[2])) or whole(*args))
    path = tmp_path / "text"
    path.write_text("abc\n" * 5000)
    found = records("score", "characters", str(path))
    assert blocks == [4096, 904]
    assert len({row["nats"] for row in found}) == 1
