"""Keras 3 on JAX: stateful layers through `stateless_call`, in one jitted step with Keras's own Adam."""

# pyright: reportMissingImports=false
import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported

import jax.numpy as jnp
import keras
from jax import Array

from benchmarks import inputs
from benchmarks.contenders.functional import Functional, Network, Optimizer
from benchmarks.shapes import Size


class Keras(Functional):
    """A contender; see `contenders.Contender`."""

    def __init__(self) -> None:
        super().__init__(_network)


def _model(size: Size) -> Any:
    """Ids [B, T] and each layer's h and c [B, H] -> logits [B, T, V], and the same h and c after the window."""
    ids = keras.Input((None,), dtype="int32")
    before = [keras.Input((size.hidden,)) for _ in range(2 * size.layers)]
    hidden, after = keras.ops.one_hot(ids, size.vocabulary), []
    for h, c in zip(before[::2], before[1::2], strict=True):
        layer = keras.layers.LSTM(size.hidden, return_sequences=True, return_state=True)
        hidden, *last = layer(hidden, initial_state=[h, c])
        after += last
    return keras.Model([ids, *before], [keras.layers.Dense(size.vocabulary)(hidden), *after])


def _network(size: Size) -> Network:
    model = _model(size)
    fixed = [variable.value for variable in model.non_trainable_variables]

    def init(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        return [variable.value for variable in _model(size).trainable_variables]

    def zero_carry(batch: int) -> Any:
        return [jnp.zeros((batch, size.hidden))] * (2 * size.layers)

    def apply(params: Any, ids: Array, carry: Any) -> Any:
        (logits, *carry), _ = model.stateless_call(params, fixed, [ids.T, *carry])
        return logits.swapaxes(0, 1), carry

    return Network(init, zero_carry, apply, _adam(model))


def _adam(model: Any) -> Optimizer:
    adam = keras.optimizers.Adam(
        inputs.LEARNING_RATE, beta_1=inputs.B1, beta_2=inputs.B2, global_clipnorm=inputs.GRAD_CLIP
    )
    adam.build(model.trainable_variables)

    def init(params: Any) -> Any:
        return [variable.value for variable in adam.variables]

    def update(grads: Any, state: Any, params: Any) -> Any:
        return adam.stateless_apply(state, grads, params)

    return Optimizer(init, update)
