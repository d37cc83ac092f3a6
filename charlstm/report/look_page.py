"""The page of `charlstm look`: numbers as tables and drawings, and a text that is coloured by any unit.

What the units do is held as bytes, compressed, which the page's own script unpacks. As in `page`, text is escaped by
Jinja2, only scripts whose SHA-256 the policy names run, and nothing is fetched.
"""

import base64
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from charlstm.analysis.inside import losses, units
from charlstm.analysis.inside.activations import Block, activations
from charlstm.core.loss import bits
from charlstm.report.look import CONTEXT_ORDER, SHOWN, Look
from charlstm.report.page import as_script_data, hash_of, legible
from charlstm.support.errors import InputError, extra
from charlstm.support.files import one_line, write_atomic

MOST_BYTES = 7_000_000  # of the compressed activations as base64; the page has at most 8 MB
NEXT = 5  # likeliest characters that are shown
_HERE = Path(__file__).parent
_TITLED_POINTS = 2_000  # of a drawing, at most, that tell their unit
_MARKS = {"\n": "↵\n", "\t": "→\t"}


class Packed(NamedTuple):
    """What the page's script reads: a description, and the bytes that it describes as base64 of zlib."""

    about: dict[str, Any]
    data: str


def write_look(look: Look, output: Path) -> None:
    """Writes the page of what was found; on an error, `output` stays as it was.

    Raises:
        InputError: the page's name does not end in .html, it cannot be written, or Jinja2 is not installed.
    """
    check_page(output)
    with extra("report"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    script = (_HERE / "look.js").read_text("utf-8")
    environment = Environment(loader=FileSystemLoader(_HERE), undefined=StrictUndefined, autoescape=True)
    environment.trim_blocks = environment.lstrip_blocks = True
    packed, run = pack(look), look.found.run
    model, beside = look.found.model.config, look.beside
    page = environment.get_template("look.html.jinja").render(
        policy=f"default-src 'none'; script-src {hash_of(script)}; style-src 'unsafe-inline'; base-uri 'none';"
        " form-action 'none'",
        style=Markup("".join((_HERE / name).read_text("utf-8") for name in ("page.css", "look.css"))),
        script=Markup(script),
        about=Markup(as_script_data(packed.about)),
        data=packed.data,
        look=look,
        title=legible(run.folder.resolve().name),
        model=f"{model.cell}, {model.num_layers} layer{'s' if model.num_layers > 1 else ''} of {model.hidden_size:,}",
        corpus=legible(one_line(run.config.data.corpus)),
        source=legible(one_line(look.source)),
        unit=run.config.data.symbols.removesuffix("s"),
        bits=bits,
        features=look.features,
        margin=units.MARGIN,
        sides=_sides(look),
        legible=_shown,
        named=lambda symbol: _named(symbol, look),
        beside=beside,
        errors=sum(each.errors for each in beside.causes) if beside else 0,
        definition=_definition,
        context=CONTEXT_ORDER - 1,
    )
    try:
        write_atomic(output, page.encode())
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}; use another --output") from None


def check_page(output: Path) -> None:
    """Raises InputError for what cannot be a page or is not named as one, as by a slip, or if Jinja2 is missing."""
    with extra("report"):
        import jinja2  # noqa: F401 - whether it is there
    if not output.name.endswith(".html"):
        raise InputError(f"--output is {one_line(output)}; it must end in .html")
    if os.path.isdir(output) or not os.path.isdir(output.parent):  # a Path raises where it may not look
        why = "it is a folder" if os.path.isdir(output) else f"there is no folder {one_line(output.parent)}"
        raise InputError(f"{one_line(output)} cannot be written: {why}; use another --output")


