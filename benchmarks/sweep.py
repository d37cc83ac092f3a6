"""How the time and the memory of a training step grow with T, B, H and L.

python -m benchmarks.sweep [--base 100x100x512x2] [--axes T,B,H,L] [--factors 2,4,7,10] [--contender charlstm]
                           [--rounds N] [--limit SECONDS] [--out FILE] [--plot FILE] [--markdown]

Every size takes turns with the base, so that a machine whose speed drifts does not bend the curves.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import machine, rounds
from benchmarks.command import Parser, check_writable, checked, count, interruptible, names, present
from benchmarks.contenders import PACKAGES
from benchmarks.deadline import Deadline
from benchmarks.growth import FIELDS, Axis, Growth, growth_table, plot, scaled
from benchmarks.jobs import Job
from benchmarks.shapes import BOOK, Size
from charlstm.support.errors import InputError

_TURN_SECONDS = 0.5
_FOOTNOTE = (
    "Of linear: 1 is growth by the factor. Of operations: 1 is growth by the operations of the products.\n"
    "MB: the process's peak above its imported libraries; what compiling takes is in it, at every size."
)


def main(words: Sequence[str]) -> int:
    """Sweep, print, write and draw; the exit code."""
    asked = _parser().parse_args(words)
    try:
        present([asked.contender], insist=True)
        check_writable("--out", asked.out)
        check_writable("--plot", asked.plot)
        if find_spec("matplotlib") is None:
            raise InputError("the plot needs matplotlib; pip install -e '.[bench]'")
    except InputError as error:
        print(f"python -m benchmarks.sweep: {error}", file=sys.stderr)
        return 2
    points: list[Growth] = []
    for axis in asked.axes:
        points += _along(axis, asked)
        found = {"machine": machine.describe(), "contender": asked.contender, "base": str(asked.base)}
        asked.out.write_text(json.dumps({**found, "points": [each.to_json() for each in points]}, indent=1) + "\n")
    title = f"training step of {asked.contender}, base {asked.base} (B×T×H×L), V={asked.base.vocabulary}"
    print(f"{title}\n\n{growth_table(points, markdown=asked.markdown)}\n{_FOOTNOTE}")
    plot(points, title, asked.plot)
    return 0


def _along(axis: Axis, asked: Any) -> list[Growth]:
    """The sizes of one axis, up to the first that takes too long or too much memory."""
    points = []
    for factor in asked.factors:
        size = scaled(asked.base, axis, factor)
        jobs = [Job(asked.contender, "train", each) for each in (asked.base, size)]
        beside, point = rounds.measure(jobs, asked.rounds, _TURN_SECONDS, Deadline(asked.limit))
        if error := beside.error or point.error:
            print(f"{axis} × {factor}: {error}; larger sizes of this axis are left out", file=sys.stderr)
            break
        points.append(Growth(axis, factor, size, asked.base, point, beside))
        print(f"{axis} × {factor}: done", file=sys.stderr)
    return points


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.sweep", description="How a training step grows with T, B, H and L.")
    parser.add_argument("--base", type=checked(Size.parse), default=BOOK, help=f"BxTxHxL; by default {BOOK}")
    axes = checked(partial(names, known=FIELDS, what="axis"))
    parser.add_argument("--axes", type=axes, default=list(FIELDS), help="some of T,B,H,L")
    factors = checked(lambda text: sorted({count(each) for each in text.split(",")}))
    parser.add_argument("--factors", type=factors, default=[2, 4, 7, 10], help="of the base; by default 2,4,7,10")
    parser.add_argument("--contender", choices=list(PACKAGES), default="charlstm")
    parser.add_argument("--rounds", type=checked(count), default=3, help="turns of a size and of the base beside it")
    limit = "seconds that a size and the base may take together; the rest of an axis is left out after that"
    parser.add_argument("--limit", type=checked(count), default=900, help=limit)
    parser.add_argument("--out", type=Path, default=Path("sweep.json"), help="where the raw seconds are written")
    parser.add_argument("--plot", type=Path, default=Path("sweep.png"), help="the picture; its ending says the format")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    return parser


if __name__ == "__main__":
    sys.exit(interruptible(main, sys.argv[1:]))
