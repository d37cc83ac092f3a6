"""One update: state and a window become state and metrics. No input or output."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from charlstm.config import Experiment
from charlstm.core import optimizer
from charlstm.core.loss import nats
from charlstm.core.network import Carry, Model, Params
from charlstm.core.sharding import Layout
from charlstm.data.windows import Window


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


class Metrics(NamedTuple):
    """Of one update, each [] float32."""

    loss: Array
    """Mean over the window, nats per character, before the update."""
    grad_norm: Array
    """Global norm of the gradient before clipping."""
    learning_rate: Array


def initial_state(config: Experiment, model: Model) -> TrainState:
    """The state before the first update, a function of the config alone."""
    return _initial_state(replace(config, seed=0), model, np.uint32(config.seed))


@partial(jax.jit, static_argnums=(0, 1))  # one program for all seeds, and a buffer for each leaf, as donation needs
def _initial_state(config: Experiment, model: Model, seed: Array) -> TrainState:
    params_key, dropout_key = jax.random.split(jax.random.key(seed))
    params = model.init(params_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        cursor=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=optimizer.build(config.optimizer, config.train.steps).init(params),
        carry=model.zero_carry(config.data.batch_size),
        key=dropout_key,
    )


def state_layout(layout: Layout) -> TrainState:
    """Where each part of a state lies: the carry with its rows, the rest whole on each device."""
    rows, whole = _shardings(layout)
    return TrainState(whole, whole, params=whole, optimizer=whole, carry=rows, key=whole)


def window_layout(layout: Layout) -> Window:
    """Where each part of a window lies."""
    rows, whole = _shardings(layout)
    return Window(rows, rows, whole)


def _shardings(layout: Layout) -> tuple[Any, Any]:
    return layout.rows, layout.whole  # they stand where arrays do


def make_train_step(
    config: Experiment, model: Model, layout: Layout | None = None
) -> Callable[[TrainState, Window], tuple[TrainState, Metrics]]:
    """A jitted `make_update` that donates its state.

    Args:
        config, model: what is trained.
        layout: the devices that share the batch; by default all that its rows share out evenly among. A state must lie
            on them as `state_layout` says, or not be committed to any device, as `initial_state` makes it.
    """
    layout = layout or Layout.of(config.data.batch_size)
    state, window = state_layout(layout), window_layout(layout)
    return jax.jit(
        make_update(config, model, layout),
        in_shardings=(state, window),
        out_shardings=(state, layout.whole),
        donate_argnums=0,
    )


def make_update(
    config: Experiment, model: Model, layout: Layout
) -> Callable[[TrainState, Window], tuple[TrainState, Metrics]]:
    """One update. The window's edge truncates backpropagation; the carry crosses it."""
    chain = optimizer.build(config.optimizer, config.train.steps)
    schedule = optimizer.learning_rate(config.optimizer, config.train.steps)

    def loss_fn(params: Params, carry: Carry, key: Array, window: Window) -> tuple[Array, Carry]:
        with layout.traced():
            logits, carry = model.apply(params, jnp.asarray(window.inputs), carry, key)
        return nats(logits, jnp.asarray(window.targets)).mean(), carry

    def train_step(state: TrainState, window: Window) -> tuple[TrainState, Metrics]:
        carry = jax.tree.map(lambda part: jnp.where(window.starts_epoch, 0, part), state.carry)
        key = jax.random.fold_in(state.key, state.step)
        (loss, carry), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, carry, key, window)
        updates, optimizer_state = chain.update(grads, state.optimizer, state.params)
        metrics = Metrics(loss, optax.tree.norm(grads), jnp.asarray(schedule(state.step), jnp.float32))
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, state.cursor + 1, params, optimizer_state, carry, state.key), metrics

    return train_step
