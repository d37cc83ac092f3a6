"""The processes of one training. Process 0, the leader, has the run's folder; the others, if there are any, compute.

All of them take the same turns: where one cannot go on, all end with what it says, and none waits for it.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax._src import distributed  # public JAX has no barrier that waits longer

from charlstm.core.sharding import Layout
from charlstm.runs import arrays
from charlstm.support.errors import InputError, Interrupted, TrainingError
from charlstm.support.files import one_line
from charlstm.training import star
from charlstm.training.signals import Received

_SLOW = 0.5
"""Seconds of a call from which on the next is begun after its metrics are read: devices wait for the host, which takes
no time beside that, and people and signals do not wait for another call."""
_MEETINGS = itertools.count()
_DAY = 86_400_000
"""In milliseconds: a process that is lost, and for which there is no use to wait, is noticed otherwise."""


class Peers:
    """A process that trains alone: the leader of none."""

    leads = True

    def __init__(self, received: Received) -> None:
        self.received = received
        """The signals that this training, in whichever process, acts on after the current step."""
        self.slow = False
        """Whether calls take so long that each is waited for."""

    @contextmanager
    def turn(self) -> Iterator[dict[str, Any]]:
        """Surrounds what this process does before all go on. Whatever it raises, all raise.

        Gives a dict of JSON values for the leader to fill in, which has its values in every process afterwards.
        """
        yield {}

    def spread(self, state: Any) -> Any:
        """The leader's state, in every process, bit for bit; the others give one of `jax.ShapeDtypeStruct`."""
        return state

    def took(self, seconds: float) -> None:
        """How long this process's last call was."""
        self.slow = seconds > _SLOW

    def hear(self) -> None:
        """To be called when the metrics of a call are read, in order, once for each."""


class _Turn(NamedTuple):
    """What a process tells at the end of a turn: what the leader filled in, or why it cannot go on."""

    told: dict[str, Any]
    error: str = ""
    code: int = 0
    """As the process would exit with; above 128 for a signal, after a `step`."""
    step: int = 0

    @classmethod
    def failed(cls, error: Exception) -> "_Turn":
        if isinstance(error, Interrupted):
            return cls({}, str(error), 128 + error.signal_number, error.step)
        if isinstance(error, InputError | TrainingError):
            return cls({}, str(error), 2 if isinstance(error, InputError) else 1)
        return cls({}, f"{type(error).__name__}: {error}", 1)

    def raised_by(self, process: str) -> Exception:
        """What the other processes raise."""
        if self.code > 128:
            return Interrupted(self.code - 128, self.step)
        return (InputError if self.code == 2 else TrainingError)(f"{process}: {one_line(self.error, 4000)}")


class JoinedPeers(Peers):
    """The processes that `jax.distributed` joined. Everything here is a collective: all call the same, in one order."""

    def __init__(self, received: Received) -> None:
        super().__init__(Received())  # filled from the flags of all, where this process's own signals are among them
        self.leads = jax.process_index() == 0
        self._own, self._own_slow, self._flags = received, False, list[Array]()
        self.connect(self._layout)

    @contextmanager
    def turn(self) -> Iterator[dict[str, Any]]:
        told, failed = dict[str, Any](), None
        mine = _Turn(told)
        try:
            yield told
        except Exception as error:
            mine, failed = _Turn.failed(error), error
        every = [_Turn(*json.loads(each)) for each in self._exchange(json.dumps(mine).encode())]
        wrong = next((at for at, each in enumerate(every) if each.code), None)
        if wrong is not None:
            star.end_is_agreed()
            raise failed or every[wrong].raised_by(star.name_of(wrong))
        told.clear()
        told.update(every[0].told)

    def connect(self, layout: Layout) -> None:
        """Connects the devices of a layout, once all processes are here.

        Gloo does so when they first compute together, and gives up where a process comes half a minute later than
        another, such as one that had more to read or to compile. Devices that are connected wait for each other.
        """
        mine = np.zeros(layout.devices // layout.processes, np.int32)
        every = jax.make_array_from_process_local_data(layout.rows, mine, (layout.devices,))
        add = jax.jit(jnp.sum, out_shardings=layout.whole).lower(every).compile()
        client: Any = distributed.global_state.client
        client.wait_at_barrier(f"charlstm-{next(_MEETINGS)}", _DAY)
        jax.block_until_ready(add(every))

    def spread(self, state: Any) -> Any:
        host = arrays.to_host(state) if self.leads else arrays.blank(state)
        leaves, tree = jax.tree.flatten(host)
        ends = np.cumsum([leaf.nbytes for leaf in leaves])
        # As bytes, of which the others add zeros: a sum of floats would make 0.0 of -0.0.
        mine = np.zeros(ends[-1], np.uint8)
        if self.leads:
            np.concatenate([leaf.reshape(-1).view(np.uint8) for leaf in leaves], out=mine)
        parts = np.split(self._sum(mine), ends[:-1])
        found = [part.view(leaf.dtype).reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return arrays.to_device(jax.tree.unflatten(tree, found), state)

    def took(self, seconds: float) -> None:
        self._own_slow = seconds > _SLOW

    def flags(self, layout: Layout) -> Array:
        """[devices, 2] int32 to go with an update: this process's signal, or 0, and whether its calls are slow."""
        mine = np.array([self._own[0] if self._own else 0, self._own_slow], np.int32)
        return jax.make_array_from_process_local_data(
            layout.rows, np.tile(mine, (layout.devices // layout.processes, 1)), (layout.devices, 2)
        )

    def told(self, flags: Array) -> None:
        """Takes the highest flags of all processes, [2], which came out of an update, to be read with its metrics."""
        self._flags.append(flags)

    def hear(self) -> None:
        number, slow = np.asarray(self._flags.pop(0)).tolist()
        self.slow = bool(slow)
        if number and not self.received:
            self.received.append(number)

    def _exchange(self, mine: bytes) -> list[bytes]:
        """What each process gives, in all of them."""
        sizes = self._gather(np.array([len(mine)], np.int32))[:, 0]
        padded = np.frombuffer(mine.ljust(int(sizes.max())), np.uint8)
        return [row.tobytes()[:size] for row, size in zip(self._gather(padded), sizes, strict=True)]

    def _gather(self, mine: np.ndarray) -> np.ndarray:
        """[N] of each process as [processes, N]."""
        return np.asarray(self._same(self._stack(mine)).addressable_data(0))

    def _sum(self, mine: np.ndarray) -> np.ndarray:
        """The sum of [N] of all processes."""
        return np.asarray(self._add(self._stack(mine)).addressable_data(0))

    # `multihost_utils` does as much, but asks that all processes have as many devices.

    @cached_property
    def _layout(self) -> Layout:
        """A device of each process."""
        return Layout.of(jax.process_count(), every_process=True)

    @cached_property
    def _same(self) -> Any:
        return jax.jit(lambda rows: rows, out_shardings=self._layout.whole)

    @cached_property
    def _add(self) -> Any:
        return jax.jit(partial(jnp.sum, axis=0, dtype=jnp.uint8), out_shardings=self._layout.whole)

    def _stack(self, mine: np.ndarray) -> Array:
        shape = (self._layout.devices, *mine.shape)
        return jax.make_array_from_process_local_data(self._layout.rows, mine[None], shape)


def make_peers(received: Received) -> Peers:
    """Those that `jax.distributed` joined this process with, if it did."""
    return JoinedPeers(received) if jax.process_count() > 1 else Peers(received)
