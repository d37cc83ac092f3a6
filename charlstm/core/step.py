"""One update: state and a window to state and metrics."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.core import Tracer

from charlstm.core.loss import mean_nats
from charlstm.core.network import Carry, Model, Params
from charlstm.core.sharding import Layout, over_groups
from charlstm.data.windows import Window

Loss = Callable[[Array, Array], Array]
"""Logits [B, T, V] and targets [B, T] to a scalar."""


class TrainState(NamedTuple):
    """Everything that the next update depends on, besides the text."""

    step: Array
    """[] int32, updates done."""
    cursor: Array
    """[] int32, windows read since the start of training."""
    params: Params
    optimizer: optax.OptState
    carry: Carry
    """The recurrent state after the last window, [B, H] for each part."""
    key: Array
    """[] random key; the dropout masks of a step are drawn from it and the step's number."""
    iterate: Params | None = None
    """What updates change, where `params` is its running average; None where `params` is what they change."""

    def with_params(self, params: Params) -> "TrainState":
        """This state with other parameters, of which no average exists."""
        return self._replace(params=params, iterate=None if self.iterate is None else jax.tree.map(jnp.copy, params))


class Metrics(NamedTuple):
    """Of one update, each [] float32."""

    loss: Array
    """Over the window, before the update; nats per character unless the loss is another."""
    grad_norm: Array
    """Global norm of the gradient before clipping."""
    learning_rate: Array | None
    """None where no schedule is known."""


class Options(NamedTuple):
    """How an update is made, besides its model, loss and optimizer. Hashable."""

    average: float = 0.0
    """Decay of the running average of the parameters, in a state that has an `iterate`."""
    accumulate: int = 1
    """Groups of rows that a device reads one after the other, k, in the memory of one of them."""
    deterministic_sums: bool = False
    """Whether gradients are summed over rows in one order, for the same bits on 1, 2, 4 and 8 devices."""

    def shared(self, batch_size: int) -> int:
        """What the number of devices must divide, given B."""
        rows = batch_size // self.accumulate
        return math.gcd(rows, _MOST_DEVICES) if self.deterministic_sums else rows


_MOST_DEVICES = 8  # that give the same bits
PLAIN = Options()
UPDATES_IN_FLIGHT = 2
"""Enough for the devices never to wait for the host."""

TrainStep = Callable[[TrainState, Window], tuple[TrainState, Metrics]]


def init_state(
    model: Model, tx: optax.GradientTransformation, batch_size: int, seed: int = 0, *, average: bool = False
) -> TrainState:
    """The state before the first update, a function of the arguments alone.

    Args:
        model, tx: what is trained, and any optax transformation.
        batch_size: B, rows that are read side by side.
        seed: of the initial parameters and the dropout masks, below 2**32.
        average: whether steps average the parameters, as `make_train_step` with an `average` does.
    """
    return _init_state(model, tx, batch_size, average, np.uint32(seed))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))  # one program for all seeds, and a buffer a leaf, as donation needs
def _init_state(
    model: Model, tx: optax.GradientTransformation, batch_size: int, average: bool, seed: Array
) -> TrainState:
    params_key, dropout_key = jax.random.split(jax.random.key(seed))
    params = model.init(params_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        cursor=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=tx.init(params),
        carry=model.zero_carry(batch_size),
        key=dropout_key,
        iterate=jax.tree.map(jnp.copy, params) if average else None,
    )


