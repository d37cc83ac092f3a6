"""What the JAX libraries share: a network as pure functions becomes training, evaluation and sampling, jitted whole."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from benchmarks import inputs
from benchmarks.contenders import Work
from benchmarks.shapes import Size

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


def with_optax() -> Optimizer:
    """The chain that users of Optax write."""
    chain = optax.chain(
        optax.clip_by_global_norm(inputs.GRAD_CLIP), optax.adam(inputs.LEARNING_RATE, b1=inputs.B1, b2=inputs.B2)
    )

    def update(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        updates, state = chain.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Optimizer(chain.init, update)


class Functional:
    """A contender made of a function from a size to a network; see `contenders.Contender`."""

    def __init__(self, network: Callable[[Size], Network]) -> None:
        self._network = network

    def train(self, size: Size, seeds: int = 1, *, together: bool = False) -> Work:
        net = self._network(size)

        def first(seed: int) -> Tree:
            params = net.init(seed)
            return params, net.optimizer.init(params), net.zero_carry(size.batch)

        def step(state: Tree, ids: Array, targets: Array) -> tuple[Tree, Array]:
            params, optimizer, carry = state
            (loss, carry), grads = jax.value_and_grad(partial(_loss, net), has_aux=True)(params, ids, targets, carry)
            params, optimizer = net.optimizer.update(grads, optimizer, params)
            return (params, optimizer, carry), loss

        states = [first(seed) for seed in range(seeds)]
        if together:
            states = [jax.tree.map(lambda *parts: jnp.stack(parts), *states)]
            step = jax.vmap(step, in_axes=(0, None, None))
        else:  # equal leaves may share a buffer, which a donated state must not
            states = jax.tree.map(jnp.array, states)
        jitted, windows = jax.jit(step, donate_argnums=0), inputs.windows(size)

        def run() -> float:
            ids, targets = next(windows)
            losses = []
            for number, state in enumerate(states):
                states[number], loss = jitted(state, ids, targets)
                losses.append(loss)
            jax.block_until_ready(states)
            return float(np.mean(jax.device_get(losses)))

        return Work(seeds * size.characters, {"": run})

    def evaluate(self, size: Size) -> Work:
        net = self._network(size)
        params, carry = net.init(0), net.zero_carry(size.batch)
        score, windows = jax.jit(partial(_loss, net)), inputs.windows(size)

        def run() -> float:
            nonlocal carry
            loss, carry = jax.block_until_ready(score(params, *next(windows), carry))
            return float(loss)

        return Work(size.characters, {"": run})

    def sample(self, size: Size, streams: int, length: int) -> Work:
        """One program reads the prime at once and draws all streams side by side."""
        net = self._network(size)
        params, prime = net.init(0), np.repeat(inputs.prime(size)[:, None], streams, 1)

        @jax.jit
        def draw(params: Tree, prime: Array, key: Array) -> Array:
            logits, carry = net.apply(params, prime, net.zero_carry(streams))

            def one(state: Tree, key: Array) -> tuple[Tree, Array]:
                logits, carry = state
                ids = jax.random.categorical(key, logits / inputs.TEMPERATURE)
                logits, carry = net.apply(params, ids[None], carry)
                return (logits[0], carry), ids

            return lax.scan(one, (logits[-1], carry), jax.random.split(key, length))[1]

        def run() -> float:
            return float(np.asarray(draw(params, prime, jax.random.key(0))).size)

        return Work(streams * length, {"": run})


def _loss(net: Network, params: Tree, ids: Array, targets: Array, carry: Tree) -> tuple[Array, Tree]:
    """Of a window [B, T]: mean cross-entropy in nats, and the carry after it."""
    logits, carry = net.apply(params, ids.T, carry)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets.T).mean(), carry
