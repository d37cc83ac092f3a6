"""What a model writes, for a page: the newest sample of its run, or one drawn now."""

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from charlstm.cli.terminal import printable
from charlstm.report.entries import Exhibit
from charlstm.runs.folder import Run
from charlstm.support.errors import InputError
from charlstm.support.files import inside, one_line

SHOWN = 2000
"""Characters of a sample that a page has room for."""


class Excerpt(NamedTuple):
    """A text of a model, safe to show; `text` is None where there is none, and `note` says why or whence it is."""

    name: str
    text: str | None
    note: str


def excerpt(exhibit: Exhibit) -> Excerpt:
    """The newest file of its first run's samples; without one, the best checkpoint writes as the run's config asks.

    Raises:
        InputError: a symbolic link leads out of the run's folder.
    """
    if not exhibit.runs:
        return Excerpt(exhibit.name, None, "no seed is finished yet")
    run = exhibit.runs[0]
    if (newest := _newest(run)) is not None:
        text, note = _read(newest), f"step {int(newest.stem):,}"
    else:
        try:
            text, note = _drawn(run)
        except InputError as error:
            return Excerpt(exhibit.name, None, one_line(error))
    how = run.config.sample
    cut = f", its first {SHOWN:,} characters" if len(text) > SHOWN else ""
    note += f", seed {run.config.seed}; temperature {how.temperature:g}{f', top {how.top_n}' if how.top_n else ''}{cut}"
    return Excerpt(exhibit.name, legible(text[:SHOWN]), note)


def legible(text: str) -> str:
    """Text with nothing in it that is obeyed and not read: controls and marks of direction become U+FFFD."""
    lines = text.replace("\r\n", "\n")  # as in a text whose symbols are bytes
    return printable("".join(" " if unicodedata.category(each) == "Zs" else each for each in lines))


def _newest(run: Run) -> Path | None:
    names = [path.name for path in run.samples.glob("*.txt")] if run.samples.is_dir() else []
    steps = [int(name[:-4]) for name in names if name[:-4].isascii() and name[:-4].isdigit()]
    path = inside(run.samples, f"{max(steps)}.txt") if steps else None
    return path if path is not None and path.is_file() else None


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(4 * (SHOWN + 1)).decode("utf-8", "replace")  # no character has more than four bytes


def _drawn(run: Run) -> tuple[str, str]:
    from charlstm.analysis.sample import text_stream
    from charlstm.runs.loading import trained

    found = trained(run.folder)
    config, symbols = run.config.sample, run.config.data.symbols
    config = replace(config, length=min(config.length, SHOWN + 1))  # a longer text begins with the same characters
    pieces = text_stream(found.model, found.params, run.vocabulary, symbols, config, skip_unknown=True)
    return "".join(pieces), "; ".join([*map(one_line, found.notes), f"step {found.step:,}"])
