"""Run the parts one after the other; see the package's docstring."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import machine
from benchmarks.aim import environment
from benchmarks.card.page import failures, judge, render_page, render_part, table
from benchmarks.card.parts import PARTS
from benchmarks.command import Parser, check_writable, checked, interruptible, names
from charlstm.support.errors import InputError
from charlstm.support.files import one_line

_ON_A_GPU = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # processes share the memory of the card
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",  # products of PyTorch's too run in TF32, as JAX's do by default
}
_PATIENCE = 6
"""A rehearsal is not for its times, and its machine may be busy: its parts may take so many times as long."""
_REHEARSED = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "CHARLSTM_NATIVE": "off"}


def main(words: Sequence[str]) -> int:
    """Measure, print and write; the exit code, 1 where a part failed or an aim was missed."""
    asked = _parser().parse_args(words)
    try:
        for path in (asked.out, asked.out.with_suffix(".md")):
            check_writable("--out", path)
        if asked.out.suffix == ".md":
            raise InputError(f"--out {asked.out} is the name of the Markdown; give one that ends in .json")
        results = _run(asked, words)
    except InputError as error:
        print(f"python -m benchmarks.card: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(results['aims'])}\n\n{asked.out} and {asked.out.with_suffix('.md')} have all of it")
    failed = any(map(failures, results["parts"].values())) or any(aim["met"] is False for aim in results["aims"])
    return 1 if failed else 0


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.card", description="The first ten minutes on a GPU.")
    parser.add_argument("--rehearse", action="store_true", help="all of it on the CPU, in small: nothing is measured")
    parts = checked(partial(names, known=PARTS, what="part"))
    parser.add_argument("--only", type=parts, metavar="PARTS", help=f"some of {','.join(PARTS)}")
    corpus = "what experiments/h100.py trains on, as for --data.corpus; by default charlstm's own source"
    parser.add_argument("--corpus", help=corpus)
    out = "where the figures are written, and beside it a page in Markdown; by default card.json"
    parser.add_argument("--out", type=Path, default=Path("card.json"), help=out)
    return parser


def _run(asked: Any, words: Sequence[str]) -> dict[str, Any]:
    """Everything that was found; both files are written after each part."""
    command = shlex.join(["python", "-m", "benchmarks.card", *words])
    results: dict[str, Any] = {"command": command, "machine": machine.describe(), "rehearsal": asked.rehearse}
    results |= {"parts": {}, "aims": []}
    left = 0.0
    with TemporaryDirectory(prefix="charlstm-card-") as compiled:
        for name, part in PARTS.items():
            if asked.only is not None and name not in ("device", *asked.only):
                continue
            limit = part.seconds * (_PATIENCE if asked.rehearse else 1) + left
            print(f"\n{part.title} (at most {limit:.0f} s)\n", flush=True)
            told = _part(name, limit, asked, Path(compiled))
            left = max(limit - told["seconds"], 0)
            if name == "device" and not asked.rehearse:
                _check_gpu(told)
            results["parts"][name] = told
            results["aims"] = judge(results)
            asked.out.write_text(json.dumps(results, indent=1) + "\n")
            asked.out.with_suffix(".md").write_text(render_page(results))
            print("\n\n".join(render_part(told)), flush=True)
    return results


def _part(name: str, seconds: float, asked: Any, compiled: Path) -> dict[str, Any]:
    """One part, in a process that is ended with all that it started: what it found, and why not more."""
    words = [sys.executable, "-m", "benchmarks.card.parts", name, f"{seconds:.0f}"]
    words += ["--rehearse"] * asked.rehearse + (["--corpus", asked.corpus] if asked.corpus else [])
    began = time.monotonic()
    process = subprocess.Popen(
        words,
        env=_environment(name, compiled, rehearse=asked.rehearse),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = False
    try:
        out, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
        _end(process)
        out, said = process.communicate()
    finally:
        _end(process)
    error = f"it was ended after {seconds:.0f} s" if late else _failure(process.returncode, said)
    found = []
    for line in out.splitlines():
        with suppress(ValueError):  # the last may be torn
            found.append(json.loads(line))
    return {"seconds": time.monotonic() - began, "error": error, "found": found}


def _environment(name: str, compiled: Path, *, rehearse: bool) -> dict[str, str]:
    one = {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    }  # charlstm uses all it sees
    given = environment(compiled) | (_REHEARSED if rehearse else _ON_A_GPU | one)
    added = PARTS[name].environment
    flags = " ".join(filter(None, (given.get("XLA_FLAGS"), added.get("XLA_FLAGS"))))
    return given | added | ({"XLA_FLAGS": flags} if flags else {})


def _end(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _failure(code: int, said: str) -> str | None:
    """Why a process ended so; None where all was well."""
    if code == 0:
        return None
    last = one_line((said.strip().splitlines() or [""])[-1])
    return f"it died of {signal.Signals(-code).name}: {last}" if code < 0 else last or f"it ended with exit code {code}"


def _check_gpu(told: dict[str, Any]) -> None:
    """Raises InputError where there is no card to measure."""
    if told["error"]:
        raise InputError(f"JAX cannot start: {told['error']}; --rehearse runs all parts on the CPU")
    if (platform := told["found"][0]["platform"]) not in ("gpu", "cuda", "rocm"):
        raise InputError(f"JAX sees no GPU here, but {platform}; --rehearse runs all parts on the CPU")


if __name__ == "__main__":
    sys.exit(interruptible(main, sys.argv[1:]))
