"""Models of a comparison side by side, as tasks of Ray on this machine, against models in turn.

python -m benchmarks.beside [EXPERIMENT] [--steps N] [--seeds 5] [--rounds 3] [--out FILE] [-- WORDS]

In turn, the seeds of a model share the cores in one program; side by side, each core has a model with all its seeds.
Both are whole commands, from start to page, and begin with an empty cache of compiled programs. Their tables must be
equal but for times. What follows `--` goes to both, such as `-- --cells rnn lstm`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import machine
from benchmarks.command import check_writable, in_turns, interruptible
from benchmarks.kills import table
from benchmarks.spreads import Spread
from benchmarks.table import spread
from benchmarks.together import DEPTH, seconds
from charlstm.cli.arguments import load_grid
from charlstm.config import Grid
from charlstm.support.errors import InputError


def main(words: Sequence[str]) -> int:
    """Compare both ways in turns, print and write; the exit code is 1 where their tables differ."""
    end = words.index("--") if "--" in words else len(words)
    asked = in_turns("beside", "Models side by side against models in turn.", 5, DEPTH).parse_args(words[:end])
    try:
        check_writable("--out", asked.out)
        shared = [*_fields(load_grid(asked.experiment), asked), *words[end + 1 :]]
    except InputError as error:
        print(f"python -m benchmarks.beside: {error}", file=sys.stderr)
        return 2
    taken: dict[str, list[float]] = {"in turn": [], "side by side": []}
    ratios: list[float] = []
    same, models = True, 0
    for number in range(asked.rounds):
        with TemporaryDirectory(prefix="charlstm-benchmarks-") as name:
            tables: list[Any] = []
            for way, on in (("in turn", []), ("side by side", ["--on", "ray"])):
                folder = Path(name, way)
                folder.mkdir()
                command = ["-m", "charlstm", "compare", str(asked.experiment.resolve()), "--run-dir", "grid"]
                taken[way].append(seconds(folder, *command, *on, *shared))
                tables.append(table(folder / "grid"))
        same, models = same and tables[0] == tables[1], len(tables[0]["models"])
        told = ", ".join(f"{way} {times[-1]:.1f} s" for way, times in taken.items())
        print(f"round {number + 1} of {asked.rounds}: {told}", file=sys.stderr)
        ratios.append(taken["side by side"][-1] / taken["in turn"][-1])
        found = {"machine": machine.describe(), "words": shared, "models": models, "same table": same}
        asked.out.write_text(json.dumps(found | taken | {"ratio": ratios}, indent=1) + "\n")
    spreads = ", ".join(f"{way} {spread(Spread.of(times))} s" for way, times in taken.items())
    told = "the same table" if same else "DIFFERENT TABLES"
    print(f"{models} models of {asked.seeds} seeds: {spreads}, ratio {spread(Spread.of(ratios))}; {told}")
    return 0 if same else 1


def _fields(grid: Grid, asked: Any) -> list[str]:
    """The seeds and, where they are asked for, fewer steps, on whose way as much is done."""
    words = ["--seeds", str(asked.seeds)]
    if asked.steps is not None:
        train = grid.base.train
        words += ["--train.steps", str(asked.steps)]
        for name in ("validate_every", "checkpoint_every"):
            every = max(asked.steps * getattr(train, name) // train.steps, 1)
            words += [f"--train.{name.replace('_', '-')}", str(every)]
    return words


if __name__ == "__main__":
    sys.exit(interruptible(main, sys.argv[1:]))
