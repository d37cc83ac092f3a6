"""CONFIG or GRID of an experiment's file."""

import runpy
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from charlstm.config import Experiment, Grid, explain
from charlstm.support.errors import InputError, did_you_mean

Kind = TypeVar("Kind", Experiment, Grid)


def load_experiment(path: Path) -> Experiment:
    """CONFIG of an experiment file."""
    return _load(path, "CONFIG", Experiment, "GRID", "compare")


def load_grid(path: Path) -> Grid:
    """GRID of an experiment file."""
    return _load(path, "GRID", Grid, "CONFIG", "train")


def check_path(path: Path) -> None:
    """Raises InputError for a path that no file can have."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # whoever needs the file says so
    except (OSError, ValueError) as error:
        raise InputError(f"no file can be called {str(path)!r}: {error.args[-1]}") from None


def run_file(path: Path) -> dict[str, Any]:
    """Runs a Python file of the user's own, such as one that registers a cell, and gives the names that it defines."""
    check_path(path)
    if not path.is_file():
        near = sorted(each.name for each in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise InputError(f"there is no experiment file {path}{did_you_mean(path.name, near)}")
    try:
        return runpy.run_path(str(path))
    except (ValidationError, InputError) as error:
        what = explain(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{path}: {what}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {' '.join(str(error).split())}") from None


def _load(path: Path, name: str, kind: type[Kind], other: str, command: str) -> Kind:
    defined = run_file(path)
    if isinstance(value := defined.get(name), kind):
        return value
    hint = f"; it has a {other}, for `charlstm {command}`" if other in defined else ""
    raise InputError(f"{path} defines no {name} that is a charlstm.{kind.__name__}{hint}")
