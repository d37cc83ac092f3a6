"""The compiled programs of a training: one run's, and that of several runs that differ in their seeds alone.

Devices share the seeds: each has entire runs, and none waits for another inside a step. A device's runs are mapped
with `vmap`, which makes their short products one, except on a CPU, where one core is busy with one run: there they
take turns, which keeps the arrays of each in its cache.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import PartitionSpec

from charlstm.config import Experiment, TrainConfig
from charlstm.core.network import Model
from charlstm.core.sharding import ROWS, Layout
from charlstm.core.step import (
    PLAIN,
    Loss,
    Metrics,
    Options,
    TrainState,
    jit_update,
    make_update,
    state_layout,
    window_layout,
)
from charlstm.data.windows import Window, WindowedText
from charlstm.runs.arrays import to_device, to_host
from charlstm.support.errors import InputError
from charlstm.training.peers import JoinedPeers, Peers

LONGEST_CHUNK = 10
"""Updates of a call: more would save little, and make a signal wait."""
_LARGEST_CHUNK = 3e10
"""Floating-point operations of a call of more than one update: about a second of a CPU core. Signals and whoever
watches the metrics wait for the end of a call."""


class OneRun:
    """One run, an update a call."""

    chunk = 1

    def __init__(
        self,
        model: Model,
        tx: optax.GradientTransformation,
        layout: Layout,
        loss: Loss,
        schedule: Any,
        options: Options = PLAIN,
    ) -> None:
        self.model, self._layout, self.row_devices = model, layout, layout.devices
        update = make_update(model.on(layout), tx, loss=loss, schedule=schedule, options=options)
        self.update = jit_update(update, layout)

    def put(self, states: Sequence[TrainState]) -> TrainState:
        """The states of the S runs, in the form that `update` takes, on the devices."""
        return jax.device_put(states[0], state_layout(self._layout))

    def windows(self, train: Any, cursor: int) -> Iterator[Window]:
        """The windows of a text from a cursor on, as `put_windows` takes them."""
        return iter(train.windows(cursor))

    def put_windows(self, windows: Iterator[Window]) -> Window | None:
        """The next K windows, on the devices; None where there are no more."""
        window = next(windows, None)
        return None if window is None else jax.device_put(window, window_layout(self._layout))

    def take(self, states: TrainState) -> list[TrainState]:
        """The inverse of `put`."""
        return [states]


class SharedRun(OneRun):
    """One run whose rows the devices of several processes share. Each cuts the windows of its own rows."""

    def __init__(self, peers: JoinedPeers, model: Model, tx: Any, layout: Layout, *how: Any) -> None:
        super().__init__(model, tx, layout, *how)
        peers.connect(layout)
        self._peers, step, whole = peers, self.update, layout.whole

        def train_step(state: TrainState, window: Window, flags: Array) -> tuple[TrainState, Metrics, Array]:
            return *step(state, window), flags.max(0)

        takes, gives = (state_layout(layout), window_layout(layout), layout.rows), (state_layout(layout), whole, whole)
        self._update = jax.jit(train_step, in_shardings=takes, out_shardings=gives, donate_argnums=0)
        self._whole_carry = jax.jit(lambda carry: carry, out_shardings=whole)
        self.update = self._update_and_tell

    def _update_and_tell(self, states: TrainState, window: Window) -> tuple[TrainState, Metrics]:
        states, metrics, flags = self._update(states, window, self._peers.flags(self._layout))
        self._peers.told(flags)
        return states, metrics

    def put(self, states: Sequence[TrainState]) -> TrainState:
        """A state that every process holds whole."""
        host, layouts = to_host(states[0]), state_layout(self._layout)
        parts = (
            jax.tree.map(partial(_put, sharding), bits, like)
            for bits, like, sharding in zip(host, states[0], layouts, strict=True)
        )
        return TrainState(*parts)

    def windows(self, train: Any, cursor: int) -> Iterator[Window]:
        """As of `OneRun`, but this process's rows alone, which are all that a text is read for."""
        if isinstance(train, WindowedText):
            return train.windows(cursor, rows=self._layout.own(train.batch_size))
        return map(self._own_rows, train.windows(cursor))

    def _own_rows(self, window: Window) -> Window:
        own = self._layout.own(len(window.inputs))
        resets = None if window.resets is None else window.resets[own]
        return Window(window.inputs[own], window.targets[own], window.starts_epoch, resets)

    def put_windows(self, windows: Iterator[Window]) -> Window | None:
        window = next(windows, None)
        if window is None:
            return None
        # A row's place follows from its process.
        put = jax.make_array_from_process_local_data
        layouts = window_layout(self._layout)._replace(resets=None if window.resets is None else self._layout.rows)
        return jax.tree.map(put, layouts, window)

    def take(self, states: TrainState) -> list[TrainState]:
        # Gloo takes two collectives of a CPU's for one where they are not waited for, as nothing orders them.
        carry = jax.block_until_ready(self._whole_carry(states.carry))
        return [jax.tree.map(lambda leaf: leaf.addressable_data(0), states._replace(carry=carry))]


