"""One text from float32 weights and from int8, in turns, in processes that are started one after the other.

python -m benchmarks.int8 [--size BxTxHxL] [--starts N] [--length N]
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from time import perf_counter

from benchmarks import inputs
from benchmarks.command import Parser, checked, count
from benchmarks.shapes import BOOK, Size
from benchmarks.spreads import Spread
from benchmarks.table import spread

_TURNS = 7


def main(words: Sequence[str]) -> int:
    """Print; the exit code."""
    parser = Parser(prog="python -m benchmarks.int8", description="One text from float32 weights and from int8.")
    parser.add_argument("--size", type=checked(Size.parse), default=BOOK, metavar="BxTxHxL")
    parser.add_argument("--starts", type=checked(count), default=5, help="processes, one after the other")
    parser.add_argument("--length", type=checked(count), default=1000, help="characters that are drawn in a turn")
    parser.add_argument("--one", action="store_true", help="a process of the others'")
    asked = parser.parse_args(words)
    if asked.one:
        print(json.dumps(_rates(asked.size, asked.length)))
        return 0
    again = [sys.executable, "-m", "benchmarks.int8", "--one", f"--size={asked.size}", f"--length={asked.length}"]
    found = [json.loads(subprocess.run(again, stdout=subprocess.PIPE, check=True).stdout) for _ in range(asked.starts)]
    for name in ("float32", "int8"):
        print(f"{name:8} {spread(Spread.of([each[name] for each in found]))} characters/s")
    print(f"int8 / float32  {spread(Spread.of([each['int8'] / each['float32'] for each in found]))}")
    return 0


def _rates(size: Size, length: int) -> dict[str, float]:
    """Characters a second, of the median turn."""
    import jax

    from charlstm.analysis.sample import sample
    from charlstm.config import SampleConfig
    from charlstm.core.network import Model
    from charlstm.core.rounding import to_int8
    from charlstm.runs.models import prepare

    prepare()
    model, prime = Model(size.model, size.vocabulary), inputs.prime(size)
    params = to_int8(model.init(jax.random.key(0)))
    config = SampleConfig(length=length, temperature=inputs.TEMPERATURE)
    models = {"float32": model, "int8": replace(model, weights="int8")}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(_TURNS + 1):  # the first of them compiles
        for name, each in models.items():
            began = perf_counter()
            sample(each, params, prime, config)
            if turn:
                seconds[name].append(perf_counter() - began)
    return {name: length / median(each) for name, each in seconds.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
