"""The text that a page shows of each model: the newest sample of its run, or one drawn now."""

import unicodedata
from typing import NamedTuple

from charlstm.report.entries import Entry
from charlstm.runs.folder import SAMPLES
from charlstm.support.errors import InputError
from charlstm.support.files import inside, one_line, printable

SHOWN = 2000  # characters of a sample, at most


class Sample(NamedTuple):
    """Text that is safe to show, or None; `note` says where it comes from, or why there is none."""

    name: str
    text: str | None
    note: str


def sample_of(entry: Entry) -> Sample:
    """The newest sample file of the entry's first run (never one outside of it), or what its best checkpoint writes."""
    if not entry.runs:
        return Sample(entry.name, None, "no seed is finished yet")
    run = entry.runs[0]
    steps = [
        int(path.stem) for path in (run.folder / SAMPLES).glob("*.txt") if path.stem.isascii() and path.stem.isdigit()
    ]
    if steps and (newest := inside(run.folder / SAMPLES, f"{max(steps)}.txt")).is_file():
        with newest.open("rb") as file:
            text = file.read(4 * (SHOWN + 1)).decode("utf-8", "replace")  # a character has at most four bytes
        note = f"step {max(steps):,}"
    else:
        from charlstm.runs.loading import load_run

        try:
            found = load_run(run.folder)
            text = found.sample(length=min(run.config.sample.length, SHOWN + 1))  # a longer one begins the same
        except InputError as error:
            return Sample(entry.name, None, one_line(error))
        note = "; ".join([*map(one_line, found.notes), f"step {found.step:,}"])
    how = run.config.sample
    note += f", seed {run.config.seed}, temperature {how.temperature:g}{f', top {how.top_n}' if how.top_n else ''}"
    note += f", first {SHOWN:,} characters" if len(text) > SHOWN else ""
    return Sample(entry.name, legible(text[:SHOWN]), note)


def legible(text: str) -> str:
    """Replaces control characters and direction marks with U+FFFD, and every kind of space with a plain one."""
    lines = text.replace("\r\n", "\n")  # a text read as bytes keeps its carriage returns
    return printable("".join(" " if unicodedata.category(each) == "Zs" else each for each in lines))
