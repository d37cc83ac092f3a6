"""Whether charlstm's laws hold on this device: every backend has the equations' gradient, and a killed run's bits."""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import inputs, parity
from benchmarks.aim import ROOT
from benchmarks.card import Asked, Finding
from benchmarks.shapes import Size
from charlstm.config import DataConfig, Experiment, ModelConfig, TrainConfig
from charlstm.support.files import one_line

SOURCES = str(ROOT / "charlstm" / "**" / "*.py")
"""A text that every checkout has."""
BOUNDS = {"float32": 1e-5, "TF32": 16 * 2.0**-11, "bfloat16": 16 * 2.0**-8}
"""How far a gradient may be off, relative to its norm: law 4's bound, and 16 roundings of a factor to 11 or 8 bits."""
_PRECISIONS = {"float32": "highest", "TF32": None, "bfloat16": None}
"""`jax_default_matmul_precision`; None is JAX's default, which is TF32 on a GPU that has it."""
_STEPS, _EVERY, _KILLED = 40, 10, 27


def gradients(asked: Asked) -> Iterator[Finding]:
    """Law 4: each backend's loss and gradient against those of the equations in NumPy float64, which share no code."""
    import jax

    from benchmarks.contenders.charlstm_ import to_weights
    from charlstm.core.network import Model

    size = Size(8, 16, 32, 2) if asked.rehearse else Size(16, 32, 256, 2)
    rng = np.random.default_rng(0)
    carry = rng.uniform(-0.5, 0.5, (size.layers, 2, size.batch, size.hidden)).astype(np.float32)  # c and h
    ids, targets = next(inputs.windows(size))
    params = Model(size.model, size.vocabulary).init(jax.random.key(0))
    weights = [each.astype(np.float64) for each in to_weights(params)]
    loss, grads, _ = parity.gradient(weights, ids, targets, carry.astype(np.float64))
    backends = ("fast", "plain") if asked.rehearse else ("fast", "plain", "cudnn")
    for backend, precision in product(backends, _PRECISIONS):
        if precision == "bfloat16" and backend != "fast":  # cuDNN and Flax's cells have none
            continue
        found: Finding = {"backend": backend, "products": precision, "gradient off by": None}
        found |= {"loss off by": None, "at most": BOUNDS[precision], "error": None}
        try:
            dtype = "bfloat16" if precision == "bfloat16" else "float32"
            model = Model(replace(size.model, recurrence=backend, dtype=dtype), size.vocabulary)
            with jax.default_matmul_precision(_PRECISIONS[precision]):
                value, got = jax.jit(jax.value_and_grad(partial(_loss, model)))(
                    params, ids, targets, tuple(map(tuple, carry))
                )
            found["gradient off by"] = _off(to_weights(got), grads)
            found["loss off by"] = abs(float(value) - loss)
        except Exception as error:  # of one backend alone
            found["error"] = one_line(f"{type(error).__name__}: {error}")
        yield found


def _loss(model: Any, params: Any, ids: Any, targets: Any, carry: Any) -> Any:
    from charlstm.core.loss import mean_nats

    return mean_nats(model.apply(params, ids, carry)[0], targets)


def _off(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The norm of the difference, relative to that of what is wanted."""
    squares = [(np.square(a - b).sum(), np.square(b).sum()) for a, b in zip(found, wanted, strict=True)]
    different, whole = np.sum(squares, axis=0)
    return float(np.sqrt(different / whole))


def resuming(asked: Asked) -> Iterator[Finding]:
    """Law 5: a run that was killed and continued has the bits of one that was left alone, in processes of their own."""
    backends = ("fast",) if asked.rehearse else ("fast", "cudnn")
    with ThreadPoolExecutor() as pool:  # each backend's processes wait for their own alone
        yield from pool.map(partial(_resume, asked.rehearse), backends)


def _resume(rehearse: bool, backend: str) -> Finding:
    processes, codes = multiprocessing.get_context("spawn"), list[int | None]()
    with TemporaryDirectory(prefix="charlstm-card-") as name:
        whole, killed = Path(name, "whole"), Path(name, "killed")
        for runs in ([(whole, None), (killed, _KILLED)], [(killed, None)]):
            began = [processes.Process(target=train_small, args=(*each, backend, rehearse)) for each in runs]
            for each in began:
                each.start()
            for each in began:
                each.join()
            codes += [each.exitcode for each in began]
        bits = [path.read_text() if path.exists() else None for path in (whole / "bits", killed / "bits")]
    found: Finding = {"backend": backend, "killed after step": _KILLED, "of": _STEPS}
    if codes != [0, -signal.SIGKILL, 0]:
        return found | {"same bits": None, "error": f"the three processes ended with {codes}"}
    return found | {"same bits": bits[0] == bits[1], "error": None}


def train_small(folder: Path, killed: int | None, backend: Any, rehearse: bool) -> None:
    """Trains a small run, or goes on with it, and leaves a hash of its last state; or kills itself after a step."""
    import jax

    from charlstm.runs.arrays import to_host
    from charlstm.runs.models import prepare
    from charlstm.training.train import train

    prepare()
    model = ModelConfig(hidden_size=16 if rehearse else 256, num_layers=2, dropout=0.5, recurrence=backend)
    steps = TrainConfig(steps=_STEPS, validate_every=0, checkpoint_every=_EVERY, tensorboard=False)
    experiment = Experiment(data=DataConfig(corpus=SOURCES), model=model, train=steps)

    def kill(step: int, *_: Any) -> None:
        if step == killed:
            os.kill(os.getpid(), signal.SIGKILL)

    state = train(experiment, folder, callbacks=[kill])
    bits = b"".join(leaf.tobytes() for leaf in jax.tree.leaves(to_host(state)))
    (folder / "bits").write_text(hashlib.sha256(bits).hexdigest())
