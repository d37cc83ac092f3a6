"""Seeds that train together against as many runs one after the other, start and compilation included.

python -m benchmarks.together [EXPERIMENT] [--cell lstm] [--seeds 8] [--steps N] [--rounds 3] [--out FILE]

Of the experiment's grid the model with the fewest operations is taken. One process trains it with all seeds, as
`charlstm compare` does before it measures and draws; then a `charlstm train` for each seed trains the same configs.
Either begins with an empty cache of compiled programs; a run finds there what the runs before it compiled, as it does
for anyone.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import machine
from benchmarks.command import Parser, check_writable, in_turns, interruptible
from benchmarks.spreads import Spread
from benchmarks.table import spread
from charlstm.cli.arguments import load_grid
from charlstm.compare.grid import grid_models
from charlstm.config import CELLS, Experiment, Grid
from charlstm.core.size import count_operations
from charlstm.data import corpora
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.models import prepare
from charlstm.support.errors import InputError
from charlstm.support.schema import to_dict

_ROOT = Path(__file__).resolve().parents[1]
DEPTH = _ROOT / "experiments" / "depth.py"


def main(words: Sequence[str]) -> int:
    """Train both ways in turns, print and write; the exit code."""
    asked = _parser().parse_args(words)
    try:
        check_writable("--out", asked.out)
        grid, size = _smallest(load_grid(asked.experiment), asked.cell, asked.steps)
    except InputError as error:
        print(f"python -m benchmarks.together: {error}", file=sys.stderr)
        return 2
    together: list[float] = []
    alone: list[float] = []
    ratios: list[float] = []
    for number in range(asked.rounds):
        together.append(_together(grid, asked.seeds))
        alone.append(_alone(grid.base, asked.seeds))
        told = f"{asked.seeds} seeds together {together[-1]:.1f} s, one after the other {alone[-1]:.1f} s"
        print(f"round {number + 1} of {asked.rounds}: {told}", file=sys.stderr)
        ratios.append(together[-1] / alone[-1])
        found = {"machine": machine.describe(), "model": size, "config": to_dict(grid.base), "seeds": asked.seeds}
        found |= {"together": together, "alone": alone, "ratio": ratios}
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(
        f"{size}, {asked.seeds} seeds of {grid.base.train.steps:,} steps:"
        f" together {spread(Spread.of(together))} s, one after the other {spread(Spread.of(alone))} s,"
        f" ratio {spread(Spread.of(ratios))}"
    )
    return 0


def _smallest(grid: Grid, cell: str, steps: int | None) -> tuple[Grid, str]:
    """A grid of one model, the smallest of a cell, and that model's name."""
    data = grid.base.data
    size = len(Vocabulary.of(corpora.load(data.corpus, data.symbols)))
    ours = [each for each in grid_models(grid, size) if each.config.model.cell == cell]
    if not ours:
        raise InputError(f"the grid has no model with the cell {cell}; there are {', '.join(grid.cells)}")
    best = min(ours, key=lambda each: count_operations(each.config.model, size))
    train = best.config.train
    if steps is not None:  # what is done on the way is done as often
        every = (
            max(steps * train.validate_every // train.steps, 1),
            max(steps * train.checkpoint_every // train.steps, 1),
        )
        train = replace(train, steps=steps, validate_every=every[0], checkpoint_every=every[1])
    model = best.config.model
    alone = Grid(
        base=replace(best.config, train=train),
        cells=(cell,),
        layers=(model.num_layers,),
        sizes=(model.hidden_size,),
    )
    return alone, best.name


def _together(grid: Grid, seeds: int) -> float:
    with TemporaryDirectory(prefix="charlstm-benchmarks-") as name:
        folder = Path(name)
        _write(folder / "grid.py", "GRID", "Grid", to_dict(replace(grid, seeds=seeds)))
        script = "import sys; from pathlib import Path; from benchmarks.together import train; train(Path(sys.argv[1]))"
        return seconds(folder, "-c", script, str(folder))


def _alone(config: Experiment, seeds: int) -> float:
    with TemporaryDirectory(prefix="charlstm-benchmarks-") as name:
        folder = Path(name)
        _write(folder / "run.py", "CONFIG", "Experiment", to_dict(config))
        numbers = [str(config.seed + number) for number in range(seeds)]
        words = ("-m", "charlstm", "train", "run.py", "--seed")
        return sum(seconds(folder, *words, each, "--run-dir", each) for each in numbers)


def train(folder: Path) -> None:
    """Trains all seeds of the only model of grid.py in a folder; the work of a process of its own."""
    prepare()
    from charlstm.compare.runner import Comparison, GridWatch
    from charlstm.data.dataset import Dataset
    from charlstm.training.signals import Received

    grid = load_grid(folder / "grid.py")
    data = Dataset.read(grid.base.data)
    (model,) = grid_models(grid, len(data.vocabulary))
    Comparison(grid, folder, data, GridWatch(), Received()).train(model, range(grid.seeds))


def _write(path: Path, name: str, kind: str, values: dict[str, object]) -> None:
    imports = f"from charlstm.support.schema import from_dict\nfrom charlstm.config import {kind}\n"
    path.write_text(f"{imports}{name} = from_dict({values!r}, {kind})\n")


def seconds(folder: Path, *words: str) -> float:
    """Of one Python process, from its start to its end."""
    paths = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "PYTHONPATH": paths}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr}")
    return time.perf_counter() - began


def _parser() -> Parser:
    parser = in_turns("together", "Seeds together against one after the other.", 8, DEPTH)
    parser.add_argument("--cell", choices=list(CELLS), default="lstm")
    return parser


if __name__ == "__main__":
    sys.exit(interruptible(main, sys.argv[1:]))
