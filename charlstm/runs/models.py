"""A config as a model that this machine can hold, and its state before training."""

from collections.abc import Callable
from dataclasses import replace

import jax
import optax

from charlstm.config import Experiment
from charlstm.core.cells import BUILT_IN
from charlstm.core.fast.native import bind
from charlstm.core.network import Model
from charlstm.core.optimizer import make_optimizer
from charlstm.core.sharding import Layout
from charlstm.core.size import count_parameters
from charlstm.core.step import Options, TrainState, init_state
from charlstm.runs.folder import Run
from charlstm.support import native, process
from charlstm.support.errors import InputError
from charlstm.support.process import memory


def prepare(start: bool = True, tell: Callable[[str], None] = lambda line: None) -> None:
    """To be called before anything runs on a device: XLA keeps what it compiled for the next process, and its memory.

    The platform's cache folder is used, unless `JAX_COMPILATION_CACHE_DIR` names another;
    `JAX_ENABLE_COMPILATION_CACHE=0` turns the cache off. Unless `start` is False, devices begin to work now, on a CPU
    with the native core, of which `tell` gets a line if it has to be compiled or cannot be. Raises InputError where
    devices, or what the environment asks of JAX, cannot be had.
    """
    process.prepare(start, tell)
    bind(native.library())


def make_model(config: Experiment, vocabulary_size: int, states: int = 1, backend: str | None = None) -> Model:
    """The model of a config; raises InputError where it cannot run here, or memory cannot hold its training states.

    A run goes on with the `backend` that it began with, where recurrence auto may mean it; None for a new one.
    """
    if jax.devices()[0].platform == "cpu":  # others have no use for it, and need not wait for a compiler
        bind(native.set_up())
    try:
        model = Model(config.model, vocabulary_size)
    except ValueError as error:
        raise InputError(str(error)) from None
    if config.model.recurrence == "auto" and model.backend == "native" and backend in ("fast", ""):
        model = replace(model, backend="fast")
    if config.model.cell in BUILT_IN:  # before anything is made: a stranger's config may ask for terabytes
        check_memory(config, vocabulary_size, states)
    return model


def other_backend(run: Run, model: Model) -> list[str]:
    """A line if a run goes on with another backend than it began with."""
    if run.backend in (model.backend, ""):
        return []
    return [f"this run began with backend {run.backend} and goes on with {model.backend}: last bits may differ"]


def first_state(
    config: Experiment, model: Model, tx: optax.GradientTransformation | None = None, average: bool | None = None
) -> TrainState:
    """The state before the first update; `tx` and `average` take the place of what the config says of them."""
    chain = tx or make_optimizer(config.optimizer, config.train.steps)
    average = config.optimizer.average > 0 if average is None else average
    return init_state(model, chain, config.data.batch_size, config.seed, average=average)


def chain_of(config: Experiment, layout: Layout) -> optax.GradientTransformation:
    """The optimizer of a run on devices that lie so."""
    return make_optimizer(config.optimizer, config.train.steps, layout.own_mesh)


def options_of(config: Experiment) -> Options:
    """How updates are made."""
    return Options(config.optimizer.average, config.train.accumulate, config.train.deterministic_sums)


def check_memory(config: Experiment, vocabulary_size: int, states: int = 1) -> None:
    """Raises InputError if this machine has less memory than so many training states, which pass through the host."""
    model = config.model
    carry = config.data.batch_size * model.hidden_size * model.num_layers * (2 if model.cell == "lstm" else 1)
    count = count_parameters(model, vocabulary_size)
    copies = 3 + (config.optimizer.average > 0)  # Adam keeps two moments of each parameter
    needed = 4 * (copies * count + carry) * states
    if needed > memory():
        needs = f"{needed / 2**30:,.1f} GiB{f' for {states} states of it' if states > 1 else ''}"
        raise InputError(
            f"a model of {count:,} parameters with {config.data.batch_size:,} rows needs {needs}, and this machine has"
            f" {memory() / 2**30:,.1f}; lower model.hidden_size, model.num_layers or data.batch_size"
        )
