"""The parts of the ten minutes, and one of them in a process of its own.

python -m benchmarks.card.parts PART SECONDS [--rehearse] [--corpus CORPUS]

It prints what it finds as it goes, a JSON object a line; see `Finding`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from shutil import which

from benchmarks.card import Asked, Finding, laws, speed
from benchmarks.deadline import Deadline

_END, _MARGIN = 3.0, 15.0
"""Seconds before the end of a part at which a comparison has to be over, and in which it builds no more."""


@dataclass(frozen=True)
class Part:
    """One process of the command."""

    title: str
    seconds: float
    """Its share of the ten minutes; what the parts before it left over is added."""
    find: Callable[[Asked], Iterator[Finding]]
    environment: dict[str, str] = field(default_factory=dict)


def _device(asked: Asked) -> Iterator[Finding]:
    import jax

    devices = jax.local_devices()
    found: Finding = {"device": devices[0].device_kind, "count": len(devices), "platform": devices[0].platform}
    if not asked.rehearse and which("nvidia-smi"):
        fields = {
            "driver": "driver_version",
            "memory": "memory.total",
            "power": "power.limit",
            "clock": "clocks.max.sm",
        }
        words = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader"]
        told = subprocess.run(words, capture_output=True, text=True)
        if told.returncode == 0:  # without it there is something to measure all the same
            found |= dict(zip(fields, told.stdout.splitlines()[0].split(", "), strict=False))
    yield found


_BITS = {
    "XLA_FLAGS": "--xla_gpu_deterministic_ops=true",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # for cuDNN's LSTM
    "JAX_ENABLE_COMPILATION_CACHE": "0",  # each process compiles by itself, and has to come to the same program
}
_LAW4 = "Law 4: the gradient of every backend against that of the equations in float64"
_LAW5 = "Law 5: a run that was killed and continued, with deterministic operations"
PARTS: dict[str, Part] = {
    "device": Part("The device", 40, _device),
    "law4": Part(_LAW4, 75, laws.gradients),
    "resume": Part(_LAW5, 60, laws.resuming, _BITS),
    **{f"train-{name}": Part(f"Training, {name}", 45, partial(speed.training, name)) for name in speed.SIZES},
    "layer": Part("One layer, forward and backward", 25, speed.layer),
    "layer-pytorch": Part("The same layer by PyTorch", 20, speed.layer_of_pytorch),
    "eval": Part("Evaluation", 50, speed.evaluation),
    "sample": Part("Sampling", 60, speed.sampling),
    "seeds": Part("Seeds in one program", 40, speed.seeds),
    "h100": Part("experiments/h100.py for 200 steps", 50, speed.run_h100),
}
"""In the order of the ten minutes."""


def main() -> int:
    """One part; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card.parts")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--corpus")
    words = parser.parse_args()
    asked = Asked(words.rehearse, words.corpus, Deadline(words.seconds - _END, _MARGIN))
    findings = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the findings
    for found in PARTS[words.part].find(asked):
        print(json.dumps(found), file=findings, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
