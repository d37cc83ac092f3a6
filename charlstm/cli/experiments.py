"""What an EXPERIMENT is: the folder of a run or of a comparison, its JSON file, or Python that binds CONFIG or GRID.

Nothing else is ever run: a text that stands where an experiment belongs is refused as it lies there.
"""

import runpy
import shlex
import symtable
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from charlstm.config import CELLS, Experiment, Grid, explain
from charlstm.support.errors import InputError, did_you_mean
from charlstm.support.files import one_line, user_path

Kind = TypeVar("Kind", Experiment, Grid)


def load_experiment(path: Path) -> Experiment:
    """The config of a run's folder, of a config.json, or of an experiment's file."""
    from charlstm.runs.config_file import read_config  # with NumPy, for which --help need not wait
    from charlstm.runs.folder import Run

    if path.is_dir():
        return Run.open(path).config
    if path.suffix == ".json":
        found = read_config(path)
        if found.program:
            what = "with an optimizer, a loss or data of its own"
            raise InputError(f"a program trained the run of {path} {what}; run that program again")
        in_jax = found.backend in ("fast", "") and CELLS.get(found.config.model.cell) is None
        if in_jax and found.config.model.recurrence == "auto":  # which may mean another by now
            return replace(found.config, model=replace(found.config.model, recurrence="fast"))
        return found.config
    return _load(path, "CONFIG", Experiment, "GRID", "compare")


def load_grid(path: Path) -> Grid:
    """The grid of a comparison's folder, of a grid.json, or of an experiment's file."""
    from charlstm.runs.folder import GRID, read_as

    if path.is_dir():
        if not (path / GRID).exists():
            raise InputError(f"{path} has no {GRID}, so it is not a comparison; give the folder of one, or a file")
        return read_as(Grid, path / GRID)
    return read_as(Grid, path) if path.suffix == ".json" else _load(path, "GRID", Grid, "CONFIG", "train")


def run_file(path: Path) -> dict[str, Any]:
    """Runs a Python file of the user's own, such as one that registers a cell, and gives the names that it defines."""
    path = _existing(path)
    try:
        return runpy.run_path(str(path))
    except (ValidationError, InputError) as error:
        what = explain(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{path}: {what}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {' '.join(str(error).split())}") from None


def _existing(path: Path) -> Path:
    path = user_path(path)
    if not path.is_file():
        near = sorted(each.name for each in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise InputError(f"there is no experiment file {path}{did_you_mean(path.name, near)}")
    return path


def _load(path: Path, name: str, kind: type[Kind], other: str, command: str) -> Kind:
    bound = _bound(_existing(path), name)
    hint = f"; it has a {other}, for `charlstm {command}`" if other in bound else ""
    if name in bound and isinstance(value := run_file(path).get(name), kind):
        return value
    raise InputError(f"{path} defines no {name} that is a charlstm.{kind.__name__}{hint}")


def _bound(path: Path, name: str) -> set[str]:
    """Those of CONFIG and GRID that a Python file binds, from its source; nothing in it is run."""
    if path.suffix != ".py":
        text = f"charlstm train --data.corpus {shlex.quote(str(path))}"
        what = f"{path} is no experiment, which is Python that defines {name}, a folder or its JSON file"
        raise InputError(f"{what}; to train on a text: {text}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what the source of a stranger could do better
            source: Any = path.read_bytes()  # in the encoding that it names
            found = symtable.symtable(source, str(path), "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path} is not Python: {type(error).__name__}: {one_line(error)}") from None
    symbols = [each for each in found.get_symbols() if each.is_assigned() or each.is_imported()]
    return {"CONFIG", "GRID"} & {each.get_name() for each in symbols}
