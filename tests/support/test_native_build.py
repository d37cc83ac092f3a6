"""The native core is compiled once, by whatever compiler there is; where it cannot be, one line says why."""

import os
import sys
from pathlib import Path

import pytest

from charlstm import cli
from charlstm.support import native

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the native core is for Linux")

COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo "Compiler 1.0" && exit
echo ran >> {log}
{what}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own cache, in a process in which nothing was loaded and no compiler is found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CHARLSTM_NATIVE", raising=False)
    monkeypatch.setattr(native, "_library", None)
    monkeypatch.setattr(native, "_tried", False)
    return tmp_path / "cache" / "charlstm" / "native"


def put_compiler(folder: Path, what: str) -> Path:
    """A compiler that does as it is told, and the file that has a line for each of its runs."""
    log, path = folder / "log", folder / "bin" / "c++"
    path.parent.mkdir(exist_ok=True)
    path.write_text(COMPILER.format(log=log, what=what))
    path.chmod(0o755)
    return log


def told() -> list[str]:
    lines: list[str] = []
    native.set_up(lines.append)
    return lines


def test_without_a_compiler_one_line_says_what_to_do(cache: Path, capfd: pytest.CaptureFixture[str]):
    (line,) = told()
    assert "no native core, so loops run in JAX: there is no C++ compiler; install g++ or clang" in line
    assert native.library() is None and told() == []  # it is said once
    assert cli.run(["compile"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_a_compiler_that_fails_is_not_asked_each_time(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = put_compiler(tmp_path, "echo 'native.cc:1: error: no such thing' >&2; exit 1")
    for _ in range(2):
        monkeypatch.setattr(native, "_tried", False)
        assert "error: no such thing" in told()[-1]
    once = log.read_text()  # a process for each cell
    assert set(once.splitlines()) == {"ran"}
    with pytest.raises(native.UnavailableError, match="no such thing"):
        native.find_core(again=True)
    assert log.read_text() == 2 * once


def test_a_core_that_does_not_pass_its_test_is_not_kept(cache: Path, tmp_path: Path):
    put_compiler(tmp_path, "exit 0")  # and leaves an empty file, which cannot be loaded
    with pytest.raises(native.UnavailableError, match="fails its test: OSError"):
        native.find_core()
    assert [path.suffix for path in cache.iterdir()] == [".failed"]
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"a", b"another library", b""])
def test_a_core_that_is_not_whole_is_compiled_again(
    content: bytes, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log = put_compiler(tmp_path, "exit 0")
    monkeypatch.setattr(native, "_TEST", "pass")
    core = native.find_core()
    once, whole = log.read_text(), core.read_bytes()
    assert native.find_core() == core and log.read_text() == once
    core.write_bytes(content)
    assert native.find_core() == core and log.read_text() == 2 * once and core.read_bytes() == whole
    core.write_bytes(content)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(native.UnavailableError, match="no C"):
        native.find_core()


def test_a_test_that_does_not_end_is_ended(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_compiler(tmp_path, "exit 0")
    monkeypatch.setattr(native, "_TEST", "import time; time.sleep(600)")
    monkeypatch.setattr(native, "_LONGEST_SECONDS", 3)
    with pytest.raises(native.UnavailableError, match="took longer than 3 seconds"):
        native.find_core()
    assert [path.suffix for path in cache.iterdir()] == [".failed"]


def test_other_systems_are_told_so(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "it is for Linux on x86-64 and ARM64, not darwin" in told()[0]


def test_it_can_be_turned_off(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHARLSTM_NATIVE", "off")
    assert told() == [] and native.library() is None


@pytest.mark.slow
def test_it_is_compiled_once_and_then_found_without_a_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", os.defpath)
    said: list[str] = []
    core = native.find_core(said.append)
    assert said == ["compiling the native core, once for this machine"]
    assert core.parent == cache and [path.name for path in cache.iterdir()] == [core.name]
    monkeypatch.setenv("PATH", "")
    assert native.find_core(said.append) == core and len(said) == 1
