"""Both readings side by side, from the raw seconds of one or more comparisons.

python -m benchmarks.summary FILE... [--peers PEERS]
"""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import PEERS, Parser, checked, names
from benchmarks.contenders import BASELINE
from benchmarks.rows import TASKS
from benchmarks.settings import SETTINGS, Settings
from benchmarks.spreads import Spread, fraction, over_starts, ratio
from benchmarks.table import NOTHING, render, spread

FLOORS = {"products": "% of the product rate", "weights": "% of streamed weights"}
AIMS: dict[tuple[str, str, str], float] = {
    ("train", "100x100x512x2", BASELINE): 1.15,
    ("train", "64x50x128x2", BASELINE): 1.40,
    ("train", "50x50x128x1", BASELINE): 1.40,
    ("train", "16x1024x768x1", BASELINE): 1.20,
    ("eval", "100x100x512x2", BASELINE): 1.15,
    ("sample", "100x100x512x2", FLOORS["weights"]): 85,
    ("sample64", "100x100x512x2", BASELINE): 2.0,
}
"""What charlstm should reach under equal settings."""

Row = dict[str, Any]


def main(words: Sequence[str]) -> int:
    """Print; the exit code."""
    parser = Parser(prog="python -m benchmarks.summary", description="Both readings of comparisons, side by side.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what `python -m benchmarks` wrote")
    parser.add_argument("--peers", type=checked(partial(names, known=PEERS, what="peer")), default=PEERS)
    asked = parser.parse_args(words)
    try:
        found = [json.loads(path.read_text()) for path in asked.files]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for each in found:
        print(f"`{each['command']}`")
        for told in each["parity"]:
            if told["error"] is not None:
                print(f"{told['contender']}, {SETTINGS[told['settings']]}, was not timed: {told['error']}")
    print("\n" + side_by_side([row for each in found for row in each["rows"]], asked.peers))
    return 0


def side_by_side(rows: Sequence[Row], peers: Sequence[str] = PEERS) -> str:
    """In Markdown: how many times as fast as each peer charlstm is, and the part of the machine's rate that it reaches.

    The median over processes, with the least and the most in brackets.
    """
    readings: dict[tuple[str, str], dict[Settings, Row]] = {}
    for row in rows:
        if row["task"] in TASKS and row["task"] != "compile":
            readings.setdefault((row["task"], row["size"]), {})[row["settings"]] = row
    lines = []
    for (task, size), by_settings in readings.items():
        for against in [*(peer for peer in peers), *FLOORS.values()]:
            cells = [_against(by_settings.get(each), against) for each in SETTINGS]
            if any(cells):
                aim = AIMS.get((task, size, against))
                lines.append([f"{task} {size}", against, *map(spread, cells), f"{aim:g}" if aim else NOTHING])
    titles = ["charlstm, B×T×H×L", "against", *SETTINGS.values(), "aim under equal settings"]
    return render(titles, lines, markdown=True)


def _against(row: Row | None, against: str) -> Spread | None:
    if row is None:
        return None
    if against == FLOORS.get(row["floor"]):
        parts = over_starts(
            fraction(ours["seconds"], row["needed"], [(each["amount"], each["seconds"]) for each in floors])
            for ours, others in _starts(row)
            if (floors := [each for each in others if each["kind"] == row["floor"] and each["seconds"]])
        )
        return parts and Spread(100 * parts.median, 100 * parts.low, 100 * parts.high)
    return over_starts(
        ratio(ours["seconds"], each["seconds"])
        for ours, others in _starts(row)
        for each in others
        if each["contender"] == against
    )


def _starts(row: Row) -> Iterator[tuple[Row, list[Row]]]:
    """charlstm and the others at each start."""
    for measured in row["starts"]:
        if measured and measured[0]["contender"] == "charlstm":
            yield measured[0], measured[1:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
