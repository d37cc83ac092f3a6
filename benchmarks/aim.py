"""A signal to a training process while it does something in particular, and what became of it."""

import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from benchmarks.victim import PHASES

ROOT = Path(__file__).resolve().parents[1]
_NAMES = {letter: name for name, letter in PHASES.items()}


@dataclass(frozen=True)
class Aim:
    """When to send a signal: so many seconds after a phase has begun for the n-th time."""

    phase: str
    occurrence: int
    delay: float | None
    """None for a process that kills itself there."""
    number: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class End:
    """How a process ended."""

    hit: bool
    """Whether it was alive when the signal was sent, or killed itself."""
    phase: str
    """What it was at."""
    code: int
    """Of its exit; negative for the number of the signal that it died of."""
    seconds: float
    """From the signal to its end."""
    said: str
    """On standard error."""


def command(*words: str) -> list[str]:
    """The command line of charlstm in this Python."""
    return [sys.executable, "-m", "charlstm", *words]


def environment(compiled: Path) -> dict[str, str]:
    """For a process of charlstm that keeps its compiled programs in a folder of its own."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compiled), "PYTHONPATH": paths}


def shoot(words: Sequence[str], aim: Aim, surroundings: Mapping[str, str], patience: float = 120) -> End:
    """Run `charlstm WORDS`, send the signal, and wait for the end.

    Raises:
        TimeoutError: the process did not come to the phase, or did not end, within `patience` seconds.
    """
    death = f"{aim.phase}:{aim.occurrence}" if aim.delay is None else ""
    reader, writer = os.pipe()
    with TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.victim", str(writer), death, *words],
            env=dict(surroundings),
            pass_fds=[writer],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        os.close(writer)
        try:
            last, ended = _wait_for(aim, reader, patience)
            sent = time.perf_counter()
            if hit := not ended and process.poll() is None:
                process.send_signal(aim.number)
            code = process.wait(patience)
            seconds = time.perf_counter() - sent
            for letters in iter(lambda: os.read(reader, 1 << 16), b""):  # what it wrote before it died
                if hit and aim.number is signal.SIGKILL:
                    last = letters[-1:]
        except (TimeoutError, subprocess.TimeoutExpired):
            raise TimeoutError(f"nothing for {patience:g} s at {aim}") from None
        finally:
            process.kill()
            process.wait()
            os.close(reader)
        log.seek(0)
        said = log.read().decode(errors="replace")
    return End(hit or code == -signal.SIGKILL, _NAMES.get(last, "start"), code, seconds, said)


def _wait_for(aim: Aim, reader: int, patience: float) -> tuple[bytes, bool]:
    """Returns when it is time, or the process ends: the last letter that was read, and whether it ended."""
    left, letters, wanted = aim.occurrence if aim.delay is not None else math.inf, b"", PHASES[aim.phase]
    while left > 0:
        if not select.select([reader], [], [], patience)[0]:
            raise TimeoutError
        if not (new := os.read(reader, 1 << 16)):
            return letters[-1:], True
        left, letters = left - new.count(wanted), new
    until = time.perf_counter() + (aim.delay or 0)
    while (wait := until - time.perf_counter()) > 0 and select.select([reader], [], [], wait)[0]:
        if not (new := os.read(reader, 1 << 16)):
            return letters[-1:], True
        letters = new
    return letters[-1:], False
