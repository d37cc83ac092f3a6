"""The time loop of a recurrent layer, and its gradient written by hand.

A layer's input product for all T steps is one matrix product outside of this room. What is left is sequential: a
product with the recurrent kernel, and the gates. The backward loop stacks the gradients of the gates, so that the
gradient of the recurrent kernel is one product after the loop instead of T small ones added up inside it
(backpropagation through time, Werbos 1990).

Shapes: B batch, T time, H hidden, G gates of the cell (1 for rnn, 3 for gru, 4 for lstm). Everything is time-major.
The factors of every product are rounded to the dtype of the projected inputs; gates and sums are as wide as the carry.
The equations are those of Flax's `SimpleCell`, `GRUCell` and `LSTMCell`; the tests compare both in value and gradient.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from charlstm.core.fast.products import kernel_gradient

Carry = Any
"""[B, H] for rnn and gru; a pair (cell state c, hidden state h) of [B, H] for lstm, in Flax's order."""


class Cell(Protocol):
    """One step of a cell, forward and backward, without its matrix products."""

    @staticmethod
    def hidden(carry: Carry) -> Array:
        """The part of a carry that the recurrent kernel multiplies, and that the layer shows: [B, H]."""
        ...

    @staticmethod
    def forward(projected: Array, product: Array, carry: Carry) -> tuple[Carry, Any]:
        """From the input's [B, G·H] and the recurrent product's [B, G·H]: the next carry, and what backward needs."""
        ...

    @staticmethod
    def backward(saved: Any, d_carry: Carry) -> tuple[Array, Array, Carry]:
        """Gradients of the loss in `projected`, in `product`, and in the carry before, but for the product's path."""
        ...

    @staticmethod
    def add_hidden(carry: Carry, d_hidden: Array) -> Carry:
        """A carry, or its gradient, with more on its hidden part."""
        ...


class _HiddenIsCarry:
    @staticmethod
    def hidden(carry: Array) -> Array:
        return carry

    @staticmethod
    def add_hidden(carry: Array, d_hidden: Array) -> Array:
        return carry + d_hidden


class Rnn(_HiddenIsCarry):
    """h' = tanh(x + W h)  (Elman 1990)."""

    @staticmethod
    def forward(projected: Array, product: Array, carry: Array) -> tuple[Array, Array]:
        new = jnp.tanh(projected + product)
        return new, new

    @staticmethod
    def backward(saved: Array, d_carry: Array) -> tuple[Array, Array, Array]:
        d_sum = d_carry * (1 - saved * saved)
        return d_sum, d_sum, jnp.zeros_like(d_carry)


class Gru(_HiddenIsCarry):
    """r, z = σ(x + W h);  n = tanh(x_n + r (W_n h + b_n));  h' = (1 - z) n + z h  (Cho et al. 2014, eqs. 5-8)."""

    @staticmethod
    def forward(projected: Array, product: Array, carry: Array) -> tuple[Array, Any]:
        x_r, x_z, x_n = jnp.split(projected, 3, -1)
        p_r, p_z, p_n = jnp.split(product, 3, -1)
        r, z = jax.nn.sigmoid(x_r + p_r), jax.nn.sigmoid(x_z + p_z)
        n = jnp.tanh(x_n + r * p_n)
        return (1 - z) * n + z * carry, (r, z, n, p_n, carry)

    @staticmethod
    def backward(saved: Any, d_carry: Array) -> tuple[Array, Array, Array]:
        r, z, n, p_n, before = saved
        d_n = d_carry * (1 - z) * (1 - n * n)
        d_r = d_n * p_n * r * (1 - r)
        d_z = d_carry * (before - n) * z * (1 - z)
        d_projected = jnp.concatenate([d_r, d_z, d_n], -1)
        d_product = jnp.concatenate([d_r, d_z, d_n * r], -1)
        return d_projected, d_product, d_carry * z


