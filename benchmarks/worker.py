"""One contender at one kind of work, in a process of its own, which the parent drives a line at a time.

python -m benchmarks.worker CONTENDER KIND SIZE [--streams N] [--length N]

    in          out, a JSON object a line
                {"import_seconds", "import_bytes"}      the libraries are there, and nothing is built
    build       {"build_seconds", "first_seconds", "first_value", "amount", "way", "run_seconds"}
    go N        {"seconds": [N numbers], "value", "peak_bytes"}
                {"error": ...}                          in place of an answer, and the process ends

Between two lines it waits in a read, so an idle worker takes no time from the one whose turn it is.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO, get_args

from benchmarks import memory
from benchmarks.jobs import Job, Kind
from benchmarks.shapes import Size


def main() -> int:
    """Serve one parent to the end of its lines."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("contender")
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("size", type=Size.parse)
    for name, default in (("streams", 1), ("length", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    job = Job(**vars(parser.parse_args()))
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        _serve(job, began, answers)
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        _answer(answers, {"error": f"{type(error).__name__}: {first_line}"[:300]})
        return 1
    return 0


def _serve(job: Job, began: float, answers: TextIO) -> None:
    job.load()
    _answer(answers, {"import_seconds": time.perf_counter() - began, "import_bytes": memory.resident()})
    run: Callable[[], float] | None = None
    for line in sys.stdin:
        word, *count = line.split()
        if word == "build":
            run, answer = _build(job)
            _answer(answers, answer)
        elif word == "go" and run is not None:
            seconds, value = [], float("nan")
            for _ in range(int(count[0])):
                took, value = _timed(run)
                seconds.append(took)
            _answer(answers, {"seconds": seconds, "value": value, "peak_bytes": memory.peak()})
        else:
            raise ValueError(f"no such line, or not now: {line!r}")


def _build(job: Job) -> tuple[Callable[[], float], dict[str, Any]]:
    """Makes the model, runs it once, and settles on the fastest of the ways that there are."""
    began = time.perf_counter()
    work = job.work()
    built = time.perf_counter() - began
    names = list(work.ways)
    first, value = _timed(work.ways[names[0]])
    best = {name: _best(work.ways[name]) for name in names}
    way = min(best, key=best.__getitem__)
    if len(names) > 1:
        memory.forget_peak()  # those that are slower may also have been larger
    return work.ways[way], {
        "build_seconds": built,
        "first_seconds": first,
        "first_value": value,
        "amount": work.amount,
        "way": way,
        "run_seconds": best[way],
    }


def _best(run: Callable[[], float]) -> float:
    """Seconds of the fastest of a few runs, more where they are short and so easily disturbed; the first is warm-up."""
    long = _timed(run)[0] > 0.2
    return min(_timed(run)[0] for _ in range(2 if long else 10))


def _timed(run: Callable[[], float]) -> tuple[float, float]:
    began = time.perf_counter()
    value = run()
    return time.perf_counter() - began, value


def _answer(answers: TextIO, values: dict[str, Any]) -> None:
    print(json.dumps(values), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
