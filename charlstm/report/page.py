"""Write one HTML page that needs nothing but itself, and runs nothing but its own two scripts.

Jinja2 escapes all text, and `_as_script_data` the data of the figures. The Content-Security-Policy is a second wall:
only scripts whose SHA-256 it names run, and nothing is fetched.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.report.curves import MAX_POINTS
from charlstm.report.entries import Entry, gather
from charlstm.report.figures import figures, symbol_of
from charlstm.report.samples import legible, sample_of
from charlstm.report.tables import explain, make_table
from charlstm.support.errors import InputError, extra
from charlstm.support.files import write_atomic
from charlstm.support.schema import flat

_HERE = Path(__file__).parent
_TITLED = 3  # folders that the title names


def write_page(folders: Sequence[Path], output: Path) -> None:
    """Writes a page about runs and comparisons, in the order given; on an error, `output` stays as it was.

    Raises:
        InputError: a folder is neither, a file in it is malformed, the page cannot be written, or a package of the
            extra `report` is not installed.
    """
    with extra("report"):
        import jinja2
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    entries = gather(folders)
    drawn, models, symbol = figures(entries), [entry.result for entry in entries], symbol_of(entries)
    scripts = [*([get_plotlyjs()] if drawn else []), (_HERE / "page.js").read_text("utf-8")]
    names = [legible(folder.resolve().name) for folder in folders]
    differing, shared = configs(entries)
    loader, strict = jinja2.FileSystemLoader(_HERE), jinja2.StrictUndefined
    options: Any = {"loader": loader, "autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    page = (
        jinja2.Environment(**options, undefined=strict)
        .get_template("page.html.jinja")
        .render(
            policy=f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src 'unsafe-inline';"
            " base-uri 'none'; form-action 'none'",
            style=Markup((_HERE / "page.css").read_text("utf-8")),
            scripts=[Markup(script) for script in scripts],
            data=Markup(_as_script_data([asdict(each) for each in drawn])),
            title=", ".join(names[:_TITLED]) + (f" and {len(names) - _TITLED} more" if len(names) > _TITLED else ""),
            corpora=Counter(entry.corpus for entry in entries),
            compared=any(entry.compared for entry in entries),
            table=make_table(models, symbol, [entry.note for entry in entries]),
            explanation=explain(models, symbol, entries[0].confidence),
            figures=drawn,
            max_points=MAX_POINTS,
            samples=[sample_of(entry) for entry in entries],
            names=[entry.name for entry in entries],
            differing=differing,
            shared=shared,
        )
    )
    try:
        write_atomic(output, page.encode())
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}; use another --output") from None


def configs(entries: Sequence[Entry]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The fields of all configs: those that differ, with a value per entry, and those that are the same everywhere."""
    known = []
    for entry in entries:  # every value of the fields in which a model's seeds differ
        seeds = [flat(run.config) for run in entry.runs]
        names = seeds[0] if seeds else ()
        known.append({name: ", ".join(dict.fromkeys(_value(each[name]) for each in seeds)) for name in names})
    names = next((list(each) for each in known if each), [])
    values = {name: [each.get(name, "") for each in known] for name in names}
    differing = {name: row for name, row in values.items() if len({value for value in row if value}) > 1}
    return differing, {name: next(filter(None, row)) for name, row in values.items() if name not in differing}


def _value(value: Any) -> str:
    return legible(json.dumps(value, ensure_ascii=False)) if isinstance(value, str) else repr(value)


def _six_digits(array: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in array]


def _as_script_data(value: object) -> str:
    """JSON that no HTML parser can mistake for the end of its script: <, > and & only as escapes, all else ASCII."""
    try:  # six digits are more than a picture shows
        text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=_six_digits)
    except ValueError:
        raise InputError("the results hold numbers too large to be drawn; put back the comparison's own") from None
    return text.translate({ord(each): f"\\u{ord(each):04x}" for each in "<>&"})


def _hash(script: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
