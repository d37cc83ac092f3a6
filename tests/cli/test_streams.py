"""Who reads along may leave: nothing of a training is lost, and a command that only prints ends quietly."""

import errno
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import TEXT, short_words

TOLD = """
import os, sys, time
from charlstm.cli.terminal import Reporter, keep_streams
keep_streams()
reporter = Reporter()
with reporter.bar(0, 10):
    os.write(1, b"ready\\n")  # a bar takes what is printed
    sys.stdin.readline()
    for step in range(5):
        reporter.advance(step, "loss 1.0")
        reporter.line("a line")
        print("another", file=sys.stderr)
        time.sleep(0.1)  # in which a bar is drawn
sys.exit(7)
"""


def charlstm(*words: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "charlstm", *words], text=True, timeout=120, **streams)


@pytest.mark.parametrize("what", ["pipe", "terminal", "full"])
def test_lines_that_nobody_can_read_are_no_error(what: str) -> None:
    if what == "full":
        ours, theirs = os.open(os.devnull, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)
    else:
        ours, theirs = os.pipe() if what == "pipe" else pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", TOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    assert child.stdin and child.stdout
    assert child.stdout.readline() == "ready\n"
    os.close(ours)
    child.communicate("\n", timeout=60)
    assert child.returncode == 7


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_files_of_a_run(tmp_path: Path, closed: str) -> None:
    script = """import sys
from charlstm.cli.terminal import keep_streams
keep_streams()
file = open("metrics.jsonl", "w")
assert file.fileno() > 2
print("text")
print("text", file=sys.stderr)
"""
    (tmp_path / "script.py").write_text(script)
    command = f"{sys.executable} script.py {closed}"
    assert subprocess.run(command, shell=True, cwd=tmp_path, stdin=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def reader_gone() -> int:
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


@pytest.mark.parametrize("words", [("corpora",), ("--help",), ("train", "--help")])
def test_output_that_nobody_reads_ends_a_command_quietly(words: tuple[str, ...]) -> None:
    done = charlstm(*words, stdout=reader_gone(), stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [("corpora",), ("--help",)])
def test_output_that_finds_no_place_is_a_failure(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = charlstm(*words, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, f"charlstm: {os.strerror(errno.ENOSPC)}\n")


@pytest.mark.slow
def test_a_training_goes_on_without_its_reader(tmp_path: Path) -> None:
    (tmp_path / "tiny.txt").write_text(TEXT)
    gone = reader_gone()
    done = charlstm(*short_words(tmp_path / "tiny.txt", tmp_path / "run"), stdout=gone, stderr=gone)
    assert done.returncode == 0
    assert (tmp_path / "run" / "checkpoints" / "12").is_dir()
    assert (tmp_path / "run" / "samples" / "12.txt").exists()
    with open("/dev/full", "w") as full:
        done = charlstm(*short_words(tmp_path / "tiny.txt", tmp_path / "full"), stdout=full, stderr=full)
    assert done.returncode == 1  # its sample is in the folder, and not where it was asked for
    assert (tmp_path / "full" / "checkpoints" / "12").is_dir()
