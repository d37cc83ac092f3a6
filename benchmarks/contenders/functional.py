"""What the JAX libraries share: a network as pure functions becomes training, evaluation and sampling, jitted whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from benchmarks import inputs
from benchmarks.contenders import Weights, Work
from benchmarks.shapes import Size
from charlstm.core.sharding import Layout

Tree = Any


@dataclass(frozen=True)
class Optimizer:
    """Clipping and Adam, by whichever library."""

    init: Callable[[Tree], Tree]
    """Parameters -> state."""
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
    """Gradients, state and parameters -> new parameters and state."""


@dataclass(frozen=True)
class Network:
    """A model of one size."""

    init: Callable[[int], Tree]
    """Seed -> parameters."""
    zero_carry: Callable[[int], Tree]
    """B -> the carry before a text."""
    apply: Callable[[Tree, Array, Tree], tuple[Array, Tree]]
    """Parameters, ids [T, B] and carry -> logits [T, B, V] and carry."""
    optimizer: Optimizer
    to_params: Callable[[Weights], Tree]
    to_weights: Callable[[Tree], Weights]


def lstm_step(sums: Array, c: Array) -> tuple[Array, Array]:
    """The next c and h, [B, H] each, from the sums of the gates [B, 4H] before any sigmoid, in the order i, f, g, o."""
    i, f, g, o = jnp.split(sums, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def to_flax(weights: Weights) -> tuple[list[Tree], Tree]:
    """The parameters of each of Flax's LSTM cells, and of its dense head."""
    layers = []
    for kernel, recurrent, bias in zip(weights[:-2:3], weights[1:-2:3], weights[2:-2:3], strict=True):
        parts = zip("ifgo", *(np.split(each, 4, -1) for each in (kernel, recurrent, bias)), strict=True)
        gates = [{f"i{gate}": {"kernel": w}, f"h{gate}": {"kernel": u, "bias": b}} for gate, w, u, b in parts]
        layers.append({name: part for gate in gates for name, part in gate.items()})
    return layers, {"kernel": weights[-2], "bias": weights[-1]}


def from_flax(layers: Sequence[Tree], head: Tree) -> Weights:
    """The inverse of `to_flax`."""
    parts = (("i", "kernel"), ("h", "kernel"), ("h", "bias"))
    beside = [
        np.concatenate([layer[side + gate][name] for gate in "ifgo"], -1) for layer in layers for side, name in parts
    ]
    return [*beside, np.asarray(head["kernel"]), np.asarray(head["bias"])]


def with_optax() -> Optimizer:
    """The chain that users of Optax write."""
    chain = optax.chain(
        optax.clip_by_global_norm(inputs.GRAD_CLIP),
        optax.adam(inputs.LEARNING_RATE, inputs.B1, inputs.B2, inputs.EPSILON),
    )

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        updates, state = chain.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Optimizer(chain.init, update)


class Functional:
    """A contender made of networks; see `contenders.Contender`.

    Where a process has several devices they share the rows of a batch, as charlstm's do.
    """

    def __init__(self, network: Callable[[Size, bool], Network]) -> None:
        """`network` makes one of a size that multiplies one-hot rows, or else looks up rows of the input kernel."""
        self._network = network

    def train(self, size: Size, weights: Weights | None = None) -> Work:
        trained: dict[str, Callable[[], Weights]] = {}

        def make(way: str, net: Network) -> Callable[[], float]:
            params = net.init(0) if weights is None else net.to_params(weights)
            # Equal leaves may share a buffer, which a donated state must not.
            state = jax.tree.map(jnp.array, (params, net.optimizer.init(params), net.zero_carry(size.batch)))
            update, windows = _jit_update(net, Layout.of(size.batch)), inputs.windows(size)
            trained[way] = lambda: net.to_weights(state[0])

            def run() -> float:
                nonlocal state
                state, loss = jax.block_until_ready(update(state, *next(windows)))
                return float(loss)

            return run

        ways = self._ways(size, make)
        return Work(size.characters, ways, {way: lambda way=way: trained[way]() for way in ways})

    def evaluate(self, size: Size) -> Work:
        def make(_: str, net: Network) -> Callable[[], float]:
            layout, windows = Layout.of(size.batch), inputs.windows(size)
            params = jax.device_put(net.init(0), layout.whole)
            carry = jax.device_put(net.zero_carry(size.batch), layout.rows)
            score = jax.jit(partial(_loss, net), out_shardings=(layout.whole, layout.rows))

            def run() -> float:
                nonlocal carry
                window = jax.device_put(next(windows), layout.rows)
                loss, carry = jax.block_until_ready(score(params, *window, carry))
                return float(loss)

            return run

        return Work(size.characters, self._ways(size, make))

    def sample(self, size: Size, streams: int, length: int) -> Work:
        """One program reads the prime at once and draws all streams side by side."""
        prime = np.repeat(inputs.prime(size)[:, None], streams, 1)

        def make(_: str, net: Network) -> Callable[[], float]:
            params = net.init(0)

            @jax.jit
            def draw(params: Tree, prime: Array, key: Array) -> Array:
                logits, carry = net.apply(params, prime, net.zero_carry(streams))

                def one(state: Tree, key: Array) -> tuple[Tree, Array]:
                    logits, carry = state
                    ids = jax.random.categorical(key, logits / inputs.TEMPERATURE)
                    logits, carry = net.apply(params, ids[None], carry)
                    return (logits[0], carry), ids

                return lax.scan(one, (logits[-1], carry), jax.random.split(key, length))[1]

            return lambda: float(np.asarray(draw(params, prime, jax.random.key(0))).size)

        return Work(streams * length, self._ways(size, make))

    def _ways(self, size: Size, make: Callable[[str, Network], Callable[[], float]]) -> dict[str, Callable[[], float]]:
        """Runs that are made when they are first asked for, so that a start makes no more than one of them."""

        def lazily(way: str, *, lookup: bool) -> Callable[[], float]:
            made = cache(lambda: make(way, self._network(size, lookup)))
            return lambda: made()()

        return {way: lazily(way, lookup=way == "lookup") for way in ("one-hot", "lookup")}


def _jit_update(net: Network, layout: Layout) -> Callable[..., Any]:
    """One update of (parameters, optimizer state, carry), which it donates, by a window [B, T]; and the loss."""

    def update(state: Tree, ids: Array, targets: Array) -> tuple[Tree, Array]:
        params, optimizer, carry = state
        (loss, carry), grads = jax.value_and_grad(partial(_loss, net), has_aux=True)(params, ids, targets, carry)
        params, optimizer = net.optimizer.update(grads, optimizer, params)
        return (params, optimizer, carry), loss

    state = layout.whole, layout.whole, layout.rows
    window = layout.rows, layout.rows
    return jax.jit(update, in_shardings=(state, *window), out_shardings=(state, layout.whole), donate_argnums=0)


def _loss(net: Network, params: Tree, ids: Array, targets: Array, carry: Tree) -> tuple[Array, Tree]:
    """Of a window [B, T]: mean cross-entropy in nats, and the carry after it."""
    logits, carry = net.apply(params, ids.T, carry)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets.T).mean(), carry
