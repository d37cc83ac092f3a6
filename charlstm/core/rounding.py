"""Parameters whose kernels int8 can hold."""

from typing import Any

import jax
import jax.numpy as jnp

STEPS = 127  # on either side of 0


@jax.jit
def to_int8(params: Any) -> Any:
    """Each weight as the nearest of 255 steps, the last of which is the largest of its column; biases as they are."""

    def rounded(leaf: Any) -> Any:
        if leaf.ndim != 2:
            return leaf
        step = jnp.abs(leaf).max(0, keepdims=True) / STEPS
        return jnp.round(leaf / jnp.where(step == 0, 1, step)) * step

    return jax.tree.map(rounded, params)
