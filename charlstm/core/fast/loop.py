"""The time loop of a recurrent layer, with a gradient written by hand.

The input's product for all T steps is one matrix product before the loop. What is left is sequential: a product with
the recurrent kernel, and the gates. The backward loop stacks the gradients of the gates, so that the recurrent kernel's
gradient is one product after the loop instead of T small ones inside it (backpropagation through time, Werbos 1990).

Shapes: B batch, T time, H hidden, G gates. Everything is time-major. The factors of every product are rounded to the
dtype of the projected inputs; gates and sums are as wide as the carry.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from charlstm.core.cells import Cell, CellCarry, Gru, Lstm, reset
from charlstm.core.fast.products import kernel_gradient, product


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


def fuse(cell: Cell, gates: Any) -> FusedLayer:
    """The parameters of one Flax cell, a tree by the names of its gates, as one kernel for each of the two products."""

    def beside(names: tuple[str, ...], part: str) -> Array:
        return jnp.concatenate([gates[name][part] for name in names], -1)

    inner = gates["hn"]["bias"] if isinstance(cell, Gru) else None
    inner_bias = None if inner is None else jnp.pad(inner, (2 * len(inner), 0))  # zeros for r and z
    bias = beside(cell.recurrent_kernels if isinstance(cell, Lstm) else cell.input_kernels, "bias")
    return FusedLayer(beside(cell.input_kernels, "kernel"), beside(cell.recurrent_kernels, "kernel"), bias, inner_bias)


def run_layer(
    cell: Cell, layer: FusedLayer, inputs: Array, carry: CellCarry, resets: Array | None, dtype: Any, flatten: bool
) -> tuple[Array, CellCarry]:
    """The layer's output [T, B, H] for inputs [T, B, D] or ids [T, B], and the carry after the last step.

    `resets` are as in `run_cell`, `dtype` and `flatten` as in `products.product`.
    """
    projected = project(layer, inputs, dtype, flatten)
    return run_cell(cell, flatten, projected, layer.recurrent, layer.inner_bias, carry, resets)  # pyright: ignore[reportReturnType]


def project(layer: FusedLayer, inputs: Array, dtype: Any, flatten: bool) -> Array:
    """The input's part of the gates, [T, B, G·H], with every bias that adds to it."""
    projected = product(inputs, layer.kernel, dtype, flatten=flatten) + layer.bias[None, None, :]
    return projected if dtype is None else projected.astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run_cell(
    cell: Cell, flatten: bool, projected: Array, kernel: Array, bias: Array | None, carry: CellCarry, resets: Any = None
) -> tuple[Array, CellCarry]:
    """Run one layer over T steps.

    Args:
        cell, flatten: a value of `cells.BUILT_IN`; as in `products.product`.
        projected: [T, B, G·H], the input's part of the gates, with every bias that adds to it. Where it is bfloat16,
            the factors of all products are.
        kernel, bias: [H, G·H] recurrent kernel; [G·H] that adds to its product, or None: the gru's alone.
        carry: the carry before the first step.
        resets: [T, B] bool, which rows' carries are zero before a step; None where no row's is.

    Returns:
        hidden [T, B, H] after each step, in the dtype of `projected`, and the carry after the last. Each gradient has
        the dtype of what it belongs to.
    """
    hidden, last, _ = scan_cell(cell, projected, kernel, bias, carry, resets, keep=False)
    return hidden, last


def _forward(cell: Cell, flatten: bool, projected: Array, kernel: Array, bias: Any, carry: Any, resets: Any) -> Any:
    hidden, last, saved = scan_cell(cell, projected, kernel, bias, carry, resets, keep=True)
    return (hidden, last), (saved, hidden, cell.hidden(carry), kernel, bias, resets)


def scan_cell(cell: Cell, projected: Array, kernel: Array, bias: Any, carry: Any, resets: Any, *, keep: bool) -> Any:
    """`run_cell` without a gradient of its own: hidden, the last carry, and what `Cell.forward` saves, if to `keep`."""
    rounded = kernel.astype(projected.dtype)

    def step(carry: CellCarry, inputs: tuple[Array, Any]) -> tuple[CellCarry, Any]:
        projected_t, carry = inputs[0], reset(carry, inputs[1])
        recurrent = _product(cell.hidden(carry), rounded)
        recurrent = recurrent if bias is None else recurrent + bias[None, :]
        carry, saved = cell.forward(projected_t.astype(recurrent.dtype), recurrent, carry)
        return carry, (cell.hidden(carry).astype(rounded.dtype), saved if keep else None)

    last, (hidden, saved) = lax.scan(step, carry, (projected, resets))
    return hidden, last, saved


def _backward(cell: Cell, flatten: bool, kept: Any, gradients: tuple[Array, CellCarry]) -> Any:
    (saved, hidden, first, kernel, bias, resets), (d_hidden, d_last) = kept, gradients
    narrow, wide = hidden.dtype, kernel.dtype
    transposed = kernel.astype(narrow).T

    def step(d_carry: CellCarry, inputs: tuple[Any, Array, Any]) -> tuple[CellCarry, tuple[Array, ...]]:
        saved_t, d_hidden_t, resets_t = inputs
        d_projected, d_product, d_carry = cell.backward(saved_t, cell.add_hidden(d_carry, d_hidden_t.astype(wide)))
        # Where both are one array, as in all cells but the gru, one copy of it is stacked.
        gradients = (d_product,) if d_projected is d_product else (d_projected, d_product)
        d_carry = reset(cell.add_hidden(d_carry, _product(d_product, transposed)), resets_t)
        return d_carry, tuple(each.astype(narrow) for each in gradients)

    d_carry, stacks = lax.scan(step, d_last, (saved, d_hidden, resets), reverse=True)
    d_projected, d_product = stacks[0], stacks[-1]
    before = reset(jnp.concatenate([first.astype(narrow)[None], hidden[:-1]]), resets)
    d_kernel = kernel_gradient(before, d_product, wide, flatten=flatten)
    d_bias = None if bias is None else d_product.sum((0, 1), dtype=wide)
    return d_projected, d_kernel, d_bias, d_carry, None


run_cell.defvjp(_forward, _backward)


def _product(wide: Array, rounded: Array) -> Array:
    return jnp.matmul(wide.astype(rounded.dtype), rounded, preferred_element_type=wide.dtype)
