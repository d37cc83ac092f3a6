"""Compare charlstm with its peers.

python -m benchmarks [--quick] [--only TASKS] [--sizes SIZES] [--peers PEERS] [--rounds N] [--out FILE] [--markdown]

Each contender runs in a process of its own; all of a row take turns, one at work and the others asleep.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine, report, rounds, startup
from benchmarks.command import (
    PEERS,
    Parser,
    check_writable,
    checked,
    count,
    interruptible,
    names,
    present,
    present_floors,
)
from benchmarks.contenders import BASELINE
from benchmarks.deadline import Deadline
from benchmarks.rows import TASKS, Amounts, Row, make_row
from benchmarks.shapes import SIZES, SMALL, Size
from charlstm.support.errors import InputError

_QUICK_SECONDS, _QUICK_MARGIN = 172.0, 35.0
"""A quick comparison ends within three minutes: what would not end in them is not begun, and else given up."""
_MOST_STARTS = 3


def main(words: Sequence[str]) -> int:
    """Compare, print and write; the exit code."""
    asked = _parser().parse_args(words)
    try:
        check_writable("--out", asked.out)
        rows = _rows(asked)
    except InputError as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 2
    _compare(rows, _amounts(asked), asked, Deadline(_QUICK_SECONDS, _QUICK_MARGIN) if asked.quick else Deadline())
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description="Compare charlstm with its peers.")
    parser.add_argument("--quick", action="store_true", help="one small size, few rounds: ends within 3 minutes")
    tasks = checked(partial(names, known=TASKS, what="task"))
    parser.add_argument("--only", type=tasks, metavar="TASKS", help=f"some of {','.join(TASKS)}")
    sizes = checked(lambda text: [Size.parse(each) for each in text.split(",")])
    parser.add_argument("--sizes", type=sizes, help=f"BxTxHxL, between commas; by default {','.join(map(str, SIZES))}")
    peers = checked(partial(names, known=PEERS, what="peer"))
    parser.add_argument("--peers", type=peers, help=f"some of {','.join(PEERS)}, or none; by default all installed")
    parser.add_argument("--rounds", type=checked(count), help="turns that each contender gets")
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"), help="where the raw seconds are written")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    return parser


def _amounts(asked: Any) -> Amounts:
    quick = Amounts(rounds=3, turn_seconds=0.2, length=200)
    chosen = quick if asked.quick else Amounts()
    return Amounts(**{**asdict(chosen), **({"rounds": asked.rounds} if asked.rounds else {})})


def _rows(asked: Any) -> list[Row]:
    contenders = ["charlstm", *present(PEERS if asked.peers is None else asked.peers, insist=asked.peers is not None)]
    # Where time is short, all peers train, and the rest of the table is charlstm and the one that it is measured by.
    few = [name for name in contenders if name in ("charlstm", BASELINE)]
    floors, amounts = present_floors(), _amounts(asked)
    sizes = asked.sizes or ([SMALL] if asked.quick else SIZES)
    return [
        make_row(task, size, few if asked.quick and task != "train" else contenders, floors, amounts)
        for task in TASKS
        if asked.only is None or task in asked.only
        for size in sizes
    ]


def _compare(rows: Sequence[Row], amounts: Amounts, asked: Any, deadline: Deadline) -> None:
    """Row by row: each is printed and written as soon as it is there, so that a stop loses one row at most."""
    results: dict[str, Any] = {"machine": machine.describe(), "amounts": asdict(amounts), "rows": []}
    for row in rows:
        if deadline.near:
            print(f"left out for lack of time: {row.title}\n")
            continue
        if row.task == "compile":
            starts = startup.measure(row.jobs, 1 if asked.quick else min(amounts.rounds, _MOST_STARTS), deadline)
            text = report.start_table(row, starts, markdown=asked.markdown)
            labelled = [{"label": job.label, **each} for job, each in zip(row.jobs, starts, strict=True)]
            results["rows"].append({"task": row.task, "size": str(row.size), "starts": labelled})
        else:
            measured = rounds.measure(row.jobs, amounts.rounds, amounts.turn_seconds, deadline)
            text = report.rate_table(row, measured, markdown=asked.markdown)
            results["rows"].append(report.to_json(row, measured))
        print(text + "\n", flush=True)
        asked.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(interruptible(main, sys.argv[1:]))
