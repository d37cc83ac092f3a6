"""Files of any bytes, and primes of any Unicode: text comes through to the letter, or gets one line."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from folders import config, make_run
from fuzzing import ODD_TEXT, any_file, any_text, bounded, run
from hypothesis import example, given
from hypothesis import strategies as st
from reference import random_params, small_model

from charlstm.analysis import sample as sampling
from charlstm.analysis.evaluate import Evaluation
from charlstm.analysis.sample import CHUNK, WINDOW
from charlstm.config import Symbols
from charlstm.core.network import Model
from charlstm.data import corpora
from charlstm.data.vocabulary import Vocabulary, named
from charlstm.data.windows import WindowedText, split
from charlstm.runs import loading
from charlstm.runs.folder import Run
from charlstm.runs.loading import TrainedRun
from charlstm.support.errors import InputError
from charlstm.training.train import train

KNOWN = "".join(sorted({*"\0\n\r\x1b abcdefghij\u2028\u202e\u0301\u05d0\u0644\ud83d\udc80\U0001f469"}))
BOTH: list[Symbols] = ["characters", "bytes"]
both = st.sampled_from(BOTH)


@dataclass(frozen=True)
class Place:
    """A folder with a run of characters and one of bytes, and a file to write texts into."""

    folder: Path
    runs: dict[Symbols, TrainedRun]

    @property
    def text(self) -> Path:
        return self.folder / "text"

    def run(self, symbols: Symbols) -> str:
        return str(self.folder / symbols)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The runs were never trained: their parameters are random, and are given without a checkpoint."""
    folder = tmp_path_factory.mktemp("texts")
    runs: dict[Symbols, TrainedRun] = {}
    for symbols, known in zip(BOTH, (KNOWN, "".join(map(chr, range(256)))), strict=True):
        asked = config(cell="gru", size=4, corpus=str(folder / "text"))
        asked = replace(asked, data=replace(asked.data, symbols=symbols), sample=replace(asked.sample, prime=""))
        make_run(folder / symbols, asked, steps=0, vocabulary=known)
        model = small_model("gru", vocabulary=len(known))
        runs[symbols] = TrainedRun(Run.open(folder / symbols), model, random_params(model, 0), 7, ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlstm.support.process.prepare", lambda **_: None)
        patch.setattr(loading, "load_run", lambda folder, _: runs[folder.name])
        yield Place(folder, runs)


def expected(content: bytes, symbols: Symbols) -> str | None:
    """The text of a file as corpora.py promises it; None where it must be refused."""
    if symbols == "bytes":
        return "".join(map(chr, content)) or None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    text = text[1:] if text.startswith("\ufeff") else text
    return None if "\0" in text else text.replace("\r\n", "\n") or None


@given(
    symbols=both,
    content=any_file,
    rows=st.integers(1, 4),
    length=st.integers(1, 6),
    stretches=st.sampled_from([1, 3, 10**12]),
)
def test_a_file_of_any_bytes_becomes_windows_or_one_line(
    place: Place, symbols: Symbols, content: bytes, rows: int, length: int, stretches: int
) -> None:
    place.text.write_bytes(content)
    wanted = expected(content, symbols)
    with bounded():
        try:
            text = corpora.load(str(place.text), symbols)
        except InputError:
            assert wanted is None
            return
        assert text == wanted
        vocabulary = Vocabulary.of(text)
        ids = vocabulary.encode(text)
        assert list(vocabulary.characters) == sorted(set(text))
        assert vocabulary.decode(ids) == text
        parts = split(ids, 0.2, 0.1, stretches)
        assert sorted(np.concatenate(parts)) == sorted(ids)
        try:
            batches = WindowedText(parts.train, rows, length)
        except InputError:
            assert len(parts.train) < rows * length + 1
            return
        for cursor in {0, batches.windows_per_epoch - 1, batches.windows_per_epoch}:
            window = batches.window(cursor)
            assert window.inputs.shape == window.targets.shape == (rows, length)
            assert max(window.inputs.max(), window.targets.max()) < len(vocabulary)


class _BegunError(Exception):
    """In place of the first update."""


@given(
    symbols=both,
    content=any_file,
    rows=st.sampled_from([1, 2, 10**9]),
    held_out=st.sampled_from(["end", "rows"]),
    prime=any_text,
)
@example(symbols="bytes", content=b"a small town", rows=1, held_out="end", prime="\udcff")
@example(symbols="bytes", content=b"a small town", rows=1, held_out="end", prime="\ud83d\udc80")
def test_a_training_on_any_bytes_begins_or_leaves_nothing(
    place: Place, symbols: Symbols, content: bytes, rows: int, held_out: Literal["end", "rows"], prime: str
) -> None:
    place.text.write_bytes(content)
    folder, asked = place.folder / "trained", config(size=4, corpus=str(place.text), prime=prime)
    data = replace(asked.data, symbols=symbols, held_out=held_out, batch_size=rows, seq_length=2)

    def begin(*_: Any) -> None:
        raise _BegunError

    with bounded(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlstm.training.train.open_member", begin)
        try:
            train(replace(asked, data=data), folder)
        except InputError:
            assert not folder.exists()
            return
        except _BegunError:
            pass
    begun = Run.open(folder)
    shutil.rmtree(folder)
    text = expected(content, symbols)
    assert text is not None
    # Two halves of a surrogate pair are one character to JSON; neither a command line nor JSON brings them apart.
    joined = prime.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert (begun.vocabulary, begun.config.sample.prime) == (Vocabulary.of(text), joined)


def test_a_model_that_no_memory_holds_is_never_made(place: Place) -> None:
    place.text.write_bytes(b"a small town " * 9)
    typed = ["--data.batch-size=1", "--data.seq-length=2", "--model.num-layers=100", "--model.hidden-size=65536"]
    told = run("train", f"--data.corpus={place.text}", "--run-dir", str(place.folder / "large"), *typed)
    assert told.code == 2 and "GiB" in told.err
    assert not (place.folder / "large").exists()


@given(symbols=both, content=any_file, as_json=st.booleans())
def test_eval_on_any_bytes_says_a_figure_or_one_line(
    place: Place, symbols: Symbols, content: bytes, as_json: bool
) -> None:
    place.text.write_bytes(content)
    given_ids = []

    def evaluate(model: Model, params: Any, ids: np.ndarray, rows: int | None, newline: int | None) -> Evaluation:
        given_ids.append(ids)
        return Evaluation(1.5, len(ids))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "evaluate", evaluate)
        told = run("eval", place.run(symbols), "--text", str(place.text), *(["--json"] if as_json else []))
    text, vocabulary = expected(content, symbols), place.runs[symbols].run.vocabulary
    unknown = vocabulary.unknown(text or "")
    assert told.code == (2 if text is None or unknown else 0)
    if unknown:
        assert named(unknown[0]) in told.err
    if told.code == 0:
        assert vocabulary.decode(given_ids[0]) == text
        assert told.out.count("\n") == 1
        assert not as_json or json.loads(told.out)["characters"] == len(text or "")


# Primes.

_some = st.text(st.sampled_from(KNOWN), max_size=20) | any_text | st.sampled_from(ODD_TEXT)
primes = _some | st.builds(lambda text, times: text * times, _some, st.integers(0, 300))


@given(
    symbols=both,
    prime=primes,
    length=st.sampled_from([0, 1, 5]),
    skip=st.booleans(),
    stream=st.booleans(),
    num=st.sampled_from([1, 1, 1, 2]),
    seed=st.sampled_from([0, 5, 2**32 - 1]),
)
@example(symbols="bytes", prime="None", length=0, skip=True, stream=False, num=1, seed=0)
@example(symbols="bytes", prime="\ud83d\ude00", length=1, skip=False, stream=True, num=1, seed=0)
def test_a_prime_of_any_unicode_begins_the_sample_or_is_named(
    place: Place, symbols: Symbols, prime: str, length: int, skip: bool, stream: bool, num: int, seed: int
) -> None:
    flags = [*(["--skip-unknown"] if skip else []), *(["--stream"] if stream else [])]
    told = run(
        *("sample", place.run(symbols), f"--prime={prime}", "--length", str(length), "--seed", str(seed)),
        *("--num", str(num), *flags),
    )
    vocabulary = place.runs[symbols].run.vocabulary
    unknown = vocabulary.unknown(corpora.to_symbols(prime, symbols))
    if (unknown and not skip) or seed + num > 2**32:
        assert told.code == 2
        assert not unknown or skip or seed + num > 2**32 or named(unknown[0]) in told.err
        return
    assert told.code == 0 and told.err == ""
    read = corpora.to_symbols(prime, symbols).translate(dict.fromkeys(map(ord, unknown)))
    # Half a surrogate pair cannot be written, and is shown as Python writes it.
    shown = corpora.to_readable(read, symbols).encode("utf-8", "backslashreplace").decode()
    assert told.out.startswith(shown if num == 1 else f"--- seed {seed} ---\n{shown}")
    assert num > 1 or length or told.out == f"{shown}\n"


def test_no_length_of_a_prime_compiles_anew(place: Place) -> None:
    model = place.runs["characters"].model
    for each in (sampling._reader, sampling._advancer, sampling._noise):  # which other tests may have compiled
        each.cache_clear()  # pyright: ignore[reportFunctionMemberAccess]
    programs = sampling._reader(model), sampling._advancer(model), sampling._noise(model.vocabulary_size)

    def compiled() -> list[int]:
        return [program._cache_size() for program in programs]  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]

    def sampled(length: int) -> None:
        assert run("sample", place.run("characters"), f"--prime={'a' * length}", "--length", "3").code == 0

    sampled(WINDOW)
    before = compiled()
    for length in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, WINDOW - 1, WINDOW + 1, 3 * WINDOW + CHUNK + 1):
        sampled(length)
    assert compiled() == before == [1, 1, 1]


@pytest.mark.parametrize("symbols", BOTH)
def test_a_prime_of_a_megabyte_is_read_or_named(place: Place, symbols: Symbols) -> None:
    prime = ("e\u0301 \u05d0\u0644 \0\n" * 2**17)[: 2**20]
    assert len(prime) == 2**20
    words = ["sample", place.run(symbols), f"--prime={prime}", "--length", "5"]
    told = run(*words)
    assert told.code == 0 and told.out.startswith(prime)
    assert run(*words[:2], f"--prime={prime}\u4e2d", "--stream").code == (2 if symbols == "characters" else 0)