def pack(look: Look) -> Packed:
    """The text and the activations that the page shows, and where they lie among the bytes."""
    shown = look.ids[:SHOWN]
    found, newline = look.found, look.found.run.newline
    block = next(activations(found.model, found.params, shown, window=len(shown), newline=newline))
    top = np.argsort(-block.logits, axis=-1, kind="stable")[:, :NEXT]
    best = np.take_along_axis(block.logits, top, -1)
    likeliest = np.rint(65535 * np.exp(best - logsumexp(block.logits, axis=-1, keepdims=True)))
    arrays = shown.astype("<u4"), top.astype("<u4"), block.nats.astype("<f4"), likeliest.astype("<u2")
    named = {(each.layer, each.unit) for units in look.features.values() for each in units if each.found}
    more = [row for row in _rows(block, parts=True) if (row[1], row[2]) in named]
    hidden = sorted(_rows(block, parts=False), key=lambda row: ((row[1], row[2]) not in named, -float(row[3].var())))
    kept = len(hidden)
    while True:
        rows = sorted(hidden[:kept], key=lambda row: row[1:3]) + more
        scaled = [_quantised(values) for *_, values in rows]
        content = b"".join([*(each.tobytes() for each in arrays), *(values for values, _ in scaled)])
        data = base64.b64encode(zlib.compress(content))
        if len(data) <= MOST_BYTES or kept <= max(len(named), 1):
            break
        kept = max(len(named), 1, int(kept * min(0.95 * MOST_BYTES / len(data), 0.95)))
    about = {
        "characters": len(shown),
        "next": top.shape[1],
        "shown": [_shown(each, look) for each in found.vocabulary.characters],
        "names": [_named(each, look) for each in found.vocabulary.characters],
        "rows": [
            {"part": part, "layer": layer, "unit": unit, "scale": float(f"{scale:.4g}")}
            for (part, layer, unit, _), (_, scale) in zip(rows, scaled, strict=True)
        ],
        "layers": found.model.config.num_layers,
        "units": found.model.config.hidden_size,
        "left_out": len(hidden) - kept,
        "first": _first(look, rows),
    }
    return Packed(about, data.decode())


def _first(look: Look, rows: list[Any]) -> dict[str, Any]:
    """The unit that the page begins with: the one that stands out most, or else the one that moves most."""
    found = [each for units in look.features.values() for each in units if each.found]
    if found:
        best = max(found, key=lambda each: abs(each.score) - each.control)
        return {"part": best.part, "layer": best.layer, "unit": best.unit}
    part, layer, unit, _ = max((row for row in rows if row[0] == "h"), key=lambda row: float(row[3].var()))
    return {"part": part, "layer": layer, "unit": unit}


def _rows(block: Block, *, parts: bool) -> list[tuple[str, int, int, NDArray[Any]]]:
    """Part, layer, unit and values [N]: of all outputs, or of cell states and gates."""
    arrays = {"h": block.hidden} if not parts else {} if block.cell is None else {"c": block.cell}
    # The "tanh" of an rnn tells no more than its output.
    arrays |= {name: gate for name, gate in block.gates.items() if parts and name != "tanh"}
    return [
        (name, layer, unit, array[layer, :, unit])
        for name, array in arrays.items()
        for layer, unit in np.ndindex(array.shape[0], array.shape[2])
    ]


def _quantised(values: NDArray[Any]) -> tuple[bytes, float]:
    """Values as whole numbers from -127 to 127, and what 127 stands for."""
    scale = float(np.abs(values).max()) or 1.0
    return np.rint(values / scale * 127).astype(np.int8).tobytes(), scale


def _shown(symbol: str, look: Look | None = None) -> str:
    """A text that is safe to show; a newline and a tab with a mark, and a byte that is no ASCII sign as its number."""
    as_bytes = look is not None and look.found.config.data.symbols == "bytes"
    if as_bytes and symbol not in _MARKS and not " " <= symbol <= "~":
        return f"\\x{ord(symbol):02x}"
    return "".join(_MARKS.get(each) or legible(each) for each in symbol)


def _named(symbol: str, look: Look) -> str:
    """A symbol as it stands alone: one that leaves no mark by a sign or its number."""
    if symbol == " ":
        return "␣"
    shown = _shown(symbol, look).strip("\n\t")
    marked = shown.isprintable() and shown.strip() and "\ufffd" not in shown
    return shown if marked else f"U+{ord(symbol):04X}"


def _definition(step: str) -> str:
    """Which errors a step of `losses.causes` explains."""
    number, last = step.split()[0], step.split()[-1]
    return {
        "n-gram": "an n-gram model of some order gives the character more than 0.5",
        "memory": f"the {losses.MATCH} characters before it are among the {last} before, and it followed the last time",
        "rare": f"its word is in the text trained on at most {losses.RARE} times",
        "start": "it is the first character of a word",
        "punctuation,": "it is in no word",
    }.get(number, f"with {number} added, its probability is above 0.5")


def _sides(look: Look) -> dict[str, list[dict[str, Any]]]:
    """By gate, a point for each unit: its layer, and the fractions of time that it is right- and left-saturated."""
    few = sum(each.left.size for each in look.survey.saturation.values()) <= _TITLED_POINTS
    return {
        name: [
            {
                "layer": layer,
                "right": round(float(each.right[layer, unit]), 4),
                "left": round(float(each.left[layer, unit]), 4),
                "title": f"layer {layer + 1}, unit {unit}" if few else "",
            }
            for layer, unit in np.ndindex(*each.left.shape)
        ]
        for name, each in look.survey.saturation.items()
    }
