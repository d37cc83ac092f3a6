"""What a compiled core must pass before it is used: equality with the loop in JAX, in value and gradient."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charlstm.core.cells import Cell, CellCarry, Gru, Lstm, Rnn
from charlstm.core.fast import loop
from charlstm.core.fast.loop import FusedLayer
from charlstm.core.fast.native import bind, pack, run_layer
from charlstm.core.fast.native_draw import NO_SYMBOL, Given, draw, pack_stack
from charlstm.core.rounding import to_int8


def check(core: Any) -> None:
    """Compares a core with the loop in JAX, in value and gradient; raises AssertionError where they differ."""
    bind(core)
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Array:
        return jnp.asarray(rng.normal(0, 0.3, shape), jnp.float32)

    time, batch, width, hidden = 3, 14, 19, 37
    for cell, gates, reads_ids in ((Rnn(), 1, False), (Gru(), 3, True), (Lstm(), 4, False), (Lstm(), 4, True)):
        inner = jnp.pad(random(hidden), (2 * hidden, 0)) if isinstance(cell, Gru) else None
        layer = FusedLayer(random(width, gates * hidden), random(hidden, gates * hidden), random(gates * hidden), inner)
        carry = jax.tree.map(lambda part: random(*part.shape), cell.zero_carry(batch, hidden, np.float32))
        resets = jnp.asarray(rng.random((time, batch)) < 0.2)
        inputs = (
            jnp.asarray(rng.integers(0, width, (time, batch), np.int32)) if reads_ids else random(time, batch, width)
        )
        found, wanted = (_value_and_gradients(each, cell, layer, inputs, carry, resets) for each in (_packed, _in_jax))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, wanted)
    for cell, gates in ((Rnn(), 1), (Lstm(), 4)):
        lower, upper = (
            FusedLayer(random(each, gates * hidden), random(hidden, gates * hidden), random(gates * hidden), None)
            for each in (width, hidden)
        )
        head = {"kernel": random(hidden, width), "bias": random(width)}
        carry = (jax.tree.map(lambda part: random(*part.shape), cell.zero_carry(batch, hidden, np.float32)),) * 2
        first = jnp.asarray(rng.integers(0, width, time, np.int32))
        _check_draw(cell, [lower, upper], head, carry, first)


def _check_draw(cell: Cell, layers: list[FusedLayer], head: Any, carry: Any, first: Array) -> None:
    """Compares the carry after the first symbols of a text, and the likeliest symbol then, from float32 and int8."""
    batch, width = len(jax.tree.leaves(carry)[0]), len(head["bias"])
    time, noise = np.int32(len(first)), jnp.zeros((len(first), batch, width))
    given = Given(noise, first, -time, jnp.float32(0), np.int32(NO_SYMBOL), time)
    for weights, (stack, last) in ((jnp.float32, (layers, head)), (jnp.int8, to_int8((layers, head)))):
        shown, after = jnp.repeat(first[:, None], batch, 1), []
        for layer, before in zip(stack, carry, strict=True):
            shown, carry_of_layer = loop.run_layer(cell, layer, shown, before, None, None, True)
            after.append(carry_of_layer)
        packed = pack_stack(cell, stack, last, None, weights)
        _, found = draw(cell, packed, width, carry, given, None, 2)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, tuple(after))
        one = jax.tree.map(lambda part: part[:1], carry)  # whose bits no compiler may give to one tile alone
        _, alone = draw(cell, packed, width, one, given._replace(noise=given.noise[:, :1]), None, 1)
        jax.tree.map(np.testing.assert_array_equal, alone, jax.tree.map(lambda part: part[:1], found))
        logits = shown[-1] @ last["kernel"] + last["bias"]
        likeliest, _ = draw(cell, packed, width, found, given._replace(position=np.int32(0)), None, 2)
        np.testing.assert_array_equal(likeliest[0], logits.argmax(1))


def _packed(cell: Cell, layer: FusedLayer, inputs: Array, carry: CellCarry, resets: Array) -> Any:
    return run_layer(cell, pack(cell, layer, None), inputs, carry, resets, None, None)


def _in_jax(cell: Cell, layer: FusedLayer, inputs: Array, carry: CellCarry, resets: Array) -> Any:
    return loop.run_layer(cell, layer, inputs, carry, resets, None, True)


@partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradients(
    run: Any, cell: Cell, layer: FusedLayer, inputs: Array, carry: CellCarry, resets: Array
) -> Any:
    result, pull = jax.vjp(lambda layer, carry: run(cell, layer, inputs, carry, resets), layer, carry)
    return result, pull(jax.tree.map(jnp.cos, result))
