"""Compare charlstm with its peers.

python -m benchmarks [--quick] [--only TASKS] [--sizes SIZES] [--peers PEERS] [--settings shipped|equal|both]
                     [--parity] [--starts N] [--rounds N] [--out FILE] [--markdown]

Each contender runs in a process of its own, started anew a few times; all of a row take turns, one at work and the
others asleep. A contender without parity is not timed: see `parity`.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import machine, report, rounds, startup, summary
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
from benchmarks.jobs import Job
from benchmarks.rows import TASKS, Amounts, Row, make_row
from benchmarks.settings import SETTINGS, Settings
from benchmarks.shapes import SIZES, SMALL, Size
from benchmarks.table import number
from charlstm.support.errors import InputError

_QUICK_SECONDS, _QUICK_MARGIN = 172.0, 35.0
"""A quick comparison ends within three minutes: what would not end in them is not begun, and else given up."""


def main(words: Sequence[str]) -> int:
    """Compare, print and write; the exit code."""
    asked = _parser().parse_args(words)
    asked.words = words
    try:
        check_writable("--out", asked.out)
        rows = _rows(asked)
    except InputError as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 2
    deadline = Deadline(_QUICK_SECONDS, _QUICK_MARGIN) if asked.quick else Deadline()
    if asked.parity:
        return bool(_without_parity(rows, deadline, []))
    _compare(rows, _amounts(asked), asked, deadline)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description="Compare charlstm with its peers.")
    parser.add_argument("--quick", action="store_true", help="one small size, few rounds: ends within 3 minutes")
    tasks = checked(partial(names, known=TASKS, what="task"))
    parser.add_argument("--only", type=tasks, metavar="TASKS", help=f"some of {','.join(TASKS)}")
    sizes = checked(lambda text: [Size.parse(each) for each in text.split(",")])
    parser.add_argument("--sizes", type=sizes, help=f"BxTxHxL, between commas; by default {','.join(map(str, SIZES))}")
    settings = "as shipped, under equal settings, or both; by default both, and equal with --quick"
    parser.add_argument("--settings", choices=[*SETTINGS, "both"], help=settings)
    peers = checked(partial(names, known=PEERS, what="peer"))
    parser.add_argument("--peers", type=peers, help=f"some of {','.join(PEERS)}, or none; by default all installed")
    parser.add_argument("--parity", action="store_true", help="time nothing: exit code 1 if a contender lacks parity")
    parser.add_argument("--starts", type=checked(count), help="processes of each contender, one after the other")
    parser.add_argument("--rounds", type=checked(count), help="turns that each process gets")
    turn = "about how long a turn is; a run takes as long as it takes, and there are at most 200 in a turn"
    parser.add_argument("--turn-seconds", type=checked(count), metavar="SECONDS", help=turn)
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"), help="where the raw seconds are written")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    return parser


def _amounts(asked: Any) -> Amounts:
    chosen = Amounts(starts=1, rounds=3, turn_seconds=0.2, length=200) if asked.quick else Amounts()
    return replace(
        chosen, **{name: value for name in ("starts", "rounds", "turn_seconds") if (value := getattr(asked, name))}
    )


def _rows(asked: Any) -> list[Row]:
    contenders = ["charlstm", *present(PEERS if asked.peers is None else asked.peers, insist=asked.peers is not None)]
    # Where time is short, all peers train, and the rest of the table is charlstm and the one that it is measured by.
    few = [name for name in contenders if name in ("charlstm", BASELINE)]
    floors, amounts = present_floors(), _amounts(asked)
    sizes = asked.sizes or ([SMALL] if asked.quick else SIZES)
    readings = asked.settings or ("equal" if asked.quick else "both")
    return [
        make_row(task, size, few if asked.quick and task != "train" else contenders, floors, amounts, settings)
        for task in TASKS
        if asked.only is None or task in asked.only
        for size in sizes
        for settings in SETTINGS
        if readings in (settings, "both")
    ]


def _compare(rows: Sequence[Row], amounts: Amounts, asked: Any, deadline: Deadline) -> None:
    """Row by row: each is printed and written as soon as it is there, so that a stop loses one row at most."""
    command = shlex.join(["python", "-m", "benchmarks", *asked.words])
    results: dict[str, Any] = {"command": command, "machine": machine.describe(), "amounts": asdict(amounts)}
    results |= {"parity": [], "rows": []}
    print(f"{command}\n", flush=True)
    failed = _without_parity(rows, deadline, results["parity"])
    for row in rows:
        if deadline.near:
            print(f"left out for lack of time: {row.title}\n")
            continue
        row = replace(row, jobs=tuple(job for job in row.jobs if (job.contender, row.settings) not in failed))
        if row.task == "compile":
            starts = startup.measure(row.jobs, amounts.starts, deadline)
            text = report.start_table(row, starts, markdown=asked.markdown)
            labelled = [{"contender": job.contender, **each} for job, each in zip(row.jobs, starts, strict=True)]
            found = {"task": row.task, "size": str(row.size), "settings": row.settings, "starts": labelled}
        else:
            starts = []
            while len(starts) < amounts.starts and not (starts and deadline.near):
                starts.append(rounds.measure(row.jobs, amounts.rounds, amounts.turn_seconds, deadline))
            text = report.rate_table(row, starts, markdown=asked.markdown)
            found = report.to_json(row, starts)
        results["rows"].append(found)
        print(text + "\n", flush=True)
        asked.out.write_text(json.dumps(results, indent=1) + "\n")
    print(summary.side_by_side(results["rows"]))


def _without_parity(rows: Sequence[Row], deadline: Deadline, found: list[dict[str, Any]]) -> set[tuple[str, Settings]]:
    """Those contenders that do other work than the reference, by settings; adds to a list what was found of each."""
    for job in dict.fromkeys(
        Job(job.contender, "parity", SMALL, settings=job.settings) for row in rows for job in row.contenders
    ):
        told: dict[str, Any] = {"contender": job.contender, "settings": job.settings, "off": None, "error": None}
        with TemporaryDirectory(prefix="charlstm-benchmarks-") as folder:
            try:
                told["off"] = rounds.start(job, Path(folder), deadline)["first_value"]
            except rounds.WorkerError as error:
                told["error"] = str(error)
        found.append(told)
        outcome = f"off by {number(told['off'], 2)}" if told["error"] is None else f"not timed: {told['error']}"
        print(f"parity of {job.contender}, {SETTINGS[job.settings]}: {outcome}", flush=True)
    print()
    return {(told["contender"], told["settings"]) for told in found if told["error"] is not None}


if __name__ == "__main__":
    sys.exit(interruptible(main, sys.argv[1:]))
