"""Keras 3 on JAX: stateful layers through `stateless_call`, in one jitted step with Keras's own Adam."""

# pyright: reportMissingImports=false
import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported

import jax.numpy as jnp
import keras
import numpy as np
from jax import Array

from benchmarks import inputs
from benchmarks.contenders import Weights
from benchmarks.contenders.functional import Functional, Network, Optimizer, lstm_step
from benchmarks.shapes import Size


class Keras(Functional):
    """A contender; see `contenders.Contender`."""

    def __init__(self) -> None:
        super().__init__(_network)


class _RowsCell(keras.layers.Layer):
    """An LSTM cell whose inputs [B, 4H] are rows of the input kernel."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units, self.state_size, self.output_size = units, [units, units], units

    def build(self, input_shape: Any) -> None:
        self.recurrent = self.add_weight(shape=(self.units, 4 * self.units), initializer="orthogonal")
        self.bias = self.add_weight(shape=(4 * self.units,), initializer="zeros")

    def call(self, rows: Any, states: Any) -> tuple[Any, Any]:
        sums = rows + keras.ops.matmul(states[0], self.recurrent) + self.bias
        c, h = lstm_step(sums, states[1])
        return h, [h, c]


def _model(size: Size, lookup: bool) -> Any:
    """Ids [B, T] and each layer's h and c [B, H] -> logits [B, T, V], and the same h and c after the window."""
    ids = keras.Input((None,), dtype="int32")
    before = [keras.Input((size.hidden,)) for _ in range(2 * size.layers)]
    options: dict[str, Any] = {"return_sequences": True, "return_state": True}
    after: list[Any] = []
    rows = keras.layers.Embedding(size.vocabulary, 4 * size.hidden) if lookup else None
    hidden = keras.ops.one_hot(ids, size.vocabulary) if rows is None else rows(ids)
    for h, c in zip(before[::2], before[1::2], strict=True):
        ours = lookup and not after
        layer = (
            keras.layers.RNN(_RowsCell(size.hidden), **options) if ours else keras.layers.LSTM(size.hidden, **options)
        )
        hidden, *last = layer(hidden, initial_state=[h, c])
        after += last
    return keras.Model([ids, *before], [keras.layers.Dense(size.vocabulary)(hidden), *after])


def _network(size: Size, lookup: bool) -> Network:
    model = _model(size, lookup)
    fixed = [variable.value for variable in model.non_trainable_variables]

    def init(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        return [variable.value for variable in _model(size, lookup).trainable_variables]

    def zero_carry(batch: int) -> Any:
        return [jnp.zeros((batch, size.hidden))] * (2 * size.layers)

    def apply(params: Any, ids: Array, carry: Any) -> Any:
        (logits, *carry), _ = model.stateless_call(params, fixed, [ids.T, *carry])
        return logits.swapaxes(0, 1), carry

    def to_params(weights: Weights) -> Any:
        return [jnp.asarray(each) for each in weights]  # Keras's own order of them

    def to_weights(params: Any) -> Weights:
        return [np.asarray(each) for each in params]

    return Network(init, zero_carry, apply, _adam(model), to_params, to_weights)


def _adam(model: Any) -> Optimizer:
    # Keras adds it to √v before the correction of v, the others after: these are equal at the first update.
    epsilon = inputs.EPSILON * (1 - inputs.B2) ** 0.5
    adam = keras.optimizers.Adam(
        inputs.LEARNING_RATE, inputs.B1, inputs.B2, epsilon=epsilon, global_clipnorm=inputs.GRAD_CLIP
    )
    adam.build(model.trainable_variables)

    def init(params: Any) -> Any:
        return [variable.value for variable in adam.variables]

    def update(grads: Any, state: Any, params: Any) -> Any:
        return adam.stateless_apply(state, grads, params)

    return Optimizer(init, update)
