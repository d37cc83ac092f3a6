"""Flax, by `nn.scan` over all layers at once or by an `nn.RNN` for each, with the cell that Flax calls optimized."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.contenders import Weights
from benchmarks.contenders.functional import Functional, Network, from_flax, lstm_step, to_flax, with_optax
from benchmarks.shapes import Size


class _RowsCell(nn.RNNCellBase):
    """An LSTM cell whose inputs [B, 4H] are rows of the input kernel."""

    features: int

    @nn.compact
    def __call__(self, carry: Any, inputs: Array) -> tuple[Any, Array]:
        c, h = lstm_step(inputs + nn.Dense(4 * self.features, name="h")(carry[1]), carry[0])
        return (c, h), h

    @property
    def num_feature_axes(self) -> int:
        return 1


def _cell(size: Size, number: int, *, lookup: bool, **named: Any) -> Any:
    return (_RowsCell if lookup and number == 0 else nn.OptimizedLSTMCell)(size.hidden, **named)


class _Step(nn.Module):
    """One step of every layer."""

    size: Size
    lookup: bool

    @nn.compact
    def __call__(self, carry: Any, hidden: Array) -> tuple[Any, Array]:
        after = []
        for number, before in enumerate(carry):
            last, hidden = _cell(self.size, number, lookup=self.lookup, name=f"layer_{number}")(before, hidden)
            after.append(last)
        return tuple(after), hidden


class _Stack(nn.Module):
    size: Size
    lookup: bool
    layer_by_layer: bool

    @nn.compact
    def __call__(self, ids: Array, carry: Any) -> tuple[Array, Any]:
        size = self.size
        if self.lookup:
            hidden = nn.Embed(size.vocabulary, 4 * size.hidden, name="rows")(ids)
        else:
            hidden = jax.nn.one_hot(ids, size.vocabulary)
        if self.layer_by_layer:
            after = []
            for number, before in enumerate(carry):
                cell = _cell(size, number, lookup=self.lookup, parent=None)
                layer = nn.RNN(cell, time_major=True, return_carry=True, name=f"layer_{number}")
                last, hidden = layer(hidden, initial_carry=before)
                after.append(last)
            carry = tuple(after)
        else:
            step = nn.scan(_Step, variable_broadcast="params", split_rngs={"params": False})
            carry, hidden = step(size, self.lookup, name="steps")(carry, hidden)
        return nn.Dense(size.vocabulary, name="head")(hidden), carry


class Flax(Functional):
    """A contender; see `contenders.Contender`."""

    def __init__(self, *, layer_by_layer: bool) -> None:
        super().__init__(lambda size, lookup: _network(_Stack(size, lookup, layer_by_layer)))


def _network(stack: _Stack) -> Network:
    size = stack.size

    def zero_carry(batch: int) -> Any:
        zeros = jnp.zeros((batch, size.hidden))
        return ((zeros, zeros),) * size.layers

    def init(seed: int) -> Any:
        return stack.init(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32), zero_carry(1))

    def apply(params: Any, ids: Array, carry: Any) -> Any:
        return stack.apply(params, ids, carry)

    def to_params(weights: Weights) -> Any:
        layers, head = to_flax(weights)
        params: dict[str, Any] = {"head": head}
        if stack.lookup:
            rows, kernel, bias = weights[:3]
            params["rows"], layers[0] = {"embedding": rows}, {"h": {"kernel": kernel, "bias": bias}}
        if stack.layer_by_layer:
            params |= {f"layer_{number}": {"cell": layer} for number, layer in enumerate(layers)}
        else:
            params["steps"] = {f"layer_{number}": layer for number, layer in enumerate(layers)}
        return {"params": params}

    def to_weights(variables: Any) -> Weights:
        params = variables["params"]
        names = [f"layer_{number}" for number in range(size.layers)]
        layers = [params[name]["cell"] if stack.layer_by_layer else params["steps"][name] for name in names]
        if not stack.lookup:
            return from_flax(layers, params["head"])
        first = [params["rows"]["embedding"], layers[0]["h"]["kernel"], layers[0]["h"]["bias"]]
        return [*first, *from_flax(layers[1:], params["head"])]

    return Network(init, zero_carry, apply, with_optax(), to_params, to_weights)
