"""How fast charlstm is on this device: against PyTorch, by backend, with many seeds, and in a run."""

import json
import runpy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import inputs, memory, report, rounds
from benchmarks.aim import ROOT
from benchmarks.card import Asked, Finding
from benchmarks.card.laws import SOURCES
from benchmarks.contenders import BASELINE
from benchmarks.rows import Amounts, Row, Task, make_row
from benchmarks.shapes import BOOK, SMALL, Size
from charlstm.support.files import one_line

SIZES = {"book": BOOK, "long": Size(16, 1024, 768, 1), "wide": Size(256, 128, 1024, 2), "small": SMALL}
SEEDS = 8
_TURNS, _TURN = 5, 0.3  # seconds


def size_of(name: str, rehearse: bool) -> Size:
    """The size of a name; a rehearsal's is as deep, and narrow."""
    size = SIZES[name]
    return Size(8, 16, size.hidden // 16, size.layers) if rehearse else size


def training(name: str, asked: Asked) -> Iterator[Finding]:
    """Training steps of one size by every backend and PyTorch: what `auto` should mean, and what memory they take."""
    yield from _measured([("train", size_of(name, asked.rehearse), [*_ours(asked), BASELINE, "charlstm-plain"])], asked)


def _names(asked: Asked) -> tuple[str, ...]:
    return ("book",) if asked.rehearse else ("book", "long", "wide")


def evaluation(asked: Asked) -> Iterator[Finding]:
    """Windows of three sizes; of one in a rehearsal."""
    ours = [*_ours(asked), BASELINE]
    rows: Any = [("eval", size_of(name, asked.rehearse), ours) for name in _names(asked)]
    yield from _measured(rows, asked)


def sampling(asked: Asked) -> Iterator[Finding]:
    """One text from each of those, and many from the first. cuDNN's fused steps cannot help here."""
    rows: Any = [("sample", size_of(name, asked.rehearse), ["charlstm-fast", BASELINE]) for name in _names(asked)]
    rows.insert(1, ("sample64", rows[0][1], rows[0][2]))
    yield from _measured(rows, asked)


def _ours(asked: Asked) -> list[str]:
    return ["charlstm-fast"] if asked.rehearse else ["charlstm-fast", "charlstm-cudnn"]


def _measured(wanted: Sequence[tuple[Task, Size, list[str]]], asked: Asked) -> Iterator[Finding]:
    """Rows whose contenders are all alive together, as starting them takes longer than their turns."""
    amounts = Amounts(turn_seconds=0.05, length=40, streams=4) if asked.rehearse else Amounts(turn_seconds=0.5)
    rows: list[Row] = [make_row(task, size, names, [], amounts) for task, size, names in wanted]
    jobs = [job for row in rows for job in row.jobs]
    measured = iter(rounds.measure(jobs, amounts.rounds, amounts.turn_seconds, asked.deadline))
    for row in rows:
        starts = [list(islice(measured, len(row.jobs)))]
        yield {"markdown": report.rate_table(row, starts, markdown=True), **report.to_json(row, starts)}


def layer(asked: Asked) -> Iterator[Finding]:
    """Forward and backward of one layer over dense inputs [T, B, H], with the gradient of all that it reads.

    It is what FlashRNN's plots show of cuDNN through PyTorch (Pöppel et al. 2024): see `layer_of_pytorch`.
    """
    import jax
    import jax.numpy as jnp

    from charlstm.core.cells import BUILT_IN
    from charlstm.core.fast import cudnn
    from charlstm.core.fast.loop import FusedLayer, run_layer

    size = size_of("long", asked.rehearse)
    keys, shape = jax.random.split(jax.random.key(0), 4), (size.time, size.batch, size.hidden)
    x, grad = (jax.random.normal(each, shape) for each in keys[:2])
    kernels = [jax.random.normal(each, (size.hidden, 4 * size.hidden)) / size.hidden**0.5 for each in keys[2:]]
    parameters, zeros = (*kernels, jnp.zeros(4 * size.hidden)), jnp.zeros((size.batch, size.hidden))

    def fast(dtype: Any, x: Any, parameters: Any) -> Any:
        kernel, recurrent, bias = parameters
        layer = FusedLayer(kernel, recurrent, bias, None)
        return run_layer(BUILT_IN["lstm"], layer, x, (zeros, zeros), None, dtype, True)[0]

    def by_cudnn(x: Any, parameters: Any) -> Any:
        kernel, recurrent, bias = parameters
        return cudnn.run_lstm(x, kernel, recurrent, bias, (zeros, zeros))[0]

    ways: dict[tuple[str, str], Callable[..., Any]] = {
        ("fast", "bfloat16"): partial(fast, jnp.bfloat16),
        ("fast", "TF32"): partial(fast, None),
    }
    for (backend, products), run in (ways if asked.rehearse else ways | {("cudnn", "TF32"): by_cudnn}).items():

        def loss(x: Any, parameters: Any, run: Any = run) -> Any:
            return (run(x, parameters) * grad).sum()

        both = jax.jit(jax.grad(loss, (0, 1)))
        found = {"by": f"charlstm, {backend}", "products": products, "ms": None, "error": None}
        try:
            yield found | {"ms": 1e3 * _time(lambda both=both: jax.block_until_ready(both(x, parameters)))}
        except Exception as error:
            yield found | {"error": one_line(f"{type(error).__name__}: {error}")}


def layer_of_pytorch(asked: Asked) -> Iterator[Finding]:
    """The same by `torch.nn.LSTM`, in a process of its own, as each library brings its own CUDA libraries."""
    import torch  # pyright: ignore[reportMissingImports]

    size, device = size_of("long", asked.rehearse), "cuda" if torch.cuda.is_available() else "cpu"
    for products, dtype in (("bfloat16", torch.bfloat16), ("TF32", torch.float32)):
        lstm = torch.nn.LSTM(size.hidden, size.hidden).to(device, dtype)
        shape = size.time, size.batch, size.hidden
        x, grad = (torch.randn(shape, device=device, dtype=dtype, requires_grad=each) for each in (True, False))

        def run(lstm: Any = lstm, x: Any = x, grad: Any = grad) -> None:
            for each in (x, *lstm.parameters()):
                each.grad = None
            lstm(x)[0].backward(grad)
            if device == "cuda":
                torch.cuda.synchronize()

        yield {"by": "PyTorch, nn.LSTM", "products": products, "ms": 1e3 * _time(run), "error": None}


def seeds(asked: Asked) -> Iterator[Finding]:
    """Updates of one run and of eight in one program, as `charlstm compare` trains them."""
    from benchmarks.contenders.charlstm_ import OPTIMIZER
    from charlstm.core.network import Model
    from charlstm.core.optimizer import learning_rate, make_optimizer
    from charlstm.core.step import init_state
    from charlstm.data.windows import Window
    from charlstm.runs.models import prepare
    from charlstm.training.seeds import LONGEST_CHUNK, SeedProgram

    prepare()
    size = size_of("small", asked.rehearse)
    model, tx = Model(size.model, size.vocabulary), make_optimizer(OPTIMIZER, 1)

    def updates(runs: int) -> Callable[[], None]:
        program = SeedProgram(model, tx, learning_rate(OPTIMIZER, 1), runs, LONGEST_CHUNK)
        states: Any = program.put([init_state(model, tx, size.batch, seed) for seed in range(runs)])
        windows = program.put_windows(Window(*each, np.bool_(False)) for each in inputs.windows(size))

        def run() -> None:
            nonlocal states
            states, metrics = program.update(states, windows)
            metrics.loss.block_until_ready()

        return run

    one, together = (_time(updates(runs)) / LONGEST_CHUNK for runs in (1, SEEDS))
    found = {"size": str(size), "ms of one seed": 1e3 * one, f"ms of {SEEDS} seeds": 1e3 * together}
    yield found | {"times one": together / one}


def run_h100(asked: Asked) -> Iterator[Finding]:
    """`experiments/h100.py` for 200 steps, with its checkpoint and its exact validation loss at the end."""
    from charlstm.runs.models import prepare
    from charlstm.training.train import train

    prepare()
    config = runpy.run_path(str(ROOT / "experiments" / "h100.py"))["CONFIG"]
    config = replace(
        config,
        data=replace(config.data, corpus=asked.corpus or SOURCES),
        train=replace(config.train, steps=200, tensorboard=False),
    )
    if asked.rehearse:
        config = replace(
            config,
            data=replace(config.data, batch_size=8, seq_length=16, validation_fraction=0.01),
            model=replace(config.model, hidden_size=16),
        )
    with TemporaryDirectory(prefix="charlstm-card-") as name:
        began = perf_counter()
        train(config, Path(name, "run"))
        took = perf_counter() - began
        lines = [json.loads(line) for line in Path(name, "run", "metrics.jsonl").read_text().splitlines()]
    steps = [each for each in lines if "split" not in each]
    speed, peak = median(each["chars_per_second"] for each in steps), memory.peak()
    data = config.data
    yield {
        "steps": len(steps),
        "ms a step": 1e3 * data.batch_size * data.seq_length / speed,
        "characters/s": speed,
        "first loss": steps[0]["loss"],
        "last loss": steps[-1]["loss"],
        "validation loss": next(each["loss"] for each in lines if "split" in each),
        "seconds in all": took,
        "peak MB": peak and peak / 1e6,
    }


def _time(run: Callable[[], Any]) -> float:
    """Seconds of the median run of a few turns, after two that compile and warm up."""
    run()
    began = perf_counter()
    run()
    times = max(round(_TURN / (perf_counter() - began)), 1)
    found = []
    for _ in range(_TURNS * times):
        began = perf_counter()
        run()
        found.append(perf_counter() - began)
    return median(found)
