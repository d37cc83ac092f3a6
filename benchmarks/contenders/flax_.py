"""Flax, layer by layer: an `nn.RNN` around an `OptimizedLSTMCell`, the cell that Flax recommends for speed."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.contenders.functional import Functional, Network, with_optax
from benchmarks.shapes import Size


class _Stack(nn.Module):
    size: Size

    @nn.compact
    def __call__(self, ids: Array, carry: Any) -> tuple[Array, Any]:
        hidden, after = jax.nn.one_hot(ids, self.size.vocabulary), []
        for before in carry:
            layer = nn.RNN(nn.OptimizedLSTMCell(self.size.hidden), time_major=True, return_carry=True)
            last, hidden = layer(hidden, initial_carry=before)
            after.append(last)
        return nn.Dense(self.size.vocabulary)(hidden), tuple(after)


class FlaxRNN(Functional):
    """A contender; see `contenders.Contender`."""

    def __init__(self) -> None:
        super().__init__(_network)


def _network(size: Size) -> Network:
    stack = _Stack(size)

    def zero_carry(batch: int) -> Any:
        zeros = jnp.zeros((batch, size.hidden))
        return ((zeros, zeros),) * size.layers

    def init(seed: int) -> Any:
        return stack.init(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32), zero_carry(1))

    def apply(params: Any, ids: Array, carry: Any) -> Any:
        return stack.apply(params, ids, carry)

    return Network(init, zero_carry, apply, with_optax())
