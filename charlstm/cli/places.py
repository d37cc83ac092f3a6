"""The folder of a run or of a comparison that is given none."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

from charlstm.config import DataConfig, Grid
from charlstm.data.dataset import Fingerprint
from charlstm.data.text_file import COMPRESSED
from charlstm.runs.folder import CONFIG, CORPUS, GRID, Run, read_as
from charlstm.support.errors import InputError

_LONGEST = 100
"""Characters of a text's name at most, so that more fits behind it."""


def text_name(corpus: str) -> str:
    """What a folder is called after a text: a corpus's name, or that of a file or folder, without its suffix."""
    path = Path(corpus)
    while any(each in path.name for each in "*?[") and not path.exists():
        path = path.parent  # a pattern is called after the folder that it looks in
    stem = Path(path.stem).stem if path.suffix in COMPRESSED else path.stem
    return "".join(c if c.isprintable() and c not in '[]*?\\:<>|"' else "_" for c in stem)[:_LONGEST] or "text"


def experiment_name(path: Path) -> str:
    """What a folder is called after an experiment's file."""
    if path.suffix != ".json":
        return path.stem
    # One that is repeated is not continued.
    return f"{path.resolve().parent.name if path.name in (CONFIG, GRID) else path.stem}-again"


def choose_folder(name: str, data: DataConfig, file: str, joined: bool = True) -> tuple[Path, list[str]]:
    """``runs/NAME``; where that holds another text, NAME-2 and so on, and a line that says so.

    `file` is config.json or grid.json: whether a run or a comparison is to begin or go on there. Unless files are to be
    `joined` by the separator of `data`, they are by that of what is there.
    """
    if name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise InputError(f"{name!r} cannot name a folder; use --run-dir")
    first = Path("runs") / name
    folders = itertools.chain([first], (first.with_name(f"{name}-{number}") for number in itertools.count(2)))
    folder = next(each for each in folders if not _is_taken(each, data, file, joined))
    return folder, [] if folder == first else [f"{first} holds another text, so this one goes to {folder}"]


def _is_taken(folder: Path, asked: DataConfig, file: str, joined: bool) -> bool:
    """Whether a folder holds another text, or a comparison where a run belongs, or a run where one does."""
    there = [each for each in (CONFIG, GRID) if os.path.lexists(folder / each)]
    if file not in there:
        return bool(there)
    try:
        theirs = Run.open(folder).config.data if file == CONFIG else read_as(Grid, folder / GRID).base.data
        known = read_as(Fingerprint, folder / CORPUS)
    except InputError:  # whoever opens it says what is wrong
        return False
    separator = asked.separator if joined else theirs.separator
    return not known.is_of(Fingerprint.read(replace(theirs, corpus=asked.corpus, separator=separator)))
