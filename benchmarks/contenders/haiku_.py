"""Haiku, as in its RNN example: `hk.LSTM` layers in an `hk.DeepRNN`, run by `hk.dynamic_unroll`."""

# pyright: reportMissingImports=false
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.contenders import Weights
from benchmarks.contenders.functional import Functional, Network, lstm_step, with_optax
from benchmarks.shapes import Size


class Haiku(Functional):
    """A contender; see `contenders.Contender`."""

    def __init__(self) -> None:
        super().__init__(_network)


class _RowsLSTM(hk.RNNCore):
    """An LSTM core whose inputs [B, 4H] are rows of the input kernel."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(name="rows_lstm")
        self.hidden_size = hidden_size

    def initial_state(self, batch_size: int | None) -> Any:
        return hk.LSTM(self.hidden_size).initial_state(batch_size)

    def __call__(self, inputs: Any, prev_state: Any) -> tuple[Array, Any]:
        c, h = lstm_step(inputs + hk.Linear(4 * self.hidden_size)(prev_state.hidden), prev_state.cell)
        return h, hk.LSTMState(h, c)


def _network(size: Size, lookup: bool) -> Network:
    def core() -> Any:
        first = (_RowsLSTM if lookup else hk.LSTM)(size.hidden)
        return hk.DeepRNN([first, *(hk.LSTM(size.hidden) for _ in range(size.layers - 1))])

    def forward(ids: Array, carry: Any) -> tuple[Array, Any]:
        shown = hk.Embed(size.vocabulary, 4 * size.hidden)(ids) if lookup else jax.nn.one_hot(ids, size.vocabulary)
        hidden, carry = hk.dynamic_unroll(core(), shown, carry)
        return hk.Linear(size.vocabulary)(hidden), carry

    pure = hk.without_apply_rng(hk.transform(forward))
    initial = hk.without_apply_rng(hk.transform(lambda batch: core().initial_state(batch)))
    numbers = range(1 if lookup else 0, size.layers)
    names = [f"lstm_{place}/linear" if place else "lstm/linear" for place in range(len(numbers))]

    def zero_carry(batch: int) -> Any:
        return initial.apply({}, batch)

    def init(seed: int) -> Any:
        return pure.init(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32), zero_carry(1))

    def to_params(weights: Weights) -> Any:
        params: Any = {"linear": {"w": weights[-2], "b": weights[-1]}}
        if lookup:
            params |= {"embed": {"embeddings": weights[0]}, "rows_lstm/linear": {"w": weights[1], "b": weights[2]}}
        for name, number in zip(names, numbers, strict=True):
            kernel, recurrent, bias = map(_swap, weights[3 * number : 3 * number + 3])
            params[name] = {"w": np.concatenate([kernel, recurrent]), "b": bias - _forget_one(size)}
        return params

    def to_weights(params: Any) -> Weights:
        rows = params.get("rows_lstm/linear")
        weights = [params["embed"]["embeddings"], rows["w"], rows["b"]] if lookup else []
        for name in names:
            w, b = params[name]["w"], params[name]["b"] + _forget_one(size)
            weights += map(_swap, (w[: -size.hidden], w[-size.hidden :], b))
        return [np.asarray(each) for each in (*weights, params["linear"]["w"], params["linear"]["b"])]

    return Network(init, zero_carry, pure.apply, with_optax(), to_params, to_weights)


def _swap(gates: Any) -> np.ndarray:
    """Gates i, f, g, o in the order of `hk.LSTM`: i, g, f, o; and back."""
    i, second, third, o = np.split(np.asarray(gates), 4, -1)
    return np.concatenate([i, third, second, o], -1)


def _forget_one(size: Size) -> np.ndarray:
    """The 1 that `hk.LSTM` adds to the bias of its third gate, f."""
    return np.repeat(np.array([0, 0, 1, 0], np.float32), size.hidden)
