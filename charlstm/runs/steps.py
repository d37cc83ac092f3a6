"""The numbered folders in which checkpoints lie: which there are, whose each is, and which is the best."""

import math
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from charlstm.runs import arrays
from charlstm.runs.arrays import BrokenError, MisplacedError
from charlstm.support.files import one_line, remove_tree

_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of what Orbax writes, and of what is being removed
_REPLACEMENT = ".replacement"  # after the step, of what is whole and not in its place yet


def numbered(folder: Path, suffix: str = "") -> list[int]:
    """The steps that have a folder, ascending; of those whose name ends so after the step."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # a link leads to what is not ours
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    names = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return sorted(int(name) for name in names if name.isdecimal() and len(name) < 20 and str(int(name)) == name)


def record_of(folder: Path, step: int, run: str) -> dict[str, Any]:
    """The record of a checkpoint; raises BrokenError, or MisplacedError if it is of another step, or not of `run`."""
    record = arrays.read_record(folder / str(step))
    if record.get("step") != step:
        raise MisplacedError(f"it is that of step {one_line(record.get('step'), 20)}")
    if run and record.get("run", run) != run:
        raise MisplacedError("it is another run's")
    return record


def best_of(folder: Path, steps: Iterable[int], run: str) -> int | None:
    """The step with the lowest validation loss, the first of equals; None if no checkpoint has one."""
    scored = list[tuple[float, int]]()
    for step in steps:
        with suppress(BrokenError):
            loss = record_of(folder, step, run).get("validation_loss")
            if isinstance(loss, float) and math.isfinite(loss):
                scored.append((loss, step))
    return min(scored)[1] if scored else None


def latest_of(folder: Path, steps: Iterable[int], run: str) -> int | None:
    """The newest step of `run`; a broken one counts until it is read. None where there is none."""
    for step in sorted(steps, reverse=True):
        try:
            record_of(folder, step, run)
        except MisplacedError:
            continue
        except BrokenError:
            pass
        return step
    return None


def remove(folder: Path, steps: set[int]) -> None:
    """Removes checkpoints; each is renamed first, so that a kill leaves no half of one."""
    for step in steps & {*numbered(folder)}:
        shutil.rmtree((folder / str(step)).rename(folder / f"{step}{_UNFINISHED}"))


def place_for(folder: Path, step: int) -> Path:
    """Where a checkpoint is written: beside an older one of its step, which stays until `sweep` replaces it."""
    return folder / f"{step}{_REPLACEMENT if step in numbered(folder) else ''}"


def sweep(folder: Path) -> None:
    """Puts what replaces a checkpoint in its place, and removes what a killed or failed save left.

    Only to be called while no save is in progress. What a kill in the middle leaves is left to the next call.
    """
    for step in numbered(folder, _REPLACEMENT):
        if step in numbered(folder):
            (folder / str(step)).rename(folder / f"{step}{_UNFINISHED}")
        (folder / f"{step}{_REPLACEMENT}").rename(folder / str(step))
    for path in [path for path in folder.iterdir() if _UNFINISHED in path.name]:
        path.unlink() if path.is_symlink() or not path.is_dir() else remove_tree(path)
