"""Several runs of one config that differ in their seeds alone train in one program: their states are stacked along S.

Where there are devices enough, they share the seeds: each has whole runs, and none waits for another inside of a step.
Fewer runs than devices share out the rows of each batch instead, as a run alone does. A device's runs are mapped with
`vmap`, which makes their short products one, but on a CPU, where one core is busy with one run: there they take turns,
which keeps the arrays of each in its cache.

A call reads a chunk of K windows, so that a device goes on from update to update without being asked to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec

from charlstm.config import Experiment, TrainConfig
from charlstm.core.fast import cudnn
from charlstm.core.network import Model
from charlstm.core.sharding import ROWS, Layout
from charlstm.core.step import Metrics, TrainState, initial_state, make_update, state_layout, window_layout
from charlstm.data.windows import Batches, Window
from charlstm.runs.arrays import to_device, to_host

LONGEST_CHUNK = 10
"""Updates of a call: more would save little, and make a signal wait."""


@dataclass(frozen=True)
class Together:
    """S runs of one model, and where their states lie. Stacked trees have S, and fillers behind it, as first axis."""

    configs: tuple[Experiment, ...]
    """Of the runs; their seeds differ, and nothing else."""
    vocabulary_size: int

    @property
    def model(self) -> Model:
        """Of all the runs; JAX cannot map cuDNN over seeds, so charlstm's own loop takes its place."""
        config = self.configs[0].model
        mapped = len(self.configs) > 1 and cudnn.settled(config) == "cudnn"
        return Model(replace(config, recurrence="fast") if mapped else config, self.vocabulary_size)

    @property
    def share_seeds(self) -> bool:
        """Whether devices share the runs rather than the rows of a batch."""
        return len(self.configs) >= jax.local_device_count()

    @property
    def stacked(self) -> int:
        """S with the fillers that give each device as many runs."""
        runs = len(self.configs)
        return runs + -runs % jax.local_device_count() if self.share_seeds else runs

    @property
    def layout(self) -> Layout:
        """Of the seeds where devices share those, else of the rows."""
        return Layout.of(self.stacked if self.share_seeds else self.configs[0].data.batch_size)

    @property
    def chunk(self) -> int:
        """K: the most updates up to `LONGEST_CHUNK` after whose multiples alone something is due."""
        return chunk_of(self.configs[0].train)

    def initial(self) -> TrainState:
        """The stacked states before the first update, to the bit those of each run alone, on the first device."""
        states = [initial_state(config, self.model) for config in self.configs]
        return jax.tree.map(lambda *parts: jnp.stack(parts), *states)

    @property
    def row_devices(self) -> int:
        """How many devices share the rows of one run, and with it the order of its sums."""
        return 1 if self.share_seeds else self.layout.devices

    def put(self, states: TrainState) -> TrainState:
        """The states of S runs from the first device, with fillers and on all devices."""

        def fill(part: Array) -> Array:
            missing = self.stacked - len(part)
            return jnp.concatenate([part, jnp.repeat(part[-1:], missing, 0)]) if missing else part

        return jax.device_put(jax.tree.map(fill, states), self._states())

    def real(self, states: TrainState) -> TrainState:
        """The states without the fillers, which depend on how many devices there are, on the first device."""
        return to_device(jax.tree.map(lambda bits: bits[: len(self.configs)], to_host(states)), states)

    def windows(self, batches: Batches, cursor: int) -> Window:
        """The K windows from a cursor on, on the devices: inputs and targets [K, B, T], starts [K]."""
        windows = [batches.window(at) for at in range(cursor, cursor + self.chunk)]
        stacked: Any = [np.stack(parts) for parts in zip(*windows, strict=True)]
        return jax.device_put(Window(*stacked), self._windows())

    def make_steps(self) -> Callable[[TrainState, Window], tuple[TrainState, Metrics]]:
        """K jitted updates of every run. It donates the states, and gives metrics [S, K]."""
        alone = Layout.of(1) if self.share_seeds else self.layout
        update = make_update(self.configs[0], self.model, alone)

        def train_seeds(states: TrainState, windows: Window) -> tuple[TrainState, Metrics]:
            def one(state: TrainState) -> tuple[TrainState, Metrics]:
                return lax.scan(update, state, windows)

            take_turns = len(self.configs) == 1 or self.layout.mesh.devices.flat[0].platform == "cpu"
            return lax.map(one, states) if take_turns else jax.vmap(one)(states)

        shared: Any = train_seeds
        if self.share_seeds and self.layout.devices > 1:
            rows, whole = PartitionSpec(ROWS), PartitionSpec()
            shared = jax.shard_map(
                train_seeds, mesh=self.layout.mesh, in_specs=(rows, whole), out_specs=rows, check_vma=False
            )
            shared.__name__ = train_seeds.__name__
        states, metrics = self._states(), self.layout.rows if self.share_seeds else self.layout.whole
        return jax.jit(
            shared, in_shardings=(states, self._windows()), out_shardings=(states, metrics), donate_argnums=0
        )

    def _states(self) -> Any:
        if self.share_seeds:
            return self.layout.rows
        return jax.tree.map(_behind_first, state_layout(self.layout), is_leaf=lambda each: each is None)

    def _windows(self) -> Any:
        if self.share_seeds:
            return self.layout.whole
        rows, _, whole = window_layout(self.layout)
        return Window(_behind_first(rows), _behind_first(rows), whole)  # pyright: ignore[reportArgumentType]


def chunk_of(config: TrainConfig) -> int:
    """The most updates up to `LONGEST_CHUNK` that divide a training and all its intervals."""
    every = math.gcd(config.steps, config.validate_every, config.checkpoint_every, config.sample_every)
    return max(count for count in range(1, LONGEST_CHUNK + 1) if every % count == 0)


@jax.jit
def keep_better(best: TrainState, states: TrainState, better: Array) -> TrainState:
    """The states where `better`, [S], else those that were the best before."""

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, states, best)


def unstacked(states: Any, runs: int) -> list[Any]:
    """The trees of the first runs among stacked ones, each on the first device.

    They go through the host: on a CPU a program that gathers them from all devices can wait for itself for good, where
    its parts on some devices hold the threads that those on others need.
    """
    host = to_host(states)
    return [to_device(jax.tree.map(lambda bits, at=run: bits[at], host), states) for run in range(runs)]


def _behind_first(sharding: NamedSharding | None) -> NamedSharding | None:
    """Where an array lies that has one more axis in front."""
    return None if sharding is None else NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
