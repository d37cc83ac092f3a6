"""config.json: the config of a run, and which versions wrote it."""

import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from charlstm.config import CELLS, Experiment
from charlstm.support.errors import InputError
from charlstm.support.files import one_line, read_json, write_json
from charlstm.support.schema import from_dict, to_dict

_WRITTEN_BY = "written_by"
"""The key beside the config's own: versions by package, and `program` if a program of its own made the run."""


def write_config(path: Path, config: Experiment, program: bool) -> None:
    """Writes a config and what wrote it."""
    versions = _versions() | ({"program": True} if program else {})
    write_json(path, to_dict(config) | {_WRITTEN_BY: versions})


def read_config(path: Path) -> tuple[Experiment, bool]:
    """The config in a file, and whether a program of its own made the run.

    Raises:
        InputError: the file is malformed, a newer charlstm wrote it, or no one has registered its cell.
    """
    values = read_json(path)
    written_by = values.pop(_WRITTEN_BY, {})
    try:
        if not isinstance(written_by, dict):
            raise InputError(f"{_WRITTEN_BY} must be an object")
        config = from_dict(values, Experiment)
    except (ValueError, RecursionError) as error:
        theirs = str(written_by.get("charlstm", "")) if isinstance(written_by, dict) else ""
        ours, why = str(_versions().get("charlstm", "")), one_line(error)
        if _release(theirs) > _release(ours):
            newer = f"{path} was written by charlstm {one_line(theirs, 40)}, newer than this one ({ours})"
            raise InputError(f"{newer}; upgrade charlstm to read it: {why}") from None
        raise InputError(f"{path} is malformed: {why}; put back the run's own file") from None
    if (cell := config.model.cell) not in CELLS:
        call = f"charlstm.register_cell({one_line(repr(cell), 80)}, ...)"
        raise InputError(f"the cell of {path} is not registered; import the file that calls {call} first")
    return config, written_by.get("program") is True


def _versions() -> dict[str, Any]:
    found = dict[str, Any]()
    for package in ("charlstm", "jax", "flax", "orbax-checkpoint"):
        with suppress(PackageNotFoundError):  # charlstm, run from a source tree
            found[package] = version(package)
    return found


def _release(text: str) -> list[int]:
    """The numbers of a version such as 1.2.3, without what comes after them."""
    match = re.match(r"\d{1,9}(\.\d{1,9}){0,3}", text)
    return [int(part) for part in match[0].split(".")] if match else []
