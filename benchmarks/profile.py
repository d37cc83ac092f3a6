"""Where the time of a training step goes.

python -m benchmarks.profile [SIZE] [--steps N] [--rows N]

XLA's own trace of N steps, added up by kernel: a kernel's time is of all devices together, so on two busy cores a step
of one second has two. Tracing slows short kernels down; shares mean more than sums.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.command import Parser, checked, count, interruptible
from benchmarks.contenders import make
from benchmarks.shapes import BOOK, Size
from benchmarks.table import number, render

_OUTER = ("while", "ThunkExecutor", "Execute", "end:", "call.", "Rendezvous", "Wait: ")
"""Events that hold others or are held by them, or mark an end."""


def main(words: Sequence[str]) -> int:
    """Trace, print; the exit code."""
    parser = Parser(prog="python -m benchmarks.profile", description="Where the time of a training step goes.")
    parser.add_argument("size", nargs="?", type=checked(Size.parse), default=BOOK, help=f"BxTxHxL, by default {BOOK}")
    parser.add_argument("--steps", type=checked(count), default=10, help="steps that are traced")
    parser.add_argument("--rows", type=checked(count), default=20, help="kernels that are shown")
    asked = parser.parse_args(words)
    kernels = kernel_times(asked.size, asked.steps)
    total = sum(seconds for seconds, _ in kernels.values())
    largest = sorted(kernels.items(), key=lambda item: -item[1][0])[: asked.rows]
    rows = []
    for name, (seconds, calls) in largest:
        a_step, each = 1e3 * seconds / asked.steps, 1e6 * seconds / calls
        rows.append([name, number(calls / asked.steps), number(each), number(a_step), f"{seconds / total:.1%}"])
    print(f"charlstm, one training step, {asked.size} (B×T×H×L): {1e3 * total / asked.steps:.1f} ms of kernels\n")
    print(render(["kernel", "times a step", "µs each", "ms a step", "share"], rows))
    return 0


def kernel_times(size: Size, steps: int) -> dict[str, tuple[float, int]]:
    """Seconds and calls of each kernel over some training steps, by its name in XLA's program."""
    import jax

    [run] = make("charlstm").train(size).ways.values()
    for _ in range(3):
        run()
    with TemporaryDirectory(prefix="charlstm-profile-") as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                run()
        [path] = Path(folder).rglob("*.xplane.pb")
        return _added_up(jax.profiler.ProfileData.from_file(str(path)))


def _added_up(profile: Any) -> dict[str, tuple[float, int]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for plane in profile.planes:
        for line in plane.lines:
            if "XLA" in line.name:
                for event in line.events:
                    if event.duration_ns and not event.name.startswith(_OUTER) and "::" not in event.name:
                        found[event.name].append(event.duration_ns / 1e9)
    return {name: (sum(each), len(each)) for name, each in found.items()}


if __name__ == "__main__":
    sys.exit(interruptible(main, sys.argv[1:]))
