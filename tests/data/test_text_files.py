"""Several files, and compressed ones, are one text; what cannot be read is named in one line."""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_texts import refusal

from charlstm.config import DataConfig
from charlstm.data import corpora, text_file
from charlstm.data.dataset import Dataset, Fingerprint
from charlstm.support.errors import InputError


def zstd(content: bytes) -> bytes:
    pytest.importorskip("compression.zstd" if text_file.sys.version_info >= (3, 14) else "backports.zstd")
    return text_file._decompressor("x.zst")[0].compress(content)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
DAMAGES = [lambda data: data[:-9], lambda data: data[:20] + b"x" * 99, lambda data: b"a text\n"]
by_kind = pytest.mark.parametrize("kind", COMPRESSORS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four texts, one of them compressed and one empty, beside what is not read."""
    path = tmp_path / "texts"
    (path / "deeper" / "still").mkdir(parents=True)
    (path / "b.txt").write_bytes(b"\xef\xbb\xbfsecond\r\n")
    (path / "a.txt").write_text("first")
    (path / "c.md.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfthird"))
    (path / "empty.txt").touch()
    (path / ".hidden").write_bytes(b"\xff")
    (path / "deeper" / "d.txt").write_text("fourth")
    (path / "deeper" / "still" / "e.txt").write_text("fifth")
    return path


# Several files.


def test_a_folder_is_its_own_files_in_order(folder: Path):
    assert corpora.load(str(folder), "characters") == "first\nsecond\n\nthird"
    assert corpora.load(str(folder), "characters", "<é>") == "first<é>second\n<é>third"
    assert corpora.load(str(folder), "characters", "") == "firstsecond\nthird"
    raw = b"first\xc3\xa9\xef\xbb\xbfsecond\r\n\xc3\xa9\xef\xbb\xbfthird"
    assert corpora.load(str(folder), "bytes", "é").encode("latin-1") == raw


def test_a_glob_is_what_it_matches(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder))
    assert corpora.load("texts/*.txt", "characters", "|") == "first|second\n"
    assert corpora.load("~/[bc].*", "characters", "|") == "second\n|third"
    assert corpora.load("texts/**/*.txt", "characters", "|") == "first|second\n|fourth|fifth"
    assert corpora.load("texts/**", "characters", "|") == "first|second\n|third|fourth|fifth"
    assert corpora.resolve("texts/*.txt") == str(folder / "*.txt")
    assert "no file matches" in refusal("texts/*.rst")


def test_a_name_that_looks_like_a_glob_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    odd = tmp_path / "a [1] folder?"
    odd.mkdir()
    (odd / "text[1].txt").write_text("this one")
    (odd / "text1.txt").write_text("and not this")
    monkeypatch.chdir(odd)
    assert corpora.load("text[1].txt", "characters") == "this one"
    assert (
        corpora.load("*.txt", "characters", "|") == corpora.load(str(odd), "characters", "|") == "and not this|this one"
    )
    pattern = corpora.resolve("*1.txt")
    monkeypatch.chdir(tmp_path)
    assert corpora.resolve(pattern) == pattern
    assert corpora.load(pattern, "characters") == "and not this"


def test_a_folder_with_links_to_itself_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "again").symlink_to(folder)
    (folder / "other.txt").symlink_to(folder / "a.txt")
    assert corpora.load(f"{folder}/**/*.txt", "characters", "|") == "first|second\n|fourth|fifth"
    monkeypatch.setattr(text_file, "_MOST_FILES", 2)
    assert "more than 2 files" in refusal(f"{folder}/**/*.txt")


def test_what_cannot_be_read_is_named(folder: Path):
    assert "is not UTF-8 at byte 0" not in refusal(folder / "deeper" / "missing")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    message = refusal(folder)
    assert repr(str(folder / "picture.png")) in message and "quoted glob" in message and "bytes" not in message
    (folder / "picture.png").unlink()
    os.mkfifo(folder / "pipe")
    assert f"{str(folder / 'pipe')!r} is not a regular file" in refusal(folder)
    (folder / "pipe").unlink()
    (folder / "lost").symlink_to("nowhere")
    assert "no corpus or file" in refusal(folder / "lost")
    (folder / "lost").unlink()
    (folder / "deeper" / "only").mkdir()
    assert "no file in the folder" in refusal(folder / "deeper" / "only")
    (folder / "deeper" / "only" / "empty").touch()
    assert "is empty" in refusal(folder / "deeper" / "only")
    assert "standard input cannot be read again; save its text to a file first" in refusal("-")


def test_the_fingerprint_covers_what_was_read(folder: Path):
    config = DataConfig(corpus=str(folder), separator="|", batch_size=1, seq_length=4)
    data = Dataset.read(config)
    assert data.fingerprint == Fingerprint.of(str(folder), "first|second\n|third")
    (folder / "c.md.gz").write_bytes(gzip.compress(b"third", mtime=1))  # the same text in other bytes
    assert Dataset.read(config).fingerprint == data.fingerprint
    (folder / "zz.txt").write_text("more")
    assert Dataset.read(config).fingerprint != data.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "b.txt").write_text("other text"),
        lambda folder: (folder / "new.txt").write_text("new"),
        lambda folder: (folder / "a.txt").unlink(),
        lambda folder: (folder / "a.txt").rename(folder / "aa.txt"),
    ],
)
def test_a_folder_that_changes_while_it_is_read_is_refused(folder: Path, change: Callable[[Path], Any]):
    pieces = corpora.pieces(str(folder), "characters")
    assert list(pieces) == list(pieces)
    change(folder)
    with pytest.raises(InputError, match="changed while it was read"):
        list(pieces)


def test_a_file_that_changes_between_two_others_is_refused(folder: Path):
    pieces = iter(corpora.pieces(str(folder), "characters"))
    next(pieces)
    (folder / "b.txt").write_text("longer than it was")
    with pytest.raises(InputError, match=r"b\.txt' changed while it was read"):
        list(pieces)


# Compressed files.


@by_kind
@given(
    content=st.text(st.sampled_from("\r\n\ufeffé") | st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
)
def test_a_compressed_file_is_its_text(tmp_path_factory: pytest.TempPathFactory, kind: str, content: str):
    path, plain = (tmp_path_factory.getbasetemp() / name for name in (f"text{kind.upper()}", "plain"))
    compress = COMPRESSORS[kind]
    both = content.encode(), b"of two parts"
    path.write_bytes(compress(both[0]) + compress(both[1]))
    plain.write_bytes(b"".join(both))
    for symbols in ("characters", "bytes"):
        assert corpora.load(str(path), symbols) == corpora.load(str(plain), symbols)


@by_kind
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:20] + b"x" * 99, lambda data: b"a text\n"]
)
def test_a_damaged_archive_is_one_line(tmp_path: Path, kind: str, damage: Callable[[bytes], bytes]):
    path = tmp_path / f"text{kind}"
    path.write_bytes(damage(COMPRESSORS[kind](os.urandom(500).hex().encode())))
    for symbols in ("characters", "bytes"):
        assert f"{str(path)!r} cannot be decompressed" in refusal(path, symbols)


@by_kind
def test_a_bomb_is_not_held(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / f"text{kind}"
    path.write_bytes(COMPRESSORS[kind](b"a" * 10_000_000))
    monkeypatch.setattr(text_file, "memory", lambda: 9_999_999)
    read = iter(corpora.pieces(str(path), "bytes"))
    with pytest.raises(InputError, match="more bytes than this machine has memory"):
        for _ in range(3):
            next(read)
    monkeypatch.setattr(text_file, "memory", lambda: 10_000_000)
    assert len(corpora.load(str(path), "characters")) == 10_000_000


@by_kind
def test_a_compressed_file_by_another_name_is_no_text(tmp_path: Path, kind: str):
    (tmp_path / "text").write_bytes(COMPRESSORS[kind](bytes(range(200)) * 9))
    message = refusal(tmp_path / "text")
    assert f"it is compressed, so give a file whose name ends in {kind}" in message and "bytes" not in message


def test_zst_without_its_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        if name.endswith("zstd"):
            raise ModuleNotFoundError(name)
        return import_module(name)

    monkeypatch.setattr(text_file, "import_module", missing)
    (tmp_path / "text.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    assert "text.zst' needs the package backports.zstd; pip install 'charlstm[zstd]'" in refusal(tmp_path / "text.zst")
