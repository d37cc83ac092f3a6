"""What takes too long for the tests: kills, signals, very large texts and long trainings.

python -m benchmarks.soak runs     [--runs 200] [--jobs 2]      runs that are killed and continued, compared to the bit
python -m benchmarks.soak grid     [--kills 20] [EXPERIMENT]    a comparison that is killed and continued
python -m benchmarks.soak hosts    [--runs 50]                  runs of two processes, one of which is killed
python -m benchmarks.soak signals  [--times 5]                  SIGTERM and SIGINT: how soon all is saved
python -m benchmarks.soak text     [--megabytes 500] [--cache]  memory and first step on a very large text
python -m benchmarks.soak long     [--minutes 60]               memory and speed over time; on an idle machine

What follows `--` after grid goes to `charlstm compare`, such as `-- --cells rnn lstm`. Each prints JSON, writes
it to `--out` and ends with exit code 1 if what it looks for does not hold.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import endurance, hosts, kills, machine, stops
from benchmarks.aim import ROOT
from benchmarks.command import Parser, check_writable, checked, count, interruptible
from charlstm.support.errors import InputError

_GRID_WORDS = ["--train.steps", "500", "--train.validate-every", "100", "--train.checkpoint-every", "20"]


def main(words: Sequence[str]) -> int:
    """Do one of them; the exit code."""
    parser = _parser()
    end = words.index("--") if "--" in words else len(words)
    asked = parser.parse_args(words[:end])
    asked.words = list(words[end + 1 :])
    if asked.words and asked.what != "grid":
        parser.error("only grid takes words after --")
    try:
        check_writable("--out", asked.out)
        with TemporaryDirectory(prefix="charlstm-soak-") as name:
            found = _SOAKS[asked.what](Path(name), asked)
    except InputError as error:
        print(f"python -m benchmarks.soak: {error}", file=sys.stderr)
        return 2
    failures = [name for name, holds in found.pop("holds").items() if not holds]
    told = json.dumps({"soak": asked.what, "machine": machine.describe(), **found, "failures": failures}, indent=1)
    asked.out.write_text(told + "\n")
    print(told)
    return 1 if failures else 0


def _runs(folder: Path, asked: Any) -> dict[str, Any]:
    found = kills.kill_runs(folder, asked.runs, asked.jobs, asked.seed)
    missed = [phase for phase in kills.AIMED if phase not in found["killed in"]]
    return {**found, "holds": {"no difference": not found["different"], "killed in each phase": not missed}}


def _grid(folder: Path, asked: Any) -> dict[str, Any]:
    found = kills.kill_grid(folder, asked.experiment, asked.words or _GRID_WORDS, asked.kills, asked.seed)
    return {**found, "holds": {"no difference": not found["different"]}}


def _hosts(folder: Path, asked: Any) -> dict[str, Any]:
    found = hosts.kill_hosts(folder, asked.runs, asked.seed)
    holds = {"no difference": not found["different"], "one line and exit code 1 within a minute": not found["wrong"]}
    return {**found, "holds": holds}


def _signals(folder: Path, asked: Any) -> dict[str, Any]:
    found = stops.stop_runs(folder, asked.times, asked.seed)
    longest = max(each["longest"] for each in found["seconds"].values())
    return {**found, "holds": {"within 5 s": longest <= 5, "saved, with the signal's code": not found["wrong"]}}


def _text(folder: Path, asked: Any) -> dict[str, Any]:
    found = endurance.large_texts(folder, asked.megabytes, cached=asked.cache)
    if asked.cache:
        quick = all(each["seconds to the first step"] <= 4 * each["seconds of sha256sum"] for each in found.values())
        small = all(each["peak bytes"] < 1e9 for each in found.values())
        return {**found, "holds": {"under 1 GB": small, "first step within 4 times sha256sum": quick}}
    return {
        **found,
        "holds": {
            "at most 3 times its size": all(each["times its size"] <= 3 for each in found.values()),
            "first step within 60 s": all(each["seconds to the first step"] <= 60 for each in found.values()),
        },
    }


def _long(folder: Path, asked: Any) -> dict[str, Any]:
    found = endurance.long_run(folder, asked.minutes)
    return {
        **found,
        "holds": {
            "memory flat": found["MB a minute"] < 1,
            "speed flat within 5 %": found["largest deviation"] <= 0.05,
        },
    }


_SOAKS: dict[str, Callable[[Path, Any], dict[str, Any]]] = {
    "runs": _runs,
    "grid": _grid,
    "hosts": _hosts,
    "signals": _signals,
    "text": _text,
    "long": _long,
}


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.soak", description="Kills, signals, large texts and long trainings.")
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    shared = Parser(add_help=False)
    shared.add_argument("--seed", type=checked(count), default=1, help="of what is random")
    shared.add_argument("--out", type=Path, default=Path("soak.json"), help="where the figures are written")
    each = {name: kinds.add_parser(name, parents=[shared]) for name in _SOAKS}
    each["runs"].add_argument("--runs", type=checked(count), default=200)
    each["runs"].add_argument("--jobs", type=checked(count), default=2, help="runs that train at the same time")
    each["grid"].add_argument("experiment", nargs="?", type=Path, default=ROOT / "experiments" / "depth.py")
    each["grid"].add_argument("--kills", type=checked(count), default=20)
    each["hosts"].add_argument("--runs", type=checked(count), default=50)
    each["signals"].add_argument("--times", type=checked(count), default=5, help="each signal in each phase")
    each["text"].add_argument("--megabytes", type=checked(count), default=500)
    each["text"].add_argument("--cache", action="store_true", help="read the ids from a file, as data.cache does")
    each["long"].add_argument("--minutes", type=checked(count), default=60)
    return parser


if __name__ == "__main__":
    sys.exit(interruptible(main, sys.argv[1:]))
