"""macOS and Windows lack what Linux has: the package imports, trains, continues and samples without it."""

import subprocess
import sys
from pathlib import Path

import pytest

TAKEN_AWAY = """
import asyncio, os, signal, subprocess, sys  # the standard library's own need of them is this system's
for name in {modules}:
    sys.modules[name] = None  # `import name` raises ModuleNotFoundError
for name in ("sysconf", "sched_getaffinity"):
    delattr(os, name)
os.process_cpu_count = os.cpu_count  # which would ask for the affinity
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTSTP", "SIGCONT"):
    delattr(signal, name)
import ctypes
library = ctypes.CDLL
ctypes.CDLL = lambda name=None, *args, **more: library(name, *args, **more) if name else object()  # no mallopt
from charlstm.cli import run
small = ["--model.hidden-size", "8", "--data.batch-size", "4", "--data.seq-length", "8", "--sample.length", "5"]
train = ["train", "--run-dir", "run", "--data.corpus", "text.txt", *small]
assert run([*train, "--train.steps", "3"]) == 0
assert run([*train, "--train.steps", "5"]) == 0
assert run(["sample", "run", "--length", "10", "--prime", "a"]) == 0
assert run(["eval", "run"]) == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("modules", [(), ("fcntl", "resource", "termios", "pwd", "grp")], ids=["macos", "windows"])
def test_what_other_systems_lack_is_not_needed(tmp_path: Path, modules: tuple[str, ...]):
    (tmp_path / "text.txt").write_text("a text that is read again and again; " * 40)
    words = [sys.executable, "-c", TAKEN_AWAY.format(modules=modules)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ("is not locked" in done.stderr) == ("fcntl" in modules)
