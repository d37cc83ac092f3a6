"""Laws of lock.py: one process trains in a folder, and a system without locks stops nobody."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from charlstm.support.errors import InputError
from charlstm.support.lock import LOCK, only_writer

fcntl = pytest.importorskip("fcntl")


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    lines = list[str]()
    with only_writer(tmp_path, lines.append):
        with pytest.raises(InputError, match="another process trains in .*; wait for it"), only_writer(tmp_path):
            pytest.fail("it is locked")
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    with only_writer(tmp_path), only_writer(tmp_path.parent):  # as a comparison holds its own folder and a run's
        pass
    assert not (tmp_path / LOCK).exists()
    assert lines == []


def test_a_killed_process_locks_nothing(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from charlstm.support.lock import only_writer
with only_writer(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    root = str(Path(__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False).returncode == -9
    assert (tmp_path / LOCK).exists()
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_system_without_locks_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    lines = list[str]()
    with only_writer(tmp_path, lines.append), only_writer(tmp_path):
        (line,) = lines
    assert line.startswith(f"{tmp_path} is not locked ({os.strerror(code)})") and line.isprintable()


def test_a_system_without_fcntl_is_told_in_one_line(tmp_path: Path) -> None:
    """As on a Unix that lacks it; its locks would be files that outlive a killed process."""
    code = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
from charlstm.support.lock import only_writer
with only_writer(Path(sys.argv[1]), print), only_writer(Path(sys.argv[1])):
    pass
"""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)], cwd=root, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"{tmp_path} is not locked") and done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "made")
    with pytest.raises(InputError, match="is not a file; move it away"), only_writer(tmp_path / "run"):
        pass
    assert not (tmp_path / "made").exists()
