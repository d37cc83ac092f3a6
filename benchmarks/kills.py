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
from charlstm.runs.metrics import read

STEPS = 60
_TIMES = {"start": 1, "compilation": 1, "step": STEPS - 2, "validation": 5, "save": 8, "sampling": 3}
"""How often, at least, a phase begins in a run that is left alone."""
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


def differences(left: Path, right: Path) -> list[str]:
    """What two runs do not share, but for their speed: the bits of each array, all metrics, and all samples.

    A run that was stopped by a signal may have one more checkpoint.
    """
    ours, theirs = _checkpoints(left), _checkpoints(right)
    samples = sorted({f"samples/{path.name}" for folder in (left, right) for path in (folder / "samples").glob("*")})
    same = {
        "the last checkpoint": max(ours, default=0) == max(theirs, default=0),
        **{f"checkpoint {step}": ours[step] == theirs[step] for step in sorted(ours.keys() & theirs)},
        "metrics.jsonl": _told(left) == _told(right),
        **{
            name: _content(left / name) == _content(right / name)
            for name in (*samples, "config.json", "vocabulary.json", "corpus.json")
        },
    }
    return [name for name, holds in same.items() if not holds]


def kill_runs(folder: Path, runs: int, jobs: int, seed: int, certain: bool = False) -> dict[str, Any]:
    """Kills each run once to three times, lets it end, and compares it.

    Args:
        folder: an empty one; what differs stays in it.
        runs: how many.
        jobs: that train at the same time.
        seed: of the moments.
        certain: each run's first kill is where a phase begins, whatever the machine's speed, and not some time after.

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
            delay = chance.uniform(0, _SECONDS.get(phase, 0.1)) if turn or not certain else None
            before = _unfinished(mine)
            end = shoot(_train(mine), Aim(phase, chance.randint(1, times), delay), environment(compiled))
            if end.hit:
                cached = end.phase == "compilation" and (turn > 0 or compiled == warm)
                hits.append({"cached compilation" if cached else end.phase})
                hits[-1] |= {"save"} if _unfinished(mine) - before else set()
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
    """Kills one comparison so many times, lets it end, and compares its table and all its runs.

    Raises:
        RuntimeError: it ended before the last kill.
    """
    chance, compiled = random.Random(seed), folder / "compiled"

    def compare(name: str) -> list[str]:
        return ["compare", str(experiment), "--run-dir", str(folder / name), *words]

    _finish(compare("alone"), compiled)
    whole, done = _lines(folder / "alone"), 0
    while done < kills:
        process = subprocess.Popen(
            command(*compare("killed")), env=environment(compiled), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # So far that all kills find something to kill, in lines and not in seconds: a machine's speed changes.
        before = _lines(folder / "killed")
        far = before + chance.uniform(0, 0.9) * (whole - before) / (kills - done)
        until = time.perf_counter() + chance.uniform(0, 7) if chance.random() < 0.25 else None  # some before they train
        while process.poll() is None and time.perf_counter() < (until or float("inf")):
            if until is None and _lines(folder / "killed") > far:
                until = time.perf_counter() + chance.uniform(0, 0.3)
            time.sleep(0.01)
        if process.poll() is not None:
            raise RuntimeError(f"the comparison ended with {process.returncode} after {done} kills")
        process.kill()
        process.wait()
        done += 1
        print(f"killed {done} of {kills} times, at line {_lines(folder / 'killed')} of {whole}", file=sys.stderr)
    _finish(compare("killed"), compiled)
    tables = [table(folder / name) for name in ("alone", "killed")]
    different = [] if tables[0] == tables[1] else ["results.json"]
    for config in sorted((folder / "alone").glob("*/seed-*/config.json")):
        run = config.parent.relative_to(folder / "alone")
        different += [f"{run}: {each}" for each in differences(folder / "alone" / run, folder / "killed" / run)]
    return {"kills": done, "models": len(tables[0]["models"]), "lines": whole, "different": different}


def _train(folder: Path) -> list[str]:
    return ["train", "--run-dir", str(folder), *WORDS]


def _finish(words: list[str], compiled: Path) -> None:
    done = subprocess.run(command(*words), env=environment(compiled), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"charlstm {' '.join(words)} failed: {done.stderr}")


def _checkpoints(run: Path) -> dict[int, Any]:
    """By step, the record of each: the hashes of its arrays, and the loss by which it may be the best."""
    records = run.glob("checkpoints/*/integrity/integrity.json")
    return {
        int(path.parents[1].name): json.loads(path.read_text()) for path in records if path.parents[1].name.isdigit()
    }


def _told(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "chars_per_second"} for row in read(folder)]


def _unfinished(run: Path) -> set[tuple[str, int]]:
    """Folders of saves whose files were not all written, each with its time."""
    return {(path.name, path.stat().st_mtime_ns) for path in (run / "checkpoints").glob("*tmp*")}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _lines(comparison: Path) -> int:
    """Of the metrics of all runs."""
    return sum(path.read_bytes().count(b"\n") for path in comparison.glob("*/seed-*/metrics.jsonl"))


def table(folder: Path) -> dict[str, Any]:
    """A comparison's results, but for its times and for its folder's name."""
    found = json.loads((folder / "results.json").read_text())
    found.pop("name")
    for model in found["models"]:
        model.pop("seconds")
        model.pop("chars_per_second")
    return found
