"""Runs and comparisons that are killed at random moments, continued, and compared with one that was left alone."""

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.aim import Aim, command, environment, shoot
from charlstm.metrics import read

STEPS = 60
_TIMES = {"start": 1, "compilation": 1, "step": STEPS - 2, "validation": 5, "save": 8, "sampling": 3}
"""How often a phase begins in a run that is left alone."""
_SECONDS = {"start": 2.0, "restoring": 0.2, "compilation": 1.5, "step": 0.02, "validation": 0.1, "save": 0.15}
"""A delay is drawn from 0 up to this; a save's files are written while the run goes on."""
AIMED = ("compilation", "step", "save", "validation")
WORDS = [
    *("--data.corpus", "recall_64", "--data.batch-size", "20", "--data.seq-length", "20"),
    *("--data.validation-fraction", "0.01", "--model.hidden-size", "64", "--model.num-layers", "2"),
    *("--model.dropout", "0.5", "--sample.length", "50", "--train.tensorboard", "False"),
    *("--train.steps", str(STEPS), "--train.validate-every", "12", "--train.checkpoint-every", "7"),
    *("--train.sample-every", "20"),
]
"""The book's run with its sizes divided by five and eight, on a text that is generated."""


def differences(left: Path, right: Path, step: int = STEPS) -> list[str]:
    """What two runs do not share, but for their speed: the bits of each array, all metrics, and all samples."""
    samples = sorted({f"samples/{path.name}" for folder in (left, right) for path in (folder / "samples").glob("*")})
    same = {
        "the last checkpoint": _arrays(left, step) == _arrays(right, step),
        "metrics.jsonl": _told(left) == _told(right),
        **{
            name: _content(left / name) == _content(right / name)
            for name in (*samples, "config.json", "vocabulary.json", "corpus.json")
        },
    }
    return [name for name, holds in same.items() if not holds]


def kill_runs(folder: Path, runs: int, jobs: int, seed: int) -> dict[str, Any]:
    """Kills each run once to three times, lets it end, and compares it.

    Args:
        folder: an empty one; what differs stays in it.
        runs: how many.
        jobs: that train at the same time.
        seed: of the moments.

    Returns:
        How often what was killed; a kill in a validation while a save's files were unfinished counts as both.
    """
    alone, warm = folder / "alone", folder / "compiled"
    _finish(_train(alone), warm)

    def one(number: int) -> tuple[list[set[str]], list[str]]:
        chance, mine = random.Random(f"{seed}-{number}"), folder / f"run-{number}"
        first = AIMED[number % len(AIMED)]
        # A program is compiled in earnest only where no cache has it.
        compiled = folder / f"compiled-{number}" if first == "compilation" else warm
        phases = [first, *chance.choices([*_TIMES, "restoring"], k=chance.randrange(3))]
        hits = list[set[str]]()
        for turn, phase in enumerate(phases):
            times = _TIMES.get(phase, 1) if turn == 0 else 1 + _TIMES.get(phase, 1) // 4
            aim = Aim(phase, chance.randint(1, times), chance.uniform(0, _SECONDS.get(phase, 0.1)))
            end = shoot(_train(mine), aim, environment(compiled))
            if end.hit:
                unfinished = any("tmp" in path.name for path in (mine / "checkpoints").glob("*"))
                hits.append({end.phase} | ({"save"} if unfinished else set()))
            elif end.code:
                raise RuntimeError(f"{mine}: {end.said}")
        _finish(_train(mine), compiled)
        if not (found := differences(alone, mine)):
            shutil.rmtree(mine)
        if compiled != warm:
            shutil.rmtree(compiled)
        return hits, found

    deaths, kills, different = Counter[str](), 0, dict[str, list[str]]()
    with ThreadPoolExecutor(jobs) as pool:
        for number, (hits, found) in enumerate(pool.map(one, range(runs))):
            kills += len(hits)
            deaths.update(phase for each in hits for phase in each)
            if found:
                different[f"run-{number}"] = found
            told = ", ".join(f"{phase} {count}" for phase, count in sorted(deaths.items()))
            print(f"run {number + 1} of {runs}: killed in {told}; different: {len(different)}", file=sys.stderr)
    return {"runs": runs, "kills": kills, "killed in": dict(sorted(deaths.items())), "different": different}


def kill_grid(folder: Path, experiment: Path, words: list[str], kills: int, seed: int) -> dict[str, Any]:
    """Kills one comparison so many times, lets it end, and compares its table and all its runs."""
    chance, compiled = random.Random(seed), folder / "compiled"

    def compare(name: str) -> list[str]:
        return ["compare", str(experiment), "--run-dir", str(folder / name), *words]

    began = time.perf_counter()
    _finish(compare("alone"), compiled)
    whole = time.perf_counter() - began
    done = 0
    while done < kills:
        # Half of the time that would end it before the last kill, above what a process needs to begin.
        process = subprocess.Popen(
            command(*compare("killed")), env=environment(compiled), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            code = process.wait(chance.uniform(1, 7 + whole / kills))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done += 1
            print(f"killed {done} of {kills} times", file=sys.stderr)
        else:
            if code:
                raise RuntimeError(f"the comparison failed with {code}")
            break
    _finish(compare("killed"), compiled)
    tables = [_table(folder / name) for name in ("alone", "killed")]
    different = [] if tables[0] == tables[1] else ["results.json"]
    for config in sorted((folder / "alone").glob("*/seed-*/config.json")):
        run = config.parent.relative_to(folder / "alone")
        last = max(int(path.name) for path in (folder / "alone" / run / "checkpoints").iterdir() if path.name.isdigit())
        different += [f"{run}: {each}" for each in differences(folder / "alone" / run, folder / "killed" / run, last)]
    return {"kills": done, "models": len(tables[0]["models"]), "seconds left alone": whole, "different": different}


def _train(folder: Path) -> list[str]:
    return ["train", "--run-dir", str(folder), *WORDS]


def _finish(words: list[str], compiled: Path) -> None:
    done = subprocess.run(command(*words), env=environment(compiled), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"charlstm {' '.join(words)} failed: {done.stderr}")


def _arrays(folder: Path, step: int) -> Any:
    return json.loads((folder / "checkpoints" / str(step) / "integrity" / "integrity.json").read_text())["leaves"]


def _told(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "chars_per_second"} for row in read(folder)]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _table(folder: Path) -> dict[str, Any]:
    """A comparison's results, but for its times and for its folder's name."""
    found = json.loads((folder / "results.json").read_text())
    found.pop("name")
    for model in found["models"]:
        model.pop("seconds")
        model.pop("chars_per_second")
    return found