def make_update(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    loss: Loss = mean_nats,
    schedule: optax.Schedule | None = None,
    options: Options = PLAIN,
) -> TrainStep:
    """One update. Backpropagation stops at the window's edge; the carry crosses it."""

    def loss_fn(params: Params, carry: Carry, key: Array, window: Window, model: Model) -> tuple[Array, Carry]:
        resets: Any = window.resets
        logits, carry = model.apply(params, jnp.asarray(window.inputs), carry, key, resets)
        return loss(logits, jnp.asarray(window.targets)), carry

    def gradients(params: Params, key: Array, rows: tuple[Carry, Window], model: Model = model) -> tuple[Any, Carry]:
        (value, carry), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, rows[0], key, rows[1], model)
        return (value, grads), carry

    def grouped(batch_size: int) -> Any:
        """`gradients` as the options ask for them."""
        _, accumulate, in_order = options
        if accumulate == 1 and not in_order:
            return gradients
        devices = 1 if model.mesh is None else model.mesh.size
        groups = accumulate * (options.shared(batch_size) if in_order else devices)
        return over_groups(partial(gradients, model=replace(model, mesh=None)), groups, model.mesh, in_order=in_order)

    def train_step(state: TrainState, window: Window) -> tuple[TrainState, Metrics]:
        carry = jax.tree.map(lambda part: jnp.where(window.starts_epoch, 0, part), state.carry)
        key = jax.random.fold_in(state.key, state.step)
        before = state.params if state.iterate is None else state.iterate
        rows = carry, window._replace(starts_epoch=None)  # pyright: ignore[reportArgumentType]
        (value, grads), carry = grouped(len(window.inputs))(before, key, rows)
        updates, optimizer_state = tx.update(grads, state.optimizer, before)
        rate = None if schedule is None else jnp.asarray(schedule(state.step), jnp.float32)
        metrics = Metrics(value, optax.tree.norm(grads), rate)
        params: Any = optax.apply_updates(before, updates)
        iterate = None
        if state.iterate is not None:
            # Early parameters are forgotten sooner, as by TensorFlow's ExponentialMovingAverage with num_updates.
            done = state.step.astype(jnp.float32)
            decay = jnp.minimum(options.average, (1 + done) / (10 + done))
            iterate, params = params, optax.incremental_update(params, state.params, 1 - decay)
        return TrainState(state.step + 1, state.cursor + 1, params, optimizer_state, carry, state.key, iterate), metrics

    return train_step


def make_train_step(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    loss: Loss = mean_nats,
    schedule: optax.Schedule | None = None,
    average: float = 0.0,
    accumulate: int = 1,
    deterministic_sums: bool = False,
) -> TrainStep:
    """A jitted update: a state, which it donates, and a window to the next state and `Metrics`.

    As many of the process's devices as share B evenly compute. The state must lie on them, or on no device in
    particular, as `init_state` makes it.

    Args:
        model, tx: what is trained, and any optax transformation.
        loss: maps logits [B, T, V] and targets [B, T] to a scalar; by default the mean cross-entropy in nats.
        schedule: the learning rate that the metrics show; `tx` has its own.
        average: decay of the running average of the parameters, for a state that was made with ``average=True``.
        accumulate: groups of rows that are read one after the other, in the memory of one; it divides B.
        deterministic_sums: sum gradients over rows in one order, so that 1, 2, 4 and 8 devices give the same bits where
            B is divided by 8.

    With groups of rows the loss is the mean of the groups' losses, and dropout draws other masks than without.
    """
    options = Options(average, accumulate, deterministic_sums)

    @lru_cache
    def compiled(rows: int) -> TrainStep:
        layout = Layout.of(options.shared(rows))
        update = make_update(model.on(layout), tx, loss=loss, schedule=schedule, options=options)
        return jit_update(update, layout)

    in_flight: deque[Array] = deque()

    def train_step(state: TrainState, window: Window) -> tuple[TrainState, Metrics]:
        # JAX returns before an update is done. On several CPU devices, XLA's threads run out and wait for each other
        # forever where a loop that reads no metrics has many updates on their way.
        if len(in_flight) == UPDATES_IN_FLIGHT:
            in_flight.popleft().block_until_ready()
        state, metrics = compiled(len(window.inputs))(state, window)
        if not isinstance(metrics.loss, Tracer):
            in_flight.append(metrics.loss)
        return state, metrics

    return train_step


def jit_update(update: TrainStep, layout: Layout) -> Any:
    """An update as one program for a layout. It donates the state."""
    state, window = state_layout(layout), window_layout(layout)
    return jax.jit(update, in_shardings=(state, window), out_shardings=(state, layout.whole), donate_argnums=0)


def state_layout(layout: Layout) -> TrainState:
    """Where each part of a state lies: the carry with its rows, the rest whole on each device."""
    whole = layout.whole
    return TrainState(whole, whole, params=whole, optimizer=whole, carry=layout.rows, key=whole, iterate=whole)


def window_layout(layout: Layout) -> Window:
    """Where each part of a window lies."""
    return Window(layout.rows, layout.rows, layout.whole, layout.rows)
