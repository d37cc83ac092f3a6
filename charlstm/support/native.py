"""Compiles the native core on the machine that it is to run on, keeps it in the cache, and loads it.

There is no build step at install. The first process that computes compiles the core with the system's C++ compiler, in
ten to twenty seconds, and tests it in a process of its own; others find it. Where that cannot be done, nothing is lost
but speed: models run their loops in JAX.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from charlstm.support.cache import own_folder

SOURCE = Path(__file__).parents[1] / "core" / "fast" / "native.cc"
_FLAGS = ("-std=gnu++20", "-O3", "-ffp-contract=fast", "-fno-tree-vectorize", "-fPIC")
_GCC_FLAGS = ("-fno-ivopts",)  # which makes of one pointer in the inner loop several
_WIDTHS = {"x86_64": "-march=native", "AMD64": "-march=native", "aarch64": "-mcpu=native", "arm64": "-mcpu=native"}
_TEST = "from charlstm.core.fast.native_check import check; from charlstm.support.native import load; check(load({!r}))"
_CELLS = ("Rnn", "Gru", "Lstm")  # whose code is compiled side by side
_SIGNATURES = {"packed_size": 3, "saved_floats": 1}  # numbers that each takes
_TARGETS = ("pack", "draw", "forward", "backward")
_LONGEST_SECONDS = 300
_SEAL_BYTES = 32  # the SHA-256 of a core, which stands after it in its file


class UnavailableError(Exception):
    """There is no native core here; the message says why, and what to do."""


_library: Any = None  # a ctypes.CDLL
_tried = False


def set_up(tell: Callable[[str], None] = lambda line: None) -> Any:
    """The core, which is found or compiled and loaded once in a process; None where there is none.

    `tell` gets a line where that takes time or fails. `CHARLSTM_NATIVE=off` does without it.
    """
    global _tried
    if _library is None and not _tried and os.environ.get("CHARLSTM_NATIVE") != "off":
        _tried = True
        try:
            load(str(find_core(tell)))
        except (UnavailableError, OSError) as error:
            tell(f"no native core, so loops run in JAX: {error}")
    return _library


def library() -> Any:
    """The core that was loaded, if any was."""
    return _library


def load(path: str) -> Any:
    """A compiled core, whose calls JAX knows from now on."""
    global _library
    import jax

    found = ctypes.CDLL(path)
    for cell in _CELLS:
        for name in (f"charlstm_{cell}_{target}" for target in _TARGETS):
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(found, name)), platform="cpu")
        for name, numbers in _SIGNATURES.items():
            function = getattr(found, f"charlstm_{cell}_{name}")
            function.argtypes, function.restype = [ctypes.c_int64] * numbers, ctypes.c_int64
    _library = found
    return found


def compile_core(compiler: str, output: Path, flags: tuple[str, ...] = ()) -> None:
    """Compiles the source with more `flags`; raises UnavailableError with what the compiler says."""
    import jax

    more = () if "clang" in _version_of(compiler) else _GCC_FLAGS
    flags = (*_FLAGS, *more, _WIDTHS.get(platform.machine(), "-march=native"), *flags)
    with tempfile.TemporaryDirectory(prefix="charlstm-") as folder, ThreadPoolExecutor() as pool:
        objects = [f"{folder}/{cell}.o" for cell in _CELLS]
        include = "-isystem", jax.ffi.include_dir()
        for done in [
            pool.submit(_run, compiler, *flags, f"-DCHARLSTM_CELL={cell}", *include, "-c", str(SOURCE), "-o", to)
            for cell, to in zip(_CELLS, objects, strict=True)
        ]:
            done.result()
        _run(compiler, *flags, "-shared", *objects, "-o", str(output))


def _run(compiler: str, *words: str) -> None:
    try:
        ran = subprocess.run(
            [compiler, *words], capture_output=True, text=True, errors="replace", timeout=_LONGEST_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{compiler} took longer than {_LONGEST_SECONDS} seconds") from error
    except OSError as error:
        raise UnavailableError(f"{compiler}: {error}") from error
    if ran.returncode:
        said = ran.stderr.splitlines()
        first = next((line for line in said if "error" in line), said[0] if said else "it failed")
        raise UnavailableError(f"{compiler}: {first}")


def find_compiler() -> str:
    """The C++ compiler that `CXX` names, or the system's."""
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if path := shutil.which(name):
            return path
    raise UnavailableError("there is no C++ compiler; install g++ or clang, or name one in CXX")


def find_core(tell: Callable[[str], None] = lambda line: None, *, again: bool = False) -> Path:
    """The compiled core for this source, processor, jaxlib and compiler, which is made if need be.

    One that could not be made is tried `again` if asked to. Raises UnavailableError where there is none.
    """
    if sys.platform != "linux" or platform.machine() not in _WIDTHS:
        raise UnavailableError(f"it is for Linux on x86-64 and ARM64, not {sys.platform} on {platform.machine()}")
    if (folder := own_folder("native")) is None:
        raise UnavailableError("there is no cache folder that is this user's alone")
    words = *_FLAGS, *_GCC_FLAGS, *_WIDTHS.values(), *_CELLS, _TEST, _processor(), version("jaxlib")
    here = _digest(SOURCE.read_bytes(), *(each.encode() for each in words))
    try:
        compiler = find_compiler()
    except UnavailableError:  # it may have been compiled where there is one
        if found := [each for each in sorted(folder.glob(f"{here}-*.so")) if _is_whole(each)]:
            return found[-1]
        raise
    core = folder / f"{here}-{_digest(compiler.encode(), _version_of(compiler).encode())}.so"
    failed = core.with_suffix(".failed")
    if _is_whole(core):
        return core
    if failed.exists() and not again:
        raise UnavailableError(f"{failed.read_text(errors='replace')}; `charlstm compile` tries again")
    tell("compiling the native core, once for this machine")
    try:
        _compile_and_test(compiler, core)
    except UnavailableError as error:
        failed.write_text(str(error))
        raise
    failed.unlink(missing_ok=True)
    return core


def _compile_and_test(compiler: str, core: Path) -> None:
    number, name = tempfile.mkstemp(".so", "new-", core.parent)
    os.close(number)
    try:
        compile_core(compiler, Path(name))
        # In a process of its own, which may end at an instruction that the processor does not have.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        environment = ours | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        words = [sys.executable, "-P", "-c", _TEST.format(name)]
        ran = subprocess.run(
            words, env=environment, capture_output=True, text=True, errors="replace", timeout=_LONGEST_SECONDS
        )
        if ran.returncode:
            said = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
            raise UnavailableError(f"the core that {compiler} made fails its test: {said}")
        _seal(Path(name))
        os.replace(name, core)
    except subprocess.TimeoutExpired as error:
        took = f"longer than {_LONGEST_SECONDS} seconds"
        raise UnavailableError(f"the test of the core that {compiler} made took {took}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _seal(core: Path) -> None:
    content = core.read_bytes()
    core.write_bytes(content + hashlib.sha256(content).digest())


def _is_whole(core: Path) -> bool:
    """Whether a core is as it was tested: the system ends a process that loads a part of one."""
    content = core.read_bytes() if core.exists() else b""
    return content[-_SEAL_BYTES:] == hashlib.sha256(content[:-_SEAL_BYTES]).digest()


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _version_of(compiler: str) -> str:
    try:
        ran = subprocess.run([compiler, "--version"], capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{compiler}: {error}") from error
    return (ran.stdout.splitlines() or [""])[0]


def _processor() -> str:
    """What the processor can do, as Linux says it."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
