"""Parameters with the kernels of text that is drawn from int8 weights."""

from typing import Any

import jax
import jax.numpy as jnp

from charlstm.core.network import Params

STEPS = 127  # on either side of 0


@jax.jit
def to_int8(params: Params) -> Params:
    """Each weight as the nearest of 255 steps, of which the largest of its kernel's column is the last.

    Kernels [in, out] stay float32, so that whatever reads parameters reads these; biases stay as they are.
    """

    def rounded(leaf: Any) -> Any:
        if leaf.ndim != 2:
            return leaf
        step = jnp.abs(leaf).max(0, keepdims=True) / STEPS
        return jnp.round(leaf / jnp.where(step == 0, 1, step)) * step

    return jax.tree.map(rounded, params)
