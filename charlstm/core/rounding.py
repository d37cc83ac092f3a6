"""Parameters whose kernels int8 can hold."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

STEPS = 127  # on either side of 0


def round_kernel(kernel: Array) -> Array:
    """Each weight of [in, out] as the nearest of 255 steps, the last of which is its column's largest."""
    step = jnp.abs(kernel).max(0, keepdims=True) / STEPS
    return jnp.round(kernel / jnp.where(step == 0, 1, step)) * step


@jax.jit
def to_int8(params: Any) -> Any:
    """Parameters with rounded kernels, for whatever reads parameters; biases stay as they are."""
    return jax.tree.map(lambda leaf: round_kernel(leaf) if leaf.ndim == 2 else leaf, params)
