"""Ids in a file are those in memory, under every law of data/, and only the pages of a window are held."""

import errno
import os
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import words

from benchmarks import memory
from charlstm.config import DataConfig
from charlstm.data import mapped, text_file
from charlstm.data.dataset import Dataset
from charlstm.data.windows import WindowedText
from charlstm.support.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME moves the cache folder on Linux only")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the ids come to lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "charlstm" / "ids"


def read(path: Path, **fields: Any) -> tuple[Dataset, list[str]]:
    """A text through a file of its ids, and what is told of it."""
    told = list[str]()
    sizes: dict[str, Any] = {"batch_size": 2, "seq_length": 8}
    config = DataConfig(corpus=str(path), cache=True, **sizes | fields)
    return Dataset.read(config, told.append), told


def text(path: Path, content: str = "a text of many words, ") -> Path:
    path.write_text(content * 100)
    return path


@given(
    content=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=30, max_size=200),
    more=st.sampled_from(["", "".join(map(chr, range(0x100, 0x240)))]),
    rows=st.integers(1, 3),
)
@settings(max_examples=30)
def test_all_is_as_in_memory(tmp_path_factory: pytest.TempPathFactory, content: str, more: str, rows: int):
    folder = tmp_path_factory.getbasetemp() / "mapped"
    folder.mkdir(exist_ok=True)
    path = folder / "text.txt"
    path.write_bytes((3 * content + more).encode())
    fields: dict[str, Any] = {"batch_size": rows, "seq_length": 5, "validation_fraction": 0.2, "test_fraction": 0.1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        in_memory = Dataset.read(DataConfig(corpus=str(path), **fields))
        for _ in range(2):  # written, and found
            in_file, _ = read(path, **fields)
            assert (in_file.vocabulary, in_file.fingerprint) == (in_memory.vocabulary, in_memory.fingerprint)
            for split in ("train", "validation", "test"):
                found, wanted = in_file.ids(split), in_memory.ids(split)
                assert found.dtype == wanted.dtype and not found.flags.writeable
                np.testing.assert_array_equal(found, wanted)
            for cursor in range(2 * in_memory.train.windows_per_epoch):
                pairs = zip(in_file.train.window(cursor)[:3], in_memory.train.window(cursor)[:3], strict=True)
                assert all(np.array_equal(*pair) for pair in pairs)
        assert read(path, **fields)[1] == []


def test_ids_are_written_once_for_a_text_whatever_it_is_called(cache: Path, tmp_path: Path):
    _, told = read(text(tmp_path / "text.txt"))
    (path,) = cache.iterdir()
    assert told == [f"the ids of this text take 0.0 MB in {cache}; delete them when no run needs them"]
    written = path.stat().st_mtime_ns
    assert read(text(tmp_path / "again.txt"))[1] == [] and path.stat().st_mtime_ns == written
    read(text(tmp_path / "other.txt", "another text of many words, "))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: b"cut",
        lambda whole: bytes(len(whole)),
        lambda whole: whole[:1000] + bytes(len(whole) - 1000),  # a copy to which all its room was given first
        lambda whole: whole[:900] + bytes(200) + whole[1100:],
    ],
    ids=["another size", "another text", "half a copy", "a hole"],
)
def test_a_file_of_other_ids_is_written_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes]
):
    monkeypatch.setattr(text_file, "_CHUNK", 150)
    whole = np.array(read(text(tmp_path / "text.txt"))[0].ids("train"))
    (path,) = cache.iterdir()
    assert path.stat().st_size == 2200
    path.write_bytes(spoil(path.read_bytes()))
    again, told = read(tmp_path / "text.txt")
    np.testing.assert_array_equal(again.ids("train"), whole)
    assert len(told) == 1 and read(tmp_path / "text.txt")[1] == []


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(text(tmp_path / "a file")))
    with pytest.raises(InputError, match=r"ids, which cannot be written to \(Not a directory\); set XDG_CACHE_HOME"):
        read(text(tmp_path / "text.txt"))


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = namedtuple("usage", "total used free")(10**10, 10**10 - 2199, 2199)
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"take 0\.0 MB in .*ids, and 0\.0 MB are free there; free some, set XDG_"):
        read(text(tmp_path / "text.txt"))
    assert list(cache.iterdir()) == []


def test_a_disk_that_fills_leaves_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mapped.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        read(text(tmp_path / "text.txt"))
    assert str(error.value.filename).startswith(str(cache)) and list(cache.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(cache: Path, tmp_path: Path):
    cache.mkdir(parents=True)
    for name, age in (("old.tmp", 2 * mapped._STALE), ("new.tmp", 0)):
        (cache / name).write_bytes(b"half of the ids")
        os.utime(cache / name, (time.time() - age, time.time() - age))
    read(text(tmp_path / "text.txt"))
    assert "new.tmp" in os.listdir(cache) and "old.tmp" not in os.listdir(cache)


def test_rows_that_are_put_together_in_memory_are_refused():
    with pytest.raises(ValueError, match="cache is True; held_out must be 'end'"):
        DataConfig(cache=True, held_out="rows")


def test_the_pages_of_a_window_are_held_and_no_more(tmp_path: Path):
    """A sparse file of 4 GB stands for the ids."""
    if memory.resident() is None:
        pytest.skip("this system does not tell a process's memory")
    path = tmp_path / "ids"
    with path.open("wb") as file:
        file.truncate(4 * 10**9)
    windows = WindowedText(np.memmap(path, np.uint8, "r"), 16, 64)

    def held(cursor: int) -> int:
        windows.window(cursor)
        found = memory.resident()
        assert found is not None
        return found

    first = held(0)
    assert max(held(cursor) for cursor in range(0, windows.windows_per_epoch, 8000)) < first + 5e6  # of 488 windows


# Of a process that a small one started: Linux counts what its parent had when it began.
_PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@pytest.mark.slow
def test_a_training_holds_little_of_a_large_text(tmp_path: Path):
    """A sparse file, of bytes: a text of 300 MB is trained in the memory that one of 1 MB needs."""
    peaks = []
    for name, size in (("small", 10**6), ("large", 3 * 10**8)):
        with (tmp_path / name).open("wb") as file:
            file.write(b"In the beginning")
            file.truncate(size)
        fields: Any = {"data__symbols": "bytes", "data__cache": True, "data__validation_fraction": 1e-5}
        fields |= {"data__test_fraction": 0.0, "train__steps": 4, "sample__prime": "In", "train__sample_every": 0}
        asked = words(tmp_path / name, tmp_path / f"{name} run", **fields)
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, sys.executable, "-m", "charlstm", *asked],
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert f"the ids of this text take {size / 1e6:.1f} MB in" in done.stderr
        peaks.append(int(done.stdout.splitlines()[-1]) * 1024)
    assert peaks[1] < peaks[0] + 100e6 < 1e9
