"""What a process may use of this machine, and how JAX is set up for a program of charlstm's own.

A library that others import leaves their settings alone.
"""

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from charlstm.support import native
from charlstm.support.cache import own_folder
from charlstm.support.errors import InputError

_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CACHE_AT_LEAST_SECONDS = 0.1
"""Programs that compile faster than this are compiled again each time."""
MOST_CPU_DEVICES = 4
"""More cores help inside of each product, where rows would get too few; two were measured, not four."""
_KNOWN_FLAG = r"--xla_(cpu_prefer_vector_width|force_host_platform_device_count|backend_optimization_level)=\d{1,4}"

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h of glibc


def memory() -> int:
    """Bytes of memory that this machine has, or this container if that has less."""
    known = hasattr(os, "sysconf")  # Windows says nothing of it
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else sys.maxsize]
    for path in _CONTAINER:
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            found.append(int(Path(path).read_text()))
    return min(found)


def cores() -> int:
    """Cores that this process may use; fewer than the machine has where it is confined to some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(start: bool = True, tell: Callable[[str], None] = lambda line: None) -> None:
    """As `runs.models.prepare`, which makes models take the core too."""
    _keep_freed_memory()
    _check_xla_flags()
    # XLA's C++ side prints what it raises anyway, and of each entry that it cannot use on this processor.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        use_wide_vectors()
        _make_devices_of_cores()
        import jax

        jax.config.update("jax_persistent_cache_min_compile_time_secs", _CACHE_AT_LEAST_SECONDS)
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := own_folder("compiled")) is not None:
            jax.config.update("jax_compilation_cache_dir", str(folder))
        if start and jax.devices()[0].platform == "cpu":
            native.set_up(tell)
    except Exception as error:  # of any kind, JAX's own assertions among them
        asked = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("JAX_")]
        why = f"JAX cannot start: {type(error).__name__}: {error}".removesuffix(": ")
        what = f"correct or unset {', '.join(asked)}" if asked else "JAX_PLATFORMS=cpu does without a GPU"
        raise InputError(f"{why}; {what}") from error


def _check_xla_flags() -> None:
    """Asks XLA in a process of its own about flags: one that it does not know ends the process that it is in."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    if all(re.fullmatch(_KNOWN_FLAG, each) for each in flags):
        return
    code = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    asked = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, errors="replace")
    wrong = [line.partition("] ")[2] for line in asked.stderr.splitlines() if re.match(r"[EF]\d.*flags.*\] ", line)]
    if asked.returncode and wrong:
        raise InputError(f"XLA_FLAGS is {' '.join(flags)!r}: {wrong[0]}; correct it, or unset it")


def _keep_freed_memory() -> None:
    """On a CPU, XLA frees its temporaries after each step, and glibc gives large blocks back to the system at once.

    The next step then waits for the same pages to be zeroed again, for up to a third of its time.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**26), (_M_ARENA_MAX, 1)):
        libc.mallopt(option, value)


def use_wide_vectors() -> None:
    """Where a CPU has AVX-512, XLA would use half of it: the gates' sigmoids then take twice the time."""
    from jax.version import __version_info__

    flag, flags = "--xla_cpu_prefer_vector_width", os.environ.get("XLA_FLAGS", "")
    known = (0, 10) <= __version_info__[:2] <= (0, 12)  # an XLA that does not know a flag ends the process
    if known and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=512".strip()


def _make_devices_of_cores() -> None:
    """On a CPU, lets each core have rows of the batch and a time loop of its own.

    Cores that share a loop wait for each other at each of its short products; as devices they meet once in a step.
    """
    import jax

    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not asked and "JAX_NUM_CPU_DEVICES" not in os.environ:
        with suppress(RuntimeError):  # a process that has computed already keeps the devices that it has
            jax.config.update("jax_num_cpu_devices", min(cores(), MOST_CPU_DEVICES))
