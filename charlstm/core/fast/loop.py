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

from charlstm.core.cells import Cell, CellCarry
from charlstm.core.fast.products import kernel_gradient


class _Residuals(NamedTuple):
    """What the forward loop leaves for the backward loop."""

    saved: Any
    hidden: Array  # [T, B, H], rounded
    first: Array  # [B, H], the hidden state before the first step
    kernel: Array
    bias: Array | None


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def run_cell(
    cell: type[Cell], flatten: bool, projected: Array, kernel: Array, bias: Array | None, carry: CellCarry
) -> tuple[Array, CellCarry]:
    """Run one layer over T steps.

    Args:
        cell: a value of `cells.BUILT_IN`.
        flatten: see `products.product`.
        projected: [T, B, G·H], the input's part of the gates, with every bias that adds to it. Where it is bfloat16,
            the factors of all products are.
        kernel: [H, G·H], the recurrent kernel.
        bias: [G·H] that adds to the recurrent product, or None; only the gru has one apart from the input's.
        carry: the carry before the first step.

    Returns:
        hidden [T, B, H] after each step, in the dtype of `projected`, and the carry after the last. Each gradient has
        the dtype of what it belongs to.
    """
    rounded = kernel.astype(projected.dtype)

    def step(carry: CellCarry, projected_t: Array) -> tuple[CellCarry, Array]:
        carry, _ = _step(cell, projected_t, rounded, bias, carry)
        return carry, cell.hidden(carry).astype(rounded.dtype)

    carry, hidden = lax.scan(step, carry, projected)
    return hidden, carry


def _forward(
    cell: type[Cell], flatten: bool, projected: Array, kernel: Array, bias: Array | None, carry: CellCarry
) -> Any:
    rounded = kernel.astype(projected.dtype)

    def step(carry: CellCarry, projected_t: Array) -> tuple[CellCarry, Any]:
        carry, saved = _step(cell, projected_t, rounded, bias, carry)
        return carry, (cell.hidden(carry).astype(rounded.dtype), saved)

    last, (hidden, saved) = lax.scan(step, carry, projected)
    return (hidden, last), _Residuals(saved, hidden, cell.hidden(carry), kernel, bias)


def _backward(cell: type[Cell], flatten: bool, kept: _Residuals, gradients: tuple[Array, CellCarry]) -> Any:
    d_hidden, d_last = gradients
    narrow, wide = kept.hidden.dtype, kept.kernel.dtype
    transposed = kept.kernel.astype(narrow).T

    def step(d_carry: CellCarry, inputs: tuple[Any, Array]) -> tuple[CellCarry, tuple[Array, ...]]:
        saved, d_hidden_t = inputs
        d_projected, d_product, d_carry = cell.backward(saved, cell.add_hidden(d_carry, d_hidden_t.astype(wide)))
        # Where both are one array, as in all cells but the gru, one copy of it is stacked.
        gradients = (d_product,) if d_projected is d_product else (d_projected, d_product)
        d_carry = cell.add_hidden(d_carry, _product(d_product, transposed))
        return d_carry, tuple(each.astype(narrow) for each in gradients)

    d_carry, stacks = lax.scan(step, d_last, (kept.saved, d_hidden), reverse=True)
    d_projected, d_product = stacks[0], stacks[-1]
    before = jnp.concatenate([kept.first.astype(narrow)[None], kept.hidden[:-1]])
    d_kernel = kernel_gradient(before, d_product, wide, flatten=flatten)
    d_bias = None if kept.bias is None else d_product.sum((0, 1), dtype=wide)
    return d_projected, d_kernel, d_bias, d_carry


run_cell.defvjp(_forward, _backward)


def _step(
    cell: type[Cell], projected_t: Array, rounded: Array, bias: Array | None, carry: CellCarry
) -> tuple[CellCarry, Any]:
    product = _product(cell.hidden(carry), rounded)
    product = product if bias is None else product + bias[None, :]
    return cell.forward(projected_t.astype(product.dtype), product, carry)


def _product(wide: Array, rounded: Array) -> Array:
    return jnp.matmul(wide.astype(rounded.dtype), rounded, preferred_element_type=wide.dtype)
