"""Memory and speed of a training: on a very large text, and over a long time."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from scipy.stats import linregress

from benchmarks import memory
from benchmarks.aim import command, environment
from charlstm.config import Experiment
from charlstm.support.errors import InputError

_MB = 10**6
_LETTERS = {
    "ascii": "",
    "curly quotes": "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}",
    "an emoji": "\N{GRINNING FACE}",
}
"""Texts by what is in them beside ASCII: a Python string takes 1, 2 or 4 bytes for each of its characters."""
_WARM_UP = 300.0
_BLOCK = 300.0


def large_texts(folder: Path, megabytes: int, *, cached: bool = False) -> dict[str, Any]:
    """Trains the default model on texts of so many MB, and on one of 1 MB for the memory that is the model's own.

    Where `cached`, their ids are read from a file, and the first step is compared with `sha256sum` of the text.
    """
    words = ["--data.cache", "True", "--data.validation-fraction", "0.0001"] if cached else []
    found = dict[str, Any]()
    for kind, letters in _LETTERS.items():
        small, large = folder / "small.txt", folder / "large.txt"
        _write(small, 1, letters)
        _write(large, megabytes, letters)
        own, _ = _train(small, folder / f"{kind}, small", words)
        summing = time.perf_counter()
        if cached:
            subprocess.run(["sha256sum", large], stdout=subprocess.DEVNULL, check=True)
        summing = time.perf_counter() - summing
        peak, first = _train(large, folder / f"{kind}, large", words)
        size = large.stat().st_size
        found[kind] = {"bytes": size, "times its size": (peak - own) / size, "seconds to the first step": first}
        found[kind] |= {"peak bytes": peak, "peak bytes on 1 MB": own}
        found[kind] |= {"seconds of sha256sum": summing} if cached else {}
        print(f"{kind}: {found[kind]['times its size']:.2f} times, first step after {first:.1f} s", file=sys.stderr)
        large.unlink()
        shutil.rmtree(folder / "cache", ignore_errors=True)
    return found


def long_run(folder: Path, minutes: float) -> dict[str, Any]:
    """Trains the default config for so long, and looks how memory and speed go on.

    Raises:
        InputError: it is too short for that.
        RuntimeError: the training ended by itself.
    """
    if minutes < 20:
        raise InputError(
            "speed over time needs two blocks of five minutes after the warm-up; use at least --minutes 20"
        )
    words = ["--train.steps", "100000000", "--train.sample-every", "400", "--run-dir", str(folder / "long")]
    samples, began = list[tuple[float, float]](), time.perf_counter()
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command("train", *words), env=environment(folder / "compiled"), stdout=subprocess.DEVNULL, stderr=log
        )
        try:
            while (now := time.perf_counter() - began) < minutes * 60:
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(f"the training ended: {log.read()}")
                if (resident := memory.resident(process.pid)) is not None:
                    samples.append((now, resident))
                time.sleep(5)
        finally:
            process.terminate()
            process.wait()
    lines = [json.loads(line) for line in (folder / "long" / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "split" not in line]
    return {"minutes": minutes, "steps": rows[-1]["step"], **_memory(samples), **_speed(rows)}


def _memory(samples: list[tuple[float, float]]) -> dict[str, Any]:
    """MB after the warm-up, and how they grow."""
    warm = [each for each in samples if each[0] >= min(_WARM_UP, samples[-1][0] / 2)]
    minutes, megabytes = np.array(warm).T / [[60], [_MB]]
    fit: Any = linregress(minutes, megabytes)
    return {"MB": float(np.median(megabytes)), "MB a minute": fit.slope, "standard error": fit.stderr}


def _speed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Characters a second in each whole block of five minutes of steps but the first."""
    data = Experiment().data
    symbols = data.batch_size * data.seq_length
    seconds = symbols / np.array([row["chars_per_second"] for row in rows])
    number = np.cumsum(seconds) // _BLOCK
    speeds = np.array([symbols / seconds[number == each].mean() for each in np.arange(1, number[-1])])
    whole = float(np.median(speeds))
    return {
        "characters a second": whole,
        "blocks": speeds.tolist(),
        "largest deviation": float(np.abs(speeds / whole - 1).max()),
        "last to first": float(speeds[-1] / speeds[0]),
    }


def _write(path: Path, megabytes: int, letters: str) -> None:
    """A text of words of random letters; the rare letters are in each MB."""
    random = np.random.default_rng(0)
    piece = bytes(random.choice(np.frombuffer(b"etaoin shrdlu\n", np.uint8), _MB - len(letters.encode())))
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(letters.encode() + piece)


def _train(text: Path, folder: Path, more: Sequence[str]) -> tuple[int, float]:
    """Peak bytes of a training of a few steps with a validation at its end, and seconds to its first step.

    Nothing is compiled before.
    """
    words = ["--data.corpus", str(text), "--run-dir", str(folder), "--train.steps", "20", "--sample.prime", "the "]
    words += more
    cache = {"XDG_CACHE_HOME": str(folder.parent / "cache")} if more else {}  # so that ids go with the folder
    began, first = time.perf_counter(), float("nan")
    process = subprocess.Popen(
        command("train", *words),
        # Each compiles, which takes memory too.
        env=environment(folder.with_name(f"{folder.name}, compiled")) | cache,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("step 1 of"):
            first = time.perf_counter() - began
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the training failed: {''.join(said)}")
    return usage.ru_maxrss * 1024, first
