"""One layer of the fast path: Flax's kernels of each gate, side by side, and the loop that runs them."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from charlstm.core.cells import Cell, CellCarry, Gru, Lstm
from charlstm.core.fast.loop import run_cell
from charlstm.core.fast.products import product


class FusedLayer(NamedTuple):
    """A layer's parameters with the G gates side by side; D is V for the first layer and H for those above it."""

    kernel: Array
    """[D, G·H], of the input."""
    recurrent: Array
    """[H, G·H], of the hidden state."""
    bias: Array
    """[G·H], added to the input's product."""
    inner_bias: Array | None
    """[G·H], added to the recurrent product; the gru's, whose reset gate multiplies it."""


def fuse(cell: type[Cell], gates: Any) -> FusedLayer:
    """The parameters of one Flax cell, a tree by the names of its gates, as one kernel for each of the two products."""

    def beside(names: tuple[str, ...], part: str) -> Array:
        return jnp.concatenate([gates[name][part] for name in names], -1)

    inner_bias = None
    if cell is Gru:
        inner = gates["hn"]["bias"]
        inner_bias = jnp.concatenate([jnp.zeros_like(inner), jnp.zeros_like(inner), inner])
    bias = beside(cell.recurrent_kernels if cell is Lstm else cell.input_kernels, "bias")
    return FusedLayer(beside(cell.input_kernels, "kernel"), beside(cell.recurrent_kernels, "kernel"), bias, inner_bias)


def run_layer(
    cell: type[Cell], layer: FusedLayer, inputs: Array, carry: CellCarry, dtype: Any, *, flatten: bool
) -> tuple[Array, CellCarry]:
    """The layer's output [T, B, H] for inputs [T, B, D] or ids [T, B], and the carry after the last step.

    Args:
        cell, layer: what runs.
        inputs: ids for the first layer, the output of the layer below for the others.
        carry: the carry before the first step.
        dtype, flatten: see `products.product`.
    """
    projected = product(inputs, layer.kernel, dtype, flatten=flatten) + layer.bias[None, None, :]
    projected = projected if dtype is None else projected.astype(dtype)
    result: Any = run_cell(cell, flatten, projected, layer.recurrent, layer.inner_bias, carry)
    return result
