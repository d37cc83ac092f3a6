"""What is compiled once is found again by the next process, in the platform's cache folder or where the user says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
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
