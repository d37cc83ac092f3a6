"""The losses that are normal: named texts, sizes of the LSTM and budgets, all else as the defaults have it.

python -m benchmarks.expected [--corpora NAMES] [--sizes LxH,...] [--steps N,...] [--folder DIR]

What was trained before is in the folder and is not trained again, so that a command that was stopped goes on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import Parser, checked, count
from benchmarks.table import render
from charlstm.support.errors import InputError

_CORPORA = "king_james,tiny_shakespeare,war_and_peace,anna_karenina"


def main(words: Sequence[str]) -> int:
    """Train what is missing and print the table; the exit code."""
    parser = Parser(prog="python -m benchmarks.expected", description="The validation losses that are normal.")
    parser.add_argument("--corpora", default=_CORPORA, help=f"names, between commas; by default {_CORPORA}")
    parser.add_argument("--sizes", type=checked(_sizes), default="1x128,1x256,2x512", metavar="LxH,...")
    parser.add_argument(
        "--steps", type=checked(_counts), default="500,1500", metavar="N,...", help="updates of 32 x 64"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/expected"), metavar="DIR")
    asked = parser.parse_args(words)
    from charlstm.runs.models import prepare

    prepare()
    corpora = asked.corpora.split(",")
    rows = [
        [f"{layers} × {hidden}", f"{steps:,}", *(_train(asked.folder, each, layers, hidden, steps) for each in corpora)]
        for layers, hidden in asked.sizes
        for steps in asked.steps
    ]
    print(render(["LSTM", "updates", *corpora], rows, markdown=True))
    return 0


def _train(folder: Path, corpus: str, layers: int, hidden: int, steps: int) -> str:
    """Trains, unless it was done, to a validation loss after the last update: nats, and bits in brackets."""
    import charlstm
    from charlstm.config import DataConfig, Experiment, ModelConfig, TrainConfig

    path = folder / f"{corpus}-{layers}x{hidden}-{steps}"
    config = Experiment(
        data=DataConfig(corpus=corpus),
        model=ModelConfig(num_layers=layers, hidden_size=hidden),
        train=TrainConfig(steps=steps, validate_every=steps, tensorboard=False),
    )
    charlstm.train(config, path)
    found = charlstm.load_run(path, "latest").evaluate()
    print(f"{path.name}: {found.loss:.4f} nats", file=sys.stderr)
    return f"{found.loss:.3f} ({found.bits_per_char:.3f})"


def _counts(text: str) -> list[int]:
    return [count(each) for each in text.split(",")]


def _sizes(text: str) -> list[list[int]]:
    sizes = [[count(each) for each in size.split("x")] for size in text.split(",")]
    if any(len(size) != 2 for size in sizes):
        raise InputError(f"a size is LxH, as in 2x512, not {text!r}")
    return sizes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