def _put(sharding: Any, bits: np.ndarray, like: Any) -> Array:
    """An array from a copy of all of it in each process."""
    array = jax.make_array_from_callback(bits.shape, sharding, lambda part: bits[part])
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(array, dtype=like.dtype) if is_key else array


def lay_out(config: Experiment, options: Options) -> Layout:
    """The devices of all processes that share the rows; raises InputError where these cannot share them evenly."""
    rows = config.data.batch_size
    try:
        return Layout.of(options.shared(rows), every_process=True)
    except ValueError:
        groups, less = "", ""
        if options.accumulate > 1:
            groups, less = f" in {options.accumulate} groups", " or --train.accumulate"
        what = f"{jax.process_count()} processes cannot share the {rows:,} rows of a batch{groups} evenly"
        how = f"give another --data.batch-size{less}, or start another number of processes"
        raise InputError(f"{what}; {how}") from None


def one_run(peers: Peers, *how: Any) -> OneRun:
    """The program of one run, on the devices of all processes; `how` as `OneRun` takes it."""
    return SharedRun(peers, *how) if isinstance(peers, JoinedPeers) else OneRun(*how)


@dataclass(frozen=True)
class SeedProgram:
    """S runs that differ in their seeds alone, K updates a call; devices share the runs.

    The first axis of stacked trees is S, with fillers that give each device as many runs.
    """

    model: Model
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    runs: int
    chunk: int
    options: Options = PLAIN
    row_devices = 1

    @cached_property
    def layout(self) -> Layout:
        """Of the seeds."""
        return Layout.of(self.runs + -self.runs % jax.local_device_count())

    def put(self, states: Sequence[TrainState]) -> TrainState:
        fillers = [states[-1]] * (-self.runs % jax.local_device_count())
        return jax.device_put(jax.tree.map(lambda *parts: jnp.stack(parts), *states, *fillers), self.layout.rows)

    def windows(self, train: Any, cursor: int) -> Iterator[Window]:
        return iter(train.windows(cursor))

    def put_windows(self, windows: Iterator[Window]) -> Window | None:
        """Inputs and targets [K, B, T], starts [K]."""
        some = list(itertools.islice(windows, self.chunk))
        if len(some) < self.chunk:
            return None
        return jax.device_put(jax.tree.map(lambda *parts: np.stack(parts), *some), self.layout.whole)

    def take(self, states: TrainState) -> list[TrainState]:
        """Each on the first device.

        They go through the host: on a CPU a program that gathers them from all devices can wait for itself for good,
        where its parts on some devices hold the threads that those on others need.
        """
        host = to_host(states)
        return [to_device(jax.tree.map(lambda bits, at=run: bits[at], host), states) for run in range(self.runs)]

    @cached_property
    def update(self) -> Any:
        """Maps states, which it donates, and windows to the states after K updates and metrics [S, K]."""
        layout = self.layout
        update = make_update(self.model, self.tx, schedule=self.schedule, options=self.options)

        def train_seeds(states: TrainState, windows: Window) -> tuple[TrainState, Metrics]:
            def one(state: TrainState) -> tuple[TrainState, Metrics]:
                return lax.scan(update, state, windows)

            take_turns = self.runs == 1 or layout.mesh.devices.flat[0].platform == "cpu"
            return lax.map(one, states) if take_turns else jax.vmap(one)(states)

        shared: Any = train_seeds
        if layout.devices > 1:
            rows, whole = PartitionSpec(ROWS), PartitionSpec()
            shared = jax.shard_map(
                train_seeds, mesh=layout.mesh, in_specs=(rows, whole), out_specs=rows, check_vma=False
            )
            shared.__name__ = train_seeds.__name__
        return jax.jit(shared, in_shardings=(layout.rows, layout.whole), out_shardings=layout.rows, donate_argnums=0)


Program = OneRun | SeedProgram


def chunk_of(config: TrainConfig, start: int = 0, operations: float = 0) -> int:
    """The most updates, of so many operations each, that divide a training, its intervals and the step it starts at."""
    every = math.gcd(config.steps, config.validate_every, config.checkpoint_every, config.sample_every, start)
    most = min(LONGEST_CHUNK, _LARGEST_CHUNK // max(operations, 1))
    return max(count for count in range(1, LONGEST_CHUNK + 1) if count == 1 or (count <= most and every % count == 0))
