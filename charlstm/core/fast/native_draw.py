"""Text from a stack of layers in the native core: all layers, the head and the draw, many symbols in one call.

Shapes: N symbols, B batch, L layers, H hidden, V vocabulary, K candidates.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charlstm.core.cells import Cell, CellCarry, Lstm, Rnn
from charlstm.core.fast.loop import FusedLayer
from charlstm.core.fast.native import Spec, floats, pack_for, parts_of

NO_SYMBOL = -(2**31)
_WORTH_SHARING = 2**19  # bytes of weights; with fewer, one core is done before another has woken up


def pack_stack(cell: Cell, layers: Sequence[FusedLayer], head: Any, dtype: Any, weights: Any) -> Array:
    """All parameters for many calls of `draw`, as float32 or int8 `weights`; `dtype` as in `run_layer`.

    An int8 weight is one of 255 steps of its column's largest.
    """
    spec, (hidden, width) = Spec(cell, dtype is not None), head["kernel"].shape
    packed = [pack_for(spec, layer, hidden, weights) for layer in layers]
    last = FusedLayer(head["kernel"], jnp.zeros((0, width), jnp.float32), head["bias"], None)
    return jnp.concatenate([*packed, pack_for(Spec(Rnn(), spec.round), last, width, weights)])


class Given(NamedTuple):
    """What decides N symbols for each of B rows, besides parameters and carry."""

    noise: Any
    """[N, B, K] that is added to the scaled logits of the K likeliest symbols."""
    symbols: Any
    """[N] int32, those of a position below 0, for all rows."""
    position: Any
    """[] int32, of the first."""
    temperature: Any
    """[] float32; 0 takes the likeliest."""
    newline: Any
    """[] int32, the symbol that is read from a zero carry; `NO_SYMBOL` where none is."""
    count: Any
    """[] int32, how many of the N are drawn and read; the rest are 0."""


def draw(
    cell: Cell,
    packed: Array,
    vocabulary_size: int,
    carry: Sequence[CellCarry],
    given: Given,
    dtype: Any,
    threads: int | None = None,
) -> tuple[Array, tuple[CellCarry, ...]]:
    """Symbols [N, B] int32, each drawn after those before it, and the carry after the last; `packed` by `pack_stack`.

    `threads` threads share the units, which changes no bit; by default as many as JAX has devices on this CPU.
    """
    (c, h), spec = parts_of(cell, jax.tree.map(lambda *parts: jnp.stack(parts), *carry)), Spec(cell, dtype is not None)
    symbols = jax.ShapeDtypeStruct(given.noise.shape[:2], jnp.int32)
    call = spec.call("draw", (symbols, floats(*c.shape), floats(*h.shape)), vmap_method=None)
    if threads is None:
        threads = len(jax.local_devices(backend="cpu")) if packed.nbytes > _WORTH_SHARING else 1
    numbers = {"width": np.int64(vocabulary_size), "threads": np.int64(threads)}
    symbols, c, h = call(packed, c, h, *given, **numbers)
    return symbols, tuple(zip(c, h, strict=True)) if isinstance(cell, Lstm) else tuple(h)
