"""Haiku, as in its RNN example: `hk.LSTM` layers in an `hk.DeepRNN`, run by `hk.dynamic_unroll`."""

# pyright: reportMissingImports=false
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.contenders.functional import Functional, Network, with_optax
from benchmarks.shapes import Size


class Haiku(Functional):
    """A contender; see `contenders.Contender`."""

    def __init__(self) -> None:
        super().__init__(_network)


def _network(size: Size) -> Network:
    def core() -> Any:
        return hk.DeepRNN([hk.LSTM(size.hidden) for _ in range(size.layers)])

    def forward(ids: Array, carry: Any) -> tuple[Array, Any]:
        hidden, carry = hk.dynamic_unroll(core(), jax.nn.one_hot(ids, size.vocabulary), carry)
        return hk.Linear(size.vocabulary)(hidden), carry

    pure = hk.without_apply_rng(hk.transform(forward))
    initial = hk.without_apply_rng(hk.transform(lambda batch: core().initial_state(batch)))

    def zero_carry(batch: int) -> Any:
        return initial.apply({}, batch)

    def init(seed: int) -> Any:
        return pure.init(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32), zero_carry(1))

    return Network(init, zero_carry, pure.apply, with_optax())
