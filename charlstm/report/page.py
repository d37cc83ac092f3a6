"""Write one HTML page that needs nothing but itself, and runs nothing but its own two scripts.

Jinja2 escapes all text, and `as_script_data` the data of the figures. The Content-Security-Policy is a second wall:
only scripts whose SHA-256 it names run, and nothing is fetched.
"""

import base64
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.config import Experiment
from charlstm.report.curves import MAX_POINTS
from charlstm.report.entries import Entry, gather, ngram_rows
from charlstm.report.figures import figures, symbol_of
from charlstm.report.tables import explain, make_table
from charlstm.runs.folder import SAMPLES
from charlstm.support.errors import InputError, extra
from charlstm.support.files import inside, one_line, printable, write_atomic
from charlstm.support.schema import flat

SHOWN = 2000  # characters of a sample, at most
_HERE = Path(__file__).parent
_TITLED = 3  # folders that the title names


def write_page(folders: Sequence[Path], output: Path) -> None:
    """Writes a page about runs and comparisons, in the order given; on an error, `output` stays as it was.

    Raises:
        InputError: a folder is neither, a file in it is malformed, the page's name does not end in .html, it cannot be
            written, or a package of the extra `report` is not installed.
    """
    if not output.name.endswith(".html"):  # a slip overwrites nothing else
        raise InputError(f"--output is {one_line(output)}; it must end in .html")
    with extra("report"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    entries = gather(folders)
    drawn, symbol = figures(entries), symbol_of(entries)
    models = [entry.result for entry in entries] + (ngrams := ngram_rows(folders))
    scripts = [*([get_plotlyjs()] if drawn else []), (_HERE / "page.js").read_text("utf-8")]
    names = [legible(folder.resolve().name) for folder in dict.fromkeys(folders)]
    differing, shared = configs(entries)
    environment = Environment(loader=FileSystemLoader(_HERE), undefined=StrictUndefined, autoescape=True)
    environment.trim_blocks = environment.lstrip_blocks = True
    page = environment.get_template("page.html.jinja").render(
        policy=f"default-src 'none'; script-src {' '.join(map(hash_of, scripts))}; style-src 'unsafe-inline';"
        " base-uri 'none'; form-action 'none'",
        style=Markup((_HERE / "page.css").read_text("utf-8")),
        scripts=[Markup(script) for script in scripts],
        data=Markup(as_script_data([asdict(each) for each in drawn])),
        title=", ".join(names[:_TITLED]) + (f" and {len(names) - _TITLED} more" if len(names) > _TITLED else ""),
        corpora=Counter(entry.corpus for entry in entries),
        compared=any(entry.compared for entry in entries),
        table=make_table(models, symbol, [entry.note for entry in entries] + [""] * len(ngrams)),
        explanation=explain(models, symbol, entries[0].confidence),
        figures=drawn,
        max_points=MAX_POINTS,
        samples=[(entry.name, *_sample_of(entry)) for entry in entries],
        names=[entry.name for entry in entries],
        differing=differing,
        shared=shared,
    )
    try:
        write_atomic(output, page.encode())
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}; use another --output") from None


def _sample_of(entry: Entry) -> tuple[str | None, str]:
    """Text that is safe to show, and where it comes from; or None, and why there is none.

    It is the newest sample file of the entry's first run (never one outside of it), or what its best checkpoint writes.
    """
    if not entry.runs:
        return None, "no seed is finished yet"
    run, how = entry.runs[0], entry.runs[0].config.sample
    folder = run.folder / SAMPLES
    steps = [int(path.stem) for path in folder.glob("*.txt") if path.stem.isdecimal()]
    if steps and (newest := inside(folder, f"{max(steps)}.txt")).is_file():
        with newest.open("rb") as file:
            text = file.read(4 * (SHOWN + 1)).decode("utf-8", "replace")  # a character has at most four bytes
        note = f"step {max(steps):,}"
    else:
        from charlstm.runs.loading import load_run

        try:
            found = load_run(run.folder)
            text = found.sample(length=min(how.length, SHOWN + 1))  # a longer one begins the same
        except InputError as error:
            return None, one_line(error)
        note = "; ".join([*map(one_line, found.notes), f"step {found.step:,}"])
    note += f", seed {run.config.seed}, temperature {how.temperature:g}{f', top {how.top_n}' if how.top_n else ''}"
    note += f", first {SHOWN:,} characters" if len(text) > SHOWN else ""
    return legible(text[:SHOWN]), note


def legible(text: str) -> str:
    """Replaces control characters and direction marks with U+FFFD, and every kind of space with a plain one."""
    lines = text.replace("\r\n", "\n")  # a text read as bytes keeps its carriage returns
    return printable("".join(" " if unicodedata.category(each) == "Zs" else each for each in lines))


def configs(entries: Sequence[Entry]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The fields of all configs: those that differ, with a value per entry, and those that are the same everywhere."""
    values: dict[str, list[str]] = {name: [] for name in flat(Experiment())}
    for entry in entries:
        seeds = [flat(run.config) for run in entry.runs]
        for name, row in values.items():  # every value of a field in which a model's seeds differ
            row.append(", ".join(dict.fromkeys(_shown(each[name]) for each in seeds)))
    differing = {name: row for name, row in values.items() if len({*row} - {""}) > 1}
    same = {name: max(row) for name, row in values.items() if name not in differing}
    return differing, {name: value for name, value in same.items() if value}


def _shown(value: Any) -> str:
    return legible(json.dumps(value, ensure_ascii=False)) if isinstance(value, str) else repr(value)


def as_script_data(value: object) -> str:
    """JSON that no HTML parser can mistake for the end of its script: <, > and & only as escapes, all else ASCII."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=_six_digits)
    return text.translate({ord(each): f"\\u{ord(each):04x}" for each in "<>&"})


def _six_digits(array: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in array]  # a picture shows fewer


def hash_of(script: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
