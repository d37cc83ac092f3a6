"""Exhibits become one HTML page that needs nothing but itself, and runs nothing but its own two scripts.

All text goes through Jinja2's escaping, and data for the curves through `_as_script_data`. Behind that stands the
Content-Security-Policy: scripts run only if their SHA-256 is named there, and nothing at all is fetched.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.report.columns import columns
from charlstm.report.entries import Exhibit, Text, gather
from charlstm.report.figures import figures, unit
from charlstm.report.samples import excerpt, legible
from charlstm.support.errors import InputError, extra
from charlstm.support.files import write_atomic
from charlstm.support.schema import flat

_HERE = Path(__file__).parent
_TEMPLATE, _STYLE, _SCRIPT = "page.html.jinja", "page.css", "page.js"


def write_page(folders: Sequence[Path], output: Path) -> None:
    """Writes one page about runs and comparisons, whole or not at all.

    Args:
        folders: of runs or comparisons, in the order in which they are shown.
        output: the HTML file.

    Raises:
        InputError: a folder is neither, a file in it is malformed, the page cannot be written, or a package of the
            extra `report` is not installed.
    """
    with extra("report"):
        import jinja2
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    shown = gather(folders)
    drawn = figures(shown)
    scripts = [*([get_plotlyjs()] if drawn else []), (_HERE / _SCRIPT).read_text("utf-8")]
    table = columns(shown)
    differing, shared = configs(shown)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(_TEMPLATE).render(
        policy=f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src 'unsafe-inline';"
        " base-uri 'none'; form-action 'none'",
        style=Markup((_HERE / _STYLE).read_text("utf-8")),
        scripts=[Markup(script) for script in scripts],
        data=Markup(_as_script_data([asdict(each) for each in drawn])),
        title=_title([legible(folder.resolve().name) for folder in folders]),
        texts=_texts(shown),
        unit=unit(shown),
        compared=any(each.compared for each in shown),
        confidence=shown[0].confidence,
        columns=table,
        rows=list(zip(*(column.cells for column in table), strict=True)),
        figures=drawn,
        excerpts=[excerpt(each) for each in shown],
        names=[each.name for each in shown],
        differing=differing,
        shared=shared,
    )
    try:
        write_atomic(output, page.encode())
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}; use another --output") from None


def configs(exhibits: Sequence[Exhibit]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Every field of every config: those that differ, a value an exhibit, and those that are the same for all."""
    known = [_merged([flat(run.config) for run in exhibit.runs]) for exhibit in exhibits]
    names = next((list(each) for each in known if each), [])
    values = {name: [each.get(name, "") for each in known] for name in names}
    differing = {name: row for name, row in values.items() if len({value for value in row if value}) > 1}
    return differing, {name: next(filter(None, row)) for name, row in values.items() if name not in differing}


def _merged(seeds: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The fields of a model's seeds; where they differ, all the values."""
    names = seeds[0] if seeds else ()
    return {name: ", ".join(dict.fromkeys(_value(each[name]) for each in seeds)) for name in names}


def _value(value: Any) -> str:
    return legible(json.dumps(value, ensure_ascii=False)) if isinstance(value, str) else repr(value)


def _title(names: Sequence[str]) -> str:
    most = 3
    return (
        ", ".join(names) if len(names) <= most else f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    )


def _texts(exhibits: Sequence[Exhibit]) -> dict[Text, int]:
    """What was read, and by how many of the exhibits."""
    texts = [exhibit.text for exhibit in exhibits]
    return {text: texts.count(text) for text in dict.fromkeys(texts)}


def _as_script_data(value: object) -> str:
    """JSON that no HTML parser can mistake for the end of its script: <, > and & only as escapes, all else ASCII."""
    try:
        text = json.dumps(value, allow_nan=False, default=_rounded, separators=(",", ":"))
    except ValueError:
        raise InputError("the results hold numbers too large to be drawn; put back the comparison's own") from None
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _rounded(array: object) -> list[float]:
    """An array's values to six digits, which is more than a picture shows."""
    assert isinstance(array, np.ndarray)
    return [float(f"{value:.6g}") for value in array]


def _hash(script: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
