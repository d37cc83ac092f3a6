"""What training drops: units of a layer's output, recurrent weights, characters that are read, rows of the carry.

Rates are probabilities. What is kept of units and weights is scaled by 1/keep, so that nothing needs to be scaled when
nothing is dropped (Srivastava et al. 2014, section 10).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from charlstm.config import ModelConfig

Masks = Sequence[Array] | None
"""Per layer: 0 where an output is dropped, 1/keep where it stays; [T, B, H], or [1, B, H] for a window's mask."""
_UNITS = 2**16  # 16 random bits a place, where float32 uniforms take 32; keep is rounded to them, and scaled exactly


def keep_mask(key: Array, shape: tuple[int, ...], rate: float) -> Array:
    """Which places of an array are kept, bool."""
    return jax.random.bits(key, shape, jnp.uint16) < _keep(rate)


def output_masks(key: Array, config: ModelConfig, shape: tuple[int, ...], dtype: Any) -> Masks:
    """The masks of each layer's output for ids [B, T]; None without dropout."""
    if config.dropout == 0:
        return None
    batch, time = shape
    size = (time if config.dropout_mask == "step" else 1), batch, config.hidden_size
    keys = jax.random.split(key, config.num_layers)
    return [_scaled(keep_mask(each, size, config.dropout).astype(dtype), config.dropout) for each in keys]


def drop_weights(key: Array, rate: float, gates: Any, names: Sequence[str]) -> Any:
    """A layer's gates with weights of the named ones' kernels dropped: DropConnect (Merity et al. 2017, section 2)."""
    dropped = {**gates}
    for each, name in zip(jax.random.split(key, len(names)), names, strict=True):
        kernel = gates[name]["kernel"]
        dropped[name] = {
            **gates[name],
            "kernel": _scaled(jnp.where(keep_mask(each, kernel.shape, rate), kernel, 0), rate),
        }
    return dropped


def add_row_of_zeros(gates: Any, names: Sequence[str]) -> Any:
    """The gates of the first layer with one more row, of zeros, in the named ones' kernels [V, H]."""
    return {**gates} | {
        name: {**gates[name], "kernel": jnp.pad(gates[name]["kernel"], ((0, 1), (0, 0)))} for name in names
    }


def _keep(rate: float) -> int:
    return min(max(round((1 - rate) * _UNITS), 1), _UNITS - 1)


def _scaled(kept: Array, rate: float) -> Array:
    return kept * (_UNITS / _keep(rate))
