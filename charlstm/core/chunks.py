"""Long windows in a memory of the root of their length."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def read_in_chunks(
    read: Callable[[Array, Any, Any], tuple[Array, Any]], ids: Array, masks: Any, carry: Any
) -> tuple[Array, Any]:
    """Read T steps in chunks of √T, rounded up; a gradient keeps the carries between them and reads each chunk again.

    One more forward pass buys O(√T) memory for what lies inside the layers (Chen et al. 2016, section 4.1). `read` maps
    ids [t, B], masks [t, B, H] or [1, B, H], and a carry to an output [t, B, ...] and the carry after it.
    """
    time = len(ids)
    length = math.isqrt(time - 1) + 1
    read_again = jax.checkpoint(read, prevent_cse=False)  # pyright: ignore[reportPrivateImportUsage]

    def chunk(length: int, carry: Any, start: Array | int) -> tuple[Any, Array]:
        def cut(each: Array) -> Array:
            return each if len(each) == 1 else lax.dynamic_slice_in_dim(each, start, length)

        output, carry = read_again(cut(ids), jax.tree.map(cut, masks), carry)
        return carry, output

    chunks, rest = divmod(time, length)
    carry, output = lax.scan(partial(chunk, length), carry, length * jnp.arange(chunks))
    output = output.reshape(-1, *output.shape[2:])
    if rest:
        carry, last = chunk(rest, carry, time - rest)
        output = jnp.concatenate([output, last])
    return output, carry
