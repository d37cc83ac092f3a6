"""What is compiled once is found again by the next process, in the platform's cache folder or where the user says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from charlstm.support import process
from charlstm.support.cache import cache_folder, own_folder
from charlstm.support.errors import InputError

SCRIPT = """
from charlstm.support.process import prepare
prepare()
import jax, jax.monitoring
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones((8, 8)))
print("/jax/compilation_cache/cache_hits" in found)
"""


def second_process_hits(**variables: str) -> list[bool]:
    """Whether each of two processes, one after the other, found a compiled program."""
    ours = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment = ours | {"CHARLSTM_NATIVE": "off"}
    command = [sys.executable, "-c", SCRIPT]
    found = []
    for _ in range(2):
        done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        found.append(done.stdout == "True\n")
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME moves the cache folder on Linux only")
def test_the_platforms_cache_folder_is_used(tmp_path: Path) -> None:
    assert second_process_hits(XDG_CACHE_HOME=str(tmp_path)) == [False, True]
    assert list((tmp_path / "charlstm" / "compiled").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME moves the cache folder on Linux only")
def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_said(tmp_path: Path) -> None:
    (tmp_path / "charlstm").write_text("in the way")
    assert second_process_hits(XDG_CACHE_HOME=str(tmp_path)) == [False, False]


# Compiled programs are run, so they are the user's alone.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the cache folder is to be; the process's umask makes folders that all may write to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = os.umask(0)
    yield tmp_path / "charlstm" / "compiled"
    os.umask(before)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME moves the cache folder on Linux only")


@on_linux
def test_the_cache_is_its_user_s_alone(cache: Path) -> None:
    assert own_folder("compiled") == cache
    assert cache.stat().st_mode & 0o777 == 0o700
    (cache / "ours-cache").write_bytes(b"program")
    cache.chmod(0o755)
    assert own_folder("compiled") == cache
    assert cache.stat().st_mode & 0o777 == 0o700 and (cache / "ours-cache").exists()
    cache.chmod(0o777)  # a program may be someone else's
    assert own_folder("compiled") == cache
    assert cache.stat().st_mode & 0o777 == 0o700 and not list(cache.iterdir())


@on_linux
def test_a_cache_of_another_user_s_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_folder("compiled") == cache
    monkeypatch.setattr(os, "getuid", lambda: cache.stat().st_uid + 1)
    assert own_folder("compiled") is None
    monkeypatch.undo()
    cache.rename(cache.with_name("elsewhere"))
    cache.symlink_to("elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    assert own_folder("compiled") is None


@on_linux
def test_what_a_full_disk_left_in_the_cache_is_removed(cache: Path) -> None:
    cache.mkdir(parents=True, mode=0o700)
    (cache / "whole-cache").write_bytes(b"program")
    (cache / "empty-cache").touch()
    assert own_folder("compiled") == cache
    assert [path.name for path in cache.iterdir()] == ["whole-cache"]
    (cache / "gone-cache").symlink_to("nowhere")  # as a file that another process removes between two looks
    assert own_folder("compiled") == cache


@pytest.mark.parametrize("place", ["~/.cache/charlstm", "charlstm"])
def test_a_cache_never_lies_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Older platformdirs gives this for a user without a home; newer ones raise."""

    def no_home(_: str) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.chdir(tmp_path)
    for found in (lambda _: place, no_home):
        monkeypatch.setattr("pooch.os_cache", found)
        assert cache_folder() is None
        assert own_folder("compiled") is None
    assert not list(tmp_path.iterdir())


REFUSED = {
    "JAX_PLATFORMS": "nonsense",
    "XLA_FLAGS": "--nonsense --xla_cpu_prefer_vector_width=256",
    "JAX_NUM_CPU_DEVICES": "abc",
    "JAX_ENABLE_X64": "maybe",
    "JAX_DEFAULT_MATMUL_PRECISION": "wrong",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_an_environment_that_jax_refuses_is_one_line(tmp_path: Path, name: str) -> None:
    """XLA would end the process, and JAX print a traceback."""
    words = ["train", "--data.corpus", "recall_32", "--run-dir", str(tmp_path / "run")]
    environment = os.environ | {name: REFUSED[name]}
    command = [sys.executable, "-m", "charlstm", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("charlstm: ") and REFUSED[name].split()[0] in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_driver_that_does_not_start_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("Unable to initialize backend 'cuda': no CUDA-capable device\nis detected")

    monkeypatch.setattr("jax.devices", fail)
    with pytest.raises(InputError, match="JAX cannot start: RuntimeError: Unable to initialize backend 'cuda'"):
        process.prepare()
