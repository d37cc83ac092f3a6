"""Runs of two processes, one of which is killed at a random moment: they go on, and are compared to one left alone."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from benchmarks.aim import command, environment
from benchmarks.kills import WORDS, differences

_WITHIN = 60.0
"""Seconds in which all end after one was lost."""

Act = Callable[[list[subprocess.Popen[bytes]]], None]


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Negative for the number of the signal that it died of."""
    said: str
    """On standard error."""


def start_together(
    folder: Path,
    words: Sequence[Sequence[str]],
    surroundings: Mapping[str, str],
    act: Act = lambda processes: None,
    patience: float = 300,
) -> list[Ended]:
    """Runs a `charlstm` of these words for each process, in the folders host-0, host-1, ..., and waits for their end.

    Args:
        folder: where those folders are made.
        words: of each process; where process 0 listens, and which this is, is added.
        surroundings: variables.
        act: is called with the processes once they run.
        patience: seconds from then on.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with ExitStack() as stack:
        logs, processes = [stack.enter_context(TemporaryFile()) for _ in words], []
        for number, (each, log) in enumerate(zip(words, logs, strict=True)):
            (home := folder / f"host-{number}").mkdir(parents=True, exist_ok=True)
            place = ["--coordinator-address", f"127.0.0.1:{port}", "--num-processes", str(len(words))]
            line = command(*each, *place, "--process-id", str(number))
            out = subprocess.DEVNULL
            processes.append(subprocess.Popen(line, cwd=home, env=dict(surroundings), stdout=out, stderr=log))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        act(processes)
        until = time.monotonic() + patience
        codes = [process.wait(max(until - time.monotonic(), 0.1)) for process in processes]
        for log in logs:
            log.seek(0)
        said = [log.read().decode(errors="replace") for log in logs]
    return [Ended(code, each) for code, each in zip(codes, said, strict=True)]


def two_devices(compiled: Path) -> dict[str, str]:
    """Variables for processes with two CPU devices each."""
    return environment(compiled) | {"JAX_NUM_CPU_DEVICES": "2"}


def kill_hosts(folder: Path, runs: int, seed: int) -> dict[str, Any]:
    """Kills a random one of two processes once or twice in each run, lets the run end, and compares it.

    Args:
        folder: an empty one; what differs stays in it.
        runs: how many.
        seed: of the moments.

    Returns:
        How many were killed, how soon the other one ended, and what differs or was not as it should be.
    """
    surroundings, killed, longest = two_devices(folder / "compiled"), [0, 0], 0.0
    different, wrong = dict[str, list[str]](), list[str]()
    for name in ("warm-up", "alone"):  # the first one compiles
        begun = time.monotonic()
        ends = _train(folder / name, surroundings)
        whole = time.monotonic() - begun
        if any(each.code for each in ends):
            raise RuntimeError("".join(each.said for each in ends))
    for number in range(runs):
        chance, mine = random.Random(f"{seed}-{number}"), folder / f"run-{number}"
        for _ in range(chance.randint(1, 2)):
            kill = _Kill(mine, chance.randrange(2), chance.uniform(0, whole / 2))
            ends = _train(mine, surroundings, kill)
            if (
                kill.seconds is not None and ends[1 - kill.victim].code
            ):  # 0 where training was over, and both had parted
                killed[kill.victim] += 1
                longest = max(longest, kill.seconds)
                wrong += [f"{mine.name}: {found}"] if (found := kill.complaint(ends)) else []
        ends = _train(mine, surroundings)
        found = differences(folder / "alone" / "host-0" / "run", mine / "host-0" / "run")
        if found or any(each.code for each in ends) or os.listdir(mine / "host-1"):
            different[mine.name] = found or [each.said[-500:] for each in ends]
        else:
            shutil.rmtree(mine)
        told = f"killed process 0 {killed[0]} times and process 1 {killed[1]} times"
        print(f"run {number + 1} of {runs}: {told}; different: {len(different)}", file=sys.stderr)
    longest = round(longest, 1)
    return {"runs": runs, "killed": killed, "longest": longest, "different": different, "wrong": wrong}


def _train(run: Path, surroundings: Mapping[str, str], act: Act = lambda processes: None) -> list[Ended]:
    return start_together(run, [["train", "--run-dir", "run", *WORDS]] * 2, surroundings, act)


class _Kill:
    """Kills one of two processes so many seconds after they have met, if neither has ended by then."""

    def __init__(self, run: Path, victim: int, delay: float) -> None:
        self.victim, self._delay, self._lock = victim, delay, run / "host-0" / "run" / ".lock"
        self.seconds: float | None = None
        """Until the other one ended; None where there was no kill."""
        self._lock.unlink(missing_ok=True)  # a killed one's; process 0 locks the run's folder once both have met

    def __call__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        while not self._lock.exists() and processes[0].poll() is None:
            time.sleep(0.01)
        time.sleep(self._delay)
        if all(each.poll() is None for each in processes):
            processes[self.victim].kill()
            sent = time.monotonic()
            processes[1 - self.victim].wait(5 * _WITHIN)
            self.seconds = time.monotonic() - sent

    def complaint(self, ends: Sequence[Ended]) -> str | None:
        """What is wrong with how the two ended."""
        victim, other = ends[self.victim], ends[1 - self.victim]
        lines = [each for each in other.said.splitlines() if each.startswith(f"charlstm: process {self.victim} (")]
        good = victim.code == -signal.SIGKILL and other.code == 1 and len(lines) == 1 and "was lost" in lines[0]
        if good and "***" not in other.said and (self.seconds or 0) <= _WITHIN:
            return None
        return f"codes {victim.code} and {other.code} after {self.seconds:.1f} s: {other.said[-500:]}"
