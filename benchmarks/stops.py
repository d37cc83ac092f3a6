"""How long a training goes on after SIGTERM or SIGINT, as a machine that is taken away sends it."""

import json
import random
import shutil
import signal
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.aim import Aim, environment, shoot

_PHASES = {"compilation": 2.0, "step": 0.3, "validation": 2.0, "save": 0.3}
"""What the default run is at, and the seconds up to which a delay is drawn."""
_EVERY = 4
"""Steps between two validations and two checkpoints: the default run has them more rarely, and shapes are the same."""


def stop_runs(folder: Path, times: int, seed: int) -> dict[str, Any]:
    """Stops the default run so many times by each signal in each phase.

    Args:
        folder: an empty one.
        times: of each.
        seed: of the moments.

    Returns:
        Seconds from the signal to the end of the process, by what it was at, and what was wrong.
    """
    chance, compiled = random.Random(seed), folder / "compiled"
    seconds, wrong = dict[str, list[float]](), list[str]()
    for name, number, code in (("SIGTERM", signal.SIGTERM, 143), ("SIGINT", signal.SIGINT, 130)):
        for phase, delay in _PHASES.items():
            for turn in range(times):
                if phase == "compilation":  # which a cache of compiled programs would end at once
                    shutil.rmtree(compiled, ignore_errors=True)
                run = folder / f"{name}-{phase}-{turn}"
                occurrence = 1 if phase == "compilation" else chance.randint(1, 4)
                aim = Aim(phase, occurrence, chance.uniform(0, delay), number)
                end = shoot(_words(run), aim, environment(compiled))
                found = _complaint(run, code, end.code)
                wrong += [f"{run.name}: {found}"] if found else []
                seconds.setdefault(end.phase, []).append(end.seconds)
                print(f"{name} in {end.phase}: ended after {end.seconds:.2f} s", file=sys.stderr)
                shutil.rmtree(run)
    figures = {
        phase: {"stops": len(each), "median": median(each), "longest": max(each)} for phase, each in seconds.items()
    }
    return {"times": times, "seconds": figures, "wrong": wrong}


def _words(folder: Path) -> list[str]:
    every = [word for what in ("validate", "checkpoint") for word in (f"--train.{what}-every", str(_EVERY))]
    return ["train", "--run-dir", str(folder), *every]


def _complaint(folder: Path, wanted: int, code: int) -> str | None:
    """What is wrong with a run that was stopped: its exit code, or a step that is in no checkpoint."""
    if code != wanted:
        return f"exit code {code}, not {wanted}"
    path = folder / "metrics.jsonl"
    last = max((json.loads(line)["step"] for line in path.read_text().splitlines()), default=0) if path.exists() else 0
    saved = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
    return None if max(saved, default=0) == last > 0 else f"checkpoints of {sorted(saved)}, and {last} steps done"