class Lstm:
    """i, f, o = σ(x + W h);  g = tanh(x + W h);  c' = f c + i g;  h' = o tanh(c')  (Gers et al. 2000, no peepholes)."""

    @staticmethod
    def hidden(carry: tuple[Array, Array]) -> Array:
        return carry[1]

    @staticmethod
    def add_hidden(carry: tuple[Array, Array], d_hidden: Array) -> tuple[Array, Array]:
        return carry[0], carry[1] + d_hidden

    @staticmethod
    def forward(projected: Array, product: Array, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
        # One sigmoid for all four, since tanh(x) = 2 σ(2x) - 1: XLA makes vector code of it, and none of a mixture.
        stretch = np.repeat([1, 1, 2, 1], carry[0].shape[-1])
        i, f, g, o = jnp.split(jax.nn.sigmoid((projected + product) * stretch[None].astype(product.dtype)), 4, -1)
        g = 2 * g - 1
        c = f * carry[0] + i * g
        return (c, o * jnp.tanh(c)), (i, f, g, o, carry[0])

    @staticmethod
    def backward(saved: Any, d_carry: tuple[Array, Array]) -> tuple[Array, Array, tuple[Array, Array]]:
        i, f, g, o, before = saved
        d_c, d_h = d_carry
        tanh_c = jnp.tanh(f * before + i * g)  # cheaper to compute again than to keep
        d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
        d_i, d_f = d_c * g * i * (1 - i), d_c * before * f * (1 - f)
        d_g, d_o = d_c * i * (1 - g * g), d_h * tanh_c * o * (1 - o)
        d_sum = jnp.concatenate([d_i, d_f, d_g, d_o], -1)
        return d_sum, d_sum, (d_c * f, jnp.zeros_like(d_h))


CELLS: dict[str, type[Cell]] = {"rnn": Rnn, "gru": Gru, "lstm": Lstm}


class _Kept(NamedTuple):
    """What the forward loop leaves for the backward loop."""

    saved: Any
    hidden: Array  # [T, B, H], rounded
    first: Array  # [B, H], the hidden state before the first step
    kernel: Array


def _step(cell: type[Cell], projected_t: Array, rounded: Array, bias: Array | None, carry: Carry) -> tuple[Carry, Any]:
    product = _product(cell.hidden(carry), rounded)
    product = product if bias is None else product + bias[None, :]
    return cell.forward(projected_t.astype(product.dtype), product, carry)


def _product(wide: Array, rounded: Array) -> Array:
    return jnp.matmul(wide.astype(rounded.dtype), rounded, preferred_element_type=wide.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recur(cell: type[Cell], projected: Array, kernel: Array, bias: Array | None, carry: Carry) -> tuple[Array, Carry]:
    """Run one layer over T steps.

    Args:
        cell: one of `CELLS`.
        projected: [T, B, G·H], the input's part of the gates, with every bias that adds to it; bfloat16 makes the
            factors of all products bfloat16.
        kernel: [H, G·H], the recurrent kernel.
        bias: [G·H] added to the recurrent product, or None; only the gru needs one apart from the input's.
        carry: the carry before the first step.

    Returns:
        hidden [T, B, H] after each step, in the dtype of `projected`, and the carry after the last. Gradients have the
        dtypes of what they belong to.
    """
    rounded = kernel.astype(projected.dtype)

    def step(carry: Carry, projected_t: Array) -> tuple[Carry, Array]:
        carry, _ = _step(cell, projected_t, rounded, bias, carry)
        return carry, cell.hidden(carry).astype(rounded.dtype)

    carry, hidden = lax.scan(step, carry, projected)
    return hidden, carry


def _forward(cell: type[Cell], projected: Array, kernel: Array, bias: Array | None, carry: Carry) -> Any:
    rounded = kernel.astype(projected.dtype)

    def step(carry: Carry, projected_t: Array) -> tuple[Carry, Any]:
        carry, saved = _step(cell, projected_t, rounded, bias, carry)
        return carry, (cell.hidden(carry).astype(rounded.dtype), saved)

    last, (hidden, saved) = lax.scan(step, carry, projected)
    kept = _Kept(saved, hidden, cell.hidden(carry), kernel)
    return (hidden, last), (kept, bias)


def _backward(cell: type[Cell], residuals: Any, gradients: tuple[Array, Carry]) -> Any:
    kept, bias = residuals
    d_hidden, d_last = gradients
    narrow, wide = kept.hidden.dtype, kept.kernel.dtype
    transposed = kept.kernel.astype(narrow).T

    def step(d_carry: Carry, inputs: tuple[Any, Array]) -> tuple[Carry, tuple[Array, ...]]:
        saved, d_hidden_t = inputs
        d_projected, d_product, d_carry = cell.backward(saved, cell.add_hidden(d_carry, d_hidden_t.astype(wide)))
        # Where both are one array, as in all cells but the gru, one copy of it is stacked.
        gradients = (d_product,) if d_projected is d_product else (d_projected, d_product)
        d_carry = cell.add_hidden(d_carry, _product(d_product, transposed))
        return d_carry, tuple(each.astype(narrow) for each in gradients)

    d_carry, stacks = lax.scan(step, d_last, (kept.saved, d_hidden), reverse=True)
    d_projected, d_product = stacks[0], stacks[-1]
    before = jnp.concatenate([kept.first.astype(narrow)[None], kept.hidden[:-1]])
    d_kernel = kernel_gradient(before, d_product, wide)
    d_bias = None if bias is None else d_product.sum((0, 1), dtype=wide)
    return d_projected, d_kernel, d_bias, d_carry


recur.defvjp(_forward, _backward)


def in_chunks(
    read: Callable[[Array, Any, Carry], tuple[Array, Carry]], ids: Array, masks: Any, carry: Carry
) -> tuple[Array, Carry]:
    """Read T steps in chunks of √T, rounded up; a gradient keeps the carries between them and reads each chunk again.

    One more pass forward buys a memory of O(√T) for what lies inside of the layers (Chen et al. 2016, section 4.1);
    the top layer's hidden states stay.

    Args:
        read: ids [t, B], masks and a carry to hidden [t, B, H] and the carry after them.
        ids: [T, B].
        masks: a tree of [T, B, H], or of [1, B, H] for all steps.
        carry: the carry before the first step.

    Returns:
        What `read` gives for all T steps at once.
    """
    time = len(ids)
    length = math.isqrt(time - 1) + 1
    again = jax.checkpoint(read, prevent_cse=False)  # pyright: ignore[reportPrivateImportUsage]

    def chunk(length: int, carry: Carry, start: Array | int) -> tuple[Carry, Array]:
        def cut(each: Array) -> Array:
            return each if len(each) == 1 else lax.dynamic_slice_in_dim(each, start, length)

        hidden, carry = again(cut(ids), jax.tree.map(cut, masks), carry)
        return carry, hidden

    chunks, rest = divmod(time, length)
    carry, hidden = lax.scan(partial(chunk, length), carry, length * jnp.arange(chunks))
    hidden = hidden.reshape(-1, *hidden.shape[2:])
    if rest:
        carry, last = chunk(rest, carry, time - rest)
        hidden = jnp.concatenate([hidden, last])
    return hidden, carry
